// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/metaparticle-io/metaparticle/agent/gate"
	"github.com/metaparticle-io/metaparticle/agent/linux"
)

// inMachine runs the tests as the first process of a virtual machine, and then ends the virtual
// machine. The test in test/pause starts the virtual machine.
func inMachine(m *testing.M) {
	for dir, kind := range map[string]string{"/proc": "proc", "/tmp": "tmpfs", "/dev": "devtmpfs"} {
		if err := unix.Mount(kind, dir, kind, 0, ""); err != nil {
			panic(err)
		}
	}
	fmt.Printf("exit code %d\n", m.Run())
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
}

// quiet acts as a child that prints its process id, and then only waits.
func quiet() {
	fmt.Println(os.Getpid())
	_ = unix.Pause()
}

// TestShimFreezesChildAfterAPausedMachineResumes sets the machine's clock, as a time server does
// after a pause. So the test runs only in a virtual machine.
func TestShimFreezesChildAfterAPausedMachineResumes(t *testing.T) {
	if os.Getenv("GATE_MACHINE") == "" {
		t.Skip("test/pause runs this in a virtual machine")
	}
	from := bufio.NewReader(os.Stdin)
	for _, taken := range []bool{false, true, false, true} {
		a := supervised(t, os.Stderr, os.Args[0], "quiet")
		pause(t, a, from, taken)
	}
}

// pause makes the host pause the virtual machine, and then sets the virtual machine's wall clock.
// If the argument "taken" is true, another pod holds the slot: the agent answers the leap with a
// drain. If "taken" is false, the agent answers with a grant.
func pause(t *testing.T, a *fakeAgent, from *bufio.Reader, taken bool) {
	a.grants("h1", time.Hour)
	a.until(gate.Running, "h1")
	pid := a.pids(1)[0]
	before, wallBefore := linux.Now(), linux.Wall()
	fmt.Println("pause me")
	line, err := from.ReadString('\n')
	require.NoError(t, err)
	woken, err := strconv.ParseInt(strings.TrimSpace(line), 10, 64)
	require.NoError(t, err)
	missing := time.Duration(woken) - linux.Wall()
	require.Greater(t, missing, 4*time.Second, "the wall clock stood still for the pause")
	t.Logf("CLOCK_BOOTTIME went on by %v, CLOCK_REALTIME by %v, and the pause is missing: %v",
		(linux.Now() - before).Round(time.Millisecond), (linux.Wall() - wallBefore).Round(time.Millisecond), missing.Round(time.Millisecond))
	require.False(t, stands(pid), "nothing tells of the pause before the clock is set")

	set := linux.Now()
	now := unix.NsecToTimespec(woken)
	require.NoError(t, unix.ClockSettime(unix.CLOCK_REALTIME, &now))
	// The test does not poll, because polling would occupy the machine's only processor.
	st := a.next()
	for ; st.Leap == 0; st = a.next() {
	}
	told := linux.Now() - set
	stand(t, true, pid)
	if taken {
		require.NoError(t, a.send(gate.Order{Drain: &gate.Drain{Hold: "h1", Reason: "Lost"}}))
		a.until(gate.Waiting, "h1")
		assert.ErrorIs(t, syscall.Kill(pid, 0), unix.ESRCH)
		t.Logf("clock set → child stopped and agent told %v, → child killed, of another holder at once, %v", told, linux.Now()-set)
		return
	}
	a.confirms("h1", st.Leap)
	for ; st.Leap != 0; st = a.next() {
	}
	t.Logf("clock set → child stopped and agent told %v, → child goes on, answered at once, %v", told, linux.Now()-set)
	stand(t, false, pid)
	a.drains("h1")
	a.until(gate.Waiting, "h1")
}

// machineLeaps returns the path of a pipe by which a test sets a shim's wall clock. In a
// virtual machine, whose own clock a test may set, the path is empty. The shim then uses the
// real wall clock.
func machineLeaps(t *testing.T) string {
	if os.Getenv("GATE_MACHINE") != "" {
		return ""
	}
	path := filepath.Join(t.TempDir(), "leaps")
	require.NoError(t, unix.Mkfifo(path, 0o600))
	return path
}

// storm is a machine on which orphans end as fast as the shim reaps them, until none is left.
type storm struct {
	Machine
	left  int
	wakes time.Duration
}

func (m *storm) Now() time.Duration { return time.Hour }

func (m *storm) Wake(at time.Duration) { m.wakes = at }

func (m *storm) Reap() (pid int, status unix.WaitStatus, none bool) {
	if m.left == 0 {
		return 0, 0, true
	}
	m.left--
	return 1000 + m.left, 0, false
}

// The shim checks the clock only between two calls of reap. So one call must not reap all orphans.
func TestShimKeepsDeadlineDespiteAFloodOfOrphans(t *testing.T) {
	m := &storm{left: 3 * mostReaped / 2}
	s := newShim(Config{}, Identity{}, m)
	assert.False(t, s.reap())
	assert.Equal(t, mostReaped/2, m.left)
	s.wakeAt(2 * time.Hour)
	assert.Equal(t, m.Now(), m.wakes, "the alarm rings immediately")
	s.tick(Rang)
	assert.Zero(t, m.left)
	s.wakeAt(2 * time.Hour)
	assert.Equal(t, 2*time.Hour, m.wakes)
	assert.True(t, s.reap())
}
