package gate

import (
	"bufio"
	"io"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// R12: an interactive shell with jobs, of which one was stopped by its user, sees no
// stopped job after a freeze and a thaw.
func TestReviewJobControlSurvivesAFreeze(t *testing.T) {
	a := supervised(t, os.Stderr, "bash", "-c", `set -m; sleep 1000 & sleep 1001 & kill -STOP %2; sleep 0.3; echo $$ $(jobs -p); while :; do read -t 1 <> <(:); jobs; echo .; done 2>&1`)
	a.grants("h1", time.Hour)
	a.until(Running, "h1")
	out := bufio.NewReader(a.stdout)
	line, err := out.ReadString('\n')
	require.NoError(t, err)
	t.Log(line)
	var before, after string
	for range 4 {
		before, _ = out.ReadString('\n')
		if before != ".\n" {
			t.Log("before", before)
		}
	}
	for range 5 {
		leap, _ := a.leapt(time.Minute)
		time.Sleep(300 * time.Millisecond)
		a.confirms("h1", leap)
		time.Sleep(1500 * time.Millisecond)
	}
	_ = a.stdout.SetReadDeadline(time.Now().Add(time.Second))
	for {
		l, err := out.ReadString('\n')
		if err != nil {
			break
		}
		after += l
	}
	t.Log(after)
}

// R13: a traced child freezes, and goes on.
func TestReviewTracedChildFreezesAndGoesOn(t *testing.T) {
	a := supervised(t, os.Stderr, "strace", "-f", "-o", "/dev/null", os.Args[0], "ticking")
	a.grants("h1", time.Hour)
	a.until(Running, "h1")
	out := bufio.NewReader(a.stdout)
	_, err := out.ReadString('\n')
	require.NoError(t, err)
	ticks := func(d time.Duration) (n int) {
		_ = a.stdout.SetReadDeadline(time.Now().Add(d))
		for {
			if _, err := out.ReadString('\n'); err != nil {
				return n
			}
			n++
		}
	}
	ticks(500 * time.Millisecond)
	for range 5 {
		leap, _ := a.leapt(time.Minute)
		time.Sleep(100 * time.Millisecond)
		ticks(100 * time.Millisecond)
		assert.Zero(t, ticks(700*time.Millisecond), "frozen")
		a.confirms("h1", leap)
		time.Sleep(200 * time.Millisecond)
		assert.NotZero(t, ticks(700*time.Millisecond), "goes on")
	}
	a.drains("h1")
	a.until(Waiting, "h1")
	_ = io.Discard
}
