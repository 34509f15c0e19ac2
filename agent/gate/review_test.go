package gate

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func init() {
	if len(os.Args) == 2 && os.Args[1] == "headless" {
		runtime.LockOSThread() // the main goroutine stays on the first thread
	}
}

// headless is a child whose first thread has ended (pthread_exit in main), and whose
// other threads go on: /proc says Z.
func headless() {
	go tick()
	_, _, _ = syscall.RawSyscall(syscall.SYS_EXIT, 0, 0, 0)
}

func tick() {
	fmt.Println(os.Getpid())
	for {
		time.Sleep(20 * time.Millisecond)
		if _, err := fmt.Println("tick"); err != nil {
			os.Exit(0)
		}
	}
}

// withoutKill makes the shim one of a container without the capability KILL.
func withoutKill(t *testing.T) {
	t.Helper()
	old := os.Args[0]
	script := filepath.Join(t.TempDir(), "shim")
	require.NoError(t, os.WriteFile(script, []byte("#!/bin/sh\nexec setpriv --bounding-set -kill "+old+" \"$@\"\n"), 0o755))
	os.Args[0] = script
	t.Cleanup(func() { os.Args[0] = old })
}

// R1: child that dropped its user, container without KILL.
func TestReviewLeapFreezesAChildThatDroppedItsUser(t *testing.T) {
	withoutKill(t)
	a := supervised(t, os.Stderr, "setpriv", "--reuid", "1000", "--regid", "1000", "--clear-groups", "sh", "-c", "echo $$; while :; do sleep 0.02; done")
	a.grants("h1", time.Hour)
	a.until(Running, "h1")
	pid := a.pids(1)[0]
	a.leapt(time.Minute)
	assert.Eventually(t, func() bool { return stands(pid) }, 3*time.Second, 5*time.Millisecond)
}

// R2: zombie leader with live threads.
func TestReviewLeapFreezesAProcessWhoseFirstThreadHasEnded(t *testing.T) {
	a := supervised(t, os.Stderr, os.Args[0], "headless")
	a.grants("h1", time.Hour)
	a.until(Running, "h1")
	out := bufio.NewReader(a.stdout)
	line, err := out.ReadString('\n')
	require.NoError(t, err)
	stat, _ := os.ReadFile("/proc/" + strings.TrimSpace(line) + "/stat")
	t.Logf("%s", stat)
	a.leapt(time.Minute)
	time.Sleep(500 * time.Millisecond)
	for out.Buffered() > 0 {
		_, _ = out.ReadString('\n')
	}
	_ = a.stdout.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	for i := 0; i < 10000; i++ { // what was in the pipe
		if _, err = out.ReadString('\n'); err != nil {
			break
		}
	}
	_ = a.stdout.SetReadDeadline(time.Now().Add(time.Second))
	n := 0
	for {
		if _, err := out.ReadString('\n'); err != nil {
			break
		}
		n++
	}
	assert.Zero(t, n, "ticks of a frozen application in a second")
}

// R3: a SIGCONT that the shim gets is passed on to the frozen child.
func TestReviewSIGCONTToTheShimDoesNotThaw(t *testing.T) {
	a := supervised(t, os.Stderr, os.Args[0], "quiet")
	a.grants("h1", time.Hour)
	a.until(Running, "h1")
	pid := a.pids(1)[0]
	a.leapt(time.Minute)
	stand(t, true, pid)
	require.NoError(t, a.cmd.Process.Signal(unix.SIGCONT))
	time.Sleep(200 * time.Millisecond)
	for range 3 { // beats
		a.next()
	}
	assert.True(t, stands(pid), "still frozen: nobody answered the leap")
}

// R4: a SIGCONT from elsewhere in the container (kubectl exec, a sibling not yet
// stopped) is never made good for.
func TestReviewThawedFromElsewhereIsStoppedAgain(t *testing.T) {
	a := supervised(t, os.Stderr, os.Args[0], "quiet")
	a.grants("h1", time.Hour)
	a.until(Running, "h1")
	pid := a.pids(1)[0]
	a.leapt(time.Minute)
	stand(t, true, pid)
	require.NoError(t, syscall.Kill(pid, unix.SIGCONT))
	time.Sleep(200 * time.Millisecond)
	for range 3 { // beats
		a.next()
	}
	assert.True(t, stands(pid), "still frozen: nobody answered the leap")
}

// lateHandler sets its handler after half a second of work; it forks nothing, for who
// forks blocks signals meanwhile.
var lateHandler = []string{"python3", "-S", "-c", `
import os, signal, time
print(os.getpid(), flush=True)
while time.process_time() < 0.6: pass
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
while True: time.sleep(1)
`}

// R5: a child that was young when it was frozen is young when it thaws.
func TestReviewAFrozenChildStaysYoung(t *testing.T) {
	for _, first := range []string{"frozen, then asked", "asked, then frozen"} {
		t.Run(first, func(t *testing.T) {
			a := supervised(t, os.Stderr, lateHandler...)
			a.grants("h1", time.Hour)
			a.until(Running, "h1")
			out := bufio.NewReader(a.stdout)
			_, err := out.ReadString('\n')
			require.NoError(t, err)
			var leap int
			if first == "frozen, then asked" {
				leap, _ = a.leapt(time.Minute)
				require.NoError(t, a.cmd.Process.Signal(unix.SIGTERM))
			} else {
				require.NoError(t, a.cmd.Process.Signal(unix.SIGTERM))
				time.Sleep(100 * time.Millisecond)
				leap, _ = a.leapt(time.Minute)
			}
			time.Sleep(5500 * time.Millisecond)
			a.confirms("h1", leap)
			a.exits(0)
		})
	}
}
