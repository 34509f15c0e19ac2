package gate

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
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
		for a.next().Leap != 0 { // what was said before
		}
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
		for a.next().Leap != 0 { // what was said before
		}
		time.Sleep(200 * time.Millisecond)
		if !assert.NotZero(t, ticks(700*time.Millisecond), "goes on") {
			processes, _ := readProcesses()
			for _, p := range descendants(processes, a.cmd.Process.Pid) {
				b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.pid))
				t.Logf("%.700s", b)
			}
			break
		}
	}
	a.drains("h1")
	a.until(Waiting, "h1")
	_ = io.Discard
}

// R14: preStop, the kubelet's signal, a drain that ends the container, and a leap in
// the middle of the hook, before it, or after it.
func TestReviewPreStopDrainEndAndLeap(t *testing.T) {
	for _, when := range []string{"before", "in the hook", "after the signal"} {
		t.Run(when, func(t *testing.T) {
			t.Setenv("GATE_PRESTOP", "echo hook; sleep 1; echo hooked")
			a := supervised(t, os.Stderr, "sh", "-c", "trap 'echo asked; sleep 1; echo done; exit 7' TERM; echo up; while :; do sleep 0.05; done")
			a.grants("h1", time.Hour)
			a.until(Running, "h1")
			out := bufio.NewReader(a.stdout)
			_, _ = out.ReadString('\n')
			leap := 0
			if when == "before" {
				leap, _ = a.leapt(time.Minute)
			}
			require.NoError(t, a.cmd.Process.Signal(unix.SIGTERM))
			require.NoError(t, a.send(order{Drain: &drain{Hold: "h1", Reason: "PodDeleted", Grace: 20 * time.Second, End: true}}))
			a.until(Draining, "h1")
			switch when {
			case "in the hook":
				leap, _ = a.leapt(time.Minute)
			case "after the signal":
				for {
					if l, _ := out.ReadString('\n'); l == "asked\n" {
						break
					}
				}
				leap, _ = a.leapt(time.Minute)
			}
			time.Sleep(2 * time.Second)
			require.NoError(t, a.cmd.Process.Signal(unix.SIGTERM))
			a.confirms("h1", leap)
			rest, _ := io.ReadAll(out)
			t.Logf("%q", rest)
			a.exits(7)
		})
	}
}

// R15: a tracer from outside of the container's tree (kubectl debug, strace -p).
func TestReviewTracedFromOutsideFreezes(t *testing.T) {
	a := supervised(t, os.Stderr, os.Args[0], "tracee")
	a.grants("h1", time.Hour)
	a.until(Running, "h1")
	out := bufio.NewReader(a.stdout)
	line, err := out.ReadString('\n')
	require.NoError(t, err)
	tracer := exec.Command("strace", "-f", "-o", "/dev/null", "-p", strings.TrimSpace(line))
	require.NoError(t, tracer.Start())
	defer func() { _ = tracer.Process.Kill(); _ = tracer.Wait() }()
	time.Sleep(500 * time.Millisecond)
	missed := 0
	ticks := func(d time.Duration) (n int) {
		_ = a.stdout.SetReadDeadline(time.Now().Add(d))
		for {
			if _, err := out.ReadString('\n'); err != nil {
				return n
			}
			n++
		}
	}
	for range 10 {
		ticks(10 * time.Millisecond)
		leap, _ := a.leapt(time.Minute)
		ticks(100 * time.Millisecond)
		if ticks(200*time.Millisecond) > 0 {
			missed++
		}
		a.confirms("h1", leap)
		for a.next().Leap != 0 {
		}
	}
	assert.Zero(t, missed, "of 10 freezes")
}
