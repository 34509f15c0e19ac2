// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"bytes"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/metaparticle-io/metaparticle/agent/gate"
	"github.com/metaparticle-io/metaparticle/agent/linux"
)

// The tests start their own test binary as a shim in another process, and act as the server. The
// tests also send orders that a real server never sends. The scripts of cmd/shim test a shim with
// a real server.
func TestMain(m *testing.M) {
	switch socket := os.Getenv("GATE_SHIM"); {
	case len(os.Args) == 2 && os.Args[1] == "quiet":
		quiet()
	case len(os.Args) == 2 && os.Args[1] == "headless":
		headless()
	case socket != "":
		c := Config{
			Container: "app", Socket: socket, Command: os.Args[1:], StandBy: true, Leaps: testLeaps(os.Getenv("GATE_LEAPS")),
		}
		c.Records, c.Unbounded = os.Getenv("GATE_RECORDS") != "", os.Getenv("GATE_UNBOUNDED") != ""
		if os.Getenv("GATE_PRESTOP") != "" {
			c.PreStop, c.Grace = &Hook{Command: []string{"sh", "-c", `read x < "$GATE_PRESTOP"`}}, time.Hour
		}
		os.Exit(Exec(c))
	case os.Getenv("GATE_MACHINE") != "":
		inMachine(m)
	}
	os.Exit(m.Run())
}

type fakeAgent struct {
	t        *testing.T
	listener *net.UnixListener
	*linux.Conn
	boot   string
	states chan gate.Report
	// answers has the outcomes of asides. The channel has room for all outcomes of a test.
	answers chan gate.Outcome
	cmd     *exec.Cmd
	stdout  *os.File // the output of the child
	leaps   *os.File // each line moves the shim's wall clock by a duration
}

// patience bounds every wait. Only a bug makes a test wait so long.
const patience = time.Minute

// deaf is a child that first makes itself ignore SIGTERM, and then prints a line.
var deaf = []string{"sh", "-c", "trap '' TERM; echo deaf; while :; do sleep 1000; done"}

func (a *fakeAgent) deaf() {
	a.t.Helper()
	line := make([]byte, 5)
	_, err := a.stdout.Read(line)
	require.NoError(a.t, err)
	require.Equal(a.t, "deaf\n", string(line))
}

// The function "supervised" starts a shim with the command, and waits until the shim connects.
func supervised(t *testing.T, stderr *os.File, command ...string) *fakeAgent {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "agent.sock")
	l, err := linux.Socket("unixpacket", socket, 0o777)
	require.NoError(t, err)
	t.Cleanup(func() { l.Close() })
	cmd := exec.Command(os.Args[0], command...)
	leaps := machineLeaps(t)
	cmd.Env = append(os.Environ(), "GATE_SHIM="+socket, "GATE_LEAPS="+leaps, "GATE_TEST=app")
	r, w, err := os.Pipe()
	require.NoError(t, err)
	t.Cleanup(func() { r.Close() })
	defer w.Close()
	cmd.Stdout, cmd.Stderr = w, stderr
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		// No descendant of the shim may outlive the test.
		processes, _ := linux.ReadProcesses()
		for _, p := range linux.Descendants(processes, cmd.Process.Pid) {
			_ = unix.Kill(p.PID, unix.SIGKILL)
		}
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	a := &fakeAgent{t: t, listener: l, stdout: r, cmd: cmd}
	// leaps is the path of a named pipe. The test opens the pipe for both reading and writing,
	// so that the open does not wait for the shim.
	if leaps != "" {
		a.leaps, err = os.OpenFile(leaps, os.O_RDWR, 0)
		require.NoError(t, err)
		t.Cleanup(func() { a.leaps.Close() })
	}
	a.boot, err = linux.BootID()
	require.NoError(t, err)
	a.accept()
	return a
}

// held starts a shim with the command, and lets a child of the shim run under the hold h1.
func held(t *testing.T, within time.Duration, command ...string) *fakeAgent {
	t.Helper()
	a := supervised(t, os.Stderr, command...)
	a.grants("h1", within)
	a.until(gate.Running, "h1")
	return a
}

// The method "exits" waits until the shim ends, and checks the exit code.
func (a *fakeAgent) exits(code int) {
	a.t.Helper()
	_ = a.cmd.Wait()
	assert.Equal(a.t, code, a.cmd.ProcessState.ExitCode())
}

func (a *fakeAgent) accept() {
	a.t.Helper()
	require.NoError(a.t, a.listener.SetDeadline(time.Now().Add(patience)))
	u, err := a.listener.AcceptUnix()
	require.NoError(a.t, err)
	a.t.Cleanup(func() { u.Close() })
	a.Conn, err = linux.NewConn(u, gate.MaxMessage)
	require.NoError(a.t, err)
	states := make(chan gate.Report)
	a.states, a.answers = states, make(chan gate.Outcome, 100)
	c, done := a.Conn, a.t.Context().Done()
	go func() {
		defer close(states)
		for {
			b, file, err := c.Receive()
			if err != nil {
				return
			}
			if file != nil {
				file.Close()
			}
			st, answer, err := gate.DecodeMessage(b)
			assert.NoError(a.t, err)
			if answer != nil {
				a.answers <- *answer
				continue
			}
			select {
			case states <- st:
			case <-done:
				return
			}
		}
	}()
}

func (a *fakeAgent) send(message any) error {
	b, err := gate.Encode(message)
	require.NoError(a.t, err)
	return a.Send(b)
}

func (a *fakeAgent) next() gate.Report {
	a.t.Helper()
	select {
	case st, ok := <-a.states:
		require.True(a.t, ok, "hung up")
		return st
	case <-time.After(patience):
		a.t.Fatal("nothing is heard")
		return gate.Report{}
	}
}

// The method "until" waits for a state with the phase and the hold, and ignores all other states.
func (a *fakeAgent) until(p gate.Phase, hold string) {
	a.t.Helper()
	late := linux.Now() + patience
	for st := a.next(); st.Phase != p || st.Hold != hold; st = a.next() {
		require.Less(a.t, linux.Now(), late, "last state: %+v", st)
	}
}

// kill is the time within which even a busy machine notices the end of a killed child.
const kill = 3 * time.Second

func (a *fakeAgent) grants(hold string, within time.Duration) {
	a.t.Helper()
	require.NoError(a.t, a.send(gate.Order{Grant: &gate.Grant{
		Hold: hold, BootID: a.boot, Deadline: linux.Now() + within, Drain: 100 * time.Millisecond, Kill: kill,
	}}))
}

func (a *fakeAgent) drains(hold string) {
	a.t.Helper()
	require.NoError(a.t, a.send(gate.Order{Drain: &gate.Drain{Hold: hold, Reason: "test", Grace: time.Second}}))
}

// The method "starts" sends the grant of a further hold with the name "last". The result has each
// hold under which the shim has started a child, including "last".
func (a *fakeAgent) starts() (holds []string) {
	a.t.Helper()
	a.grants("last", time.Hour)
	late := linux.Now() + patience
	for st := a.next(); ; st = a.next() {
		require.Less(a.t, linux.Now(), late, "last state: %+v", st)
		if st.Phase == gate.Running && !slices.Contains(holds, st.Hold) {
			holds = append(holds, st.Hold)
			if st.Hold == "last" {
				a.drains("last")
				a.until(gate.Waiting, "last")
				return holds
			}
			a.drains(st.Hold)
			a.grants("last", time.Hour)
		}
	}
}

func TestShimIgnoresAGrantOfAnEndedHold(t *testing.T) {
	t.Parallel()
	a := held(t, time.Hour, "sleep", "1000")
	a.drains("h1")
	a.grants("h1", time.Hour) // the agent sends this grant before it knows that the hold is over
	a.until(gate.Waiting, "h1")
	a.grants("h1", time.Hour)
	assert.Equal(t, []string{"last"}, a.starts())
}

func TestShimReportsNoHoldBeforeItsChildRuns(t *testing.T) {
	t.Parallel()
	a := supervised(t, os.Stderr, "sleep", "1000")
	a.grants("h1", time.Hour)
	st := a.next()
	for ; st.Phase == gate.Waiting; st = a.next() {
		require.Empty(t, st.Hold)
	}
	assert.Equal(t, gate.Running, st.Phase)
	a.drains("h1")
	a.until(gate.Waiting, "h1")
}

func TestShimIgnoresGrantIfHoldWasDrainedEarlier(t *testing.T) {
	t.Parallel()
	a := supervised(t, os.Stderr, "sleep", "1000")
	a.drains("h1")
	a.grants("h1", time.Hour)
	a.until(gate.Waiting, "h1")
	assert.Equal(t, []string{"last"}, a.starts())
}

func TestReconnectedShimSendsItsStateFirst(t *testing.T) {
	t.Parallel()
	a := supervised(t, os.Stderr, "sleep", "1000")
	assert.Equal(t, gate.Waiting, a.next().Phase)
	require.NoError(t, a.Close())
	a.accept()
	first := a.next()
	assert.Equal(t, gate.Waiting, first.Phase, "the state is repeated first")
	a.grants("h1", time.Hour)
	a.until(gate.Running, "h1")
	require.NoError(t, a.Close())
	a.accept()
	st := a.next()
	assert.Equal(t, first.Shim, st.Shim)
	assert.Positive(t, first.Began)
	assert.Equal(t, first.Began, st.Began, "the shim started once")
	assert.Equal(t, gate.Running, st.Phase, "a child does not mind the agent's end")
	assert.Equal(t, "h1", st.Hold)
	a.drains("h1")
	a.until(gate.Waiting, "h1")
}

func TestShimIgnoresAGrantWithTooLittleTime(t *testing.T) {
	t.Parallel()
	a := supervised(t, os.Stderr, "sleep", "1000")
	a.grants("short", 250*time.Millisecond)
	a.grants("past", -time.Second)
	require.NoError(t, a.send(gate.Order{Grant: &gate.Grant{Hold: "other boot", BootID: "other", Deadline: linux.Now() + time.Hour}}))
	assert.Equal(t, []string{"last"}, a.starts())
}

func TestShimIgnoresGrantWhoseStartDeadlineHasPassed(t *testing.T) {
	t.Parallel()
	a := supervised(t, os.Stderr, "sleep", "1000")
	for i, startBy := range []time.Duration{1, linux.Now() - time.Second} {
		require.NoError(t, a.send(gate.Order{Grant: &gate.Grant{
			Hold: "late" + strconv.Itoa(i), BootID: a.boot, Deadline: linux.Now() + time.Hour, Drain: time.Second, Kill: kill, StartBy: startBy,
		}}))
	}
	require.NoError(t, a.send(gate.Order{Grant: &gate.Grant{
		Hold: "in time", BootID: a.boot, Deadline: linux.Now() + time.Hour, Drain: time.Second, Kill: kill, StartBy: linux.Now() + time.Minute,
	}}))
	a.until(gate.Running, "in time")
	a.drains("in time")
	a.until(gate.Waiting, "in time")
}

func TestShimAcceptsUnboundedDeadlineOnlyIfConfigured(t *testing.T) {
	far := func(a *fakeAgent, hold string, deadline time.Duration) {
		require.NoError(t, a.send(gate.Order{Grant: &gate.Grant{Hold: hold, BootID: a.boot, Deadline: deadline, Drain: time.Second, Kill: kill}}))
	}
	a := supervised(t, os.Stderr, "sleep", "1000")
	far(a, "unbounded", gate.Unbounded)
	far(a, "two hours", linux.Now()+2*time.Hour)
	a.grants("h1", kill+time.Second)
	a.until(gate.Running, "h1")
	far(a, "h1", gate.Unbounded) // this grant does not prolong the deadline
	a.until(gate.Waiting, "h1")

	t.Run("unbounded", func(t *testing.T) {
		t.Setenv("GATE_UNBOUNDED", "1")
		b := supervised(t, os.Stderr, "sleep", "1000")
		far(b, "h1", gate.Unbounded)
		b.until(gate.Running, "h1")
		b.drains("h1")
		b.until(gate.Waiting, "h1")
	})
}

func TestOnlyGrantsOfChildsHoldMoveTheDeadline(t *testing.T) {
	t.Parallel()
	a := supervised(t, os.Stderr, "sleep", "1000")
	a.grants("h1", kill+time.Second)
	deadline := linux.Now() + kill + time.Second
	a.until(gate.Running, "h1")
	a.grants("h2", time.Hour)
	a.drains("h2")
	require.NoError(t, a.send(gate.Order{Grant: &gate.Grant{Hold: "h1", BootID: "other", Deadline: linux.Now() + time.Hour}}))
	a.until(gate.Waiting, "h1")
	assert.Less(t, linux.Now(), deadline)

	// A grant never moves the deadline to an earlier instant, even under the same hold.
	a.grants("h3", kill+3*time.Second)
	early := linux.Now() + 2*time.Second
	a.until(gate.Running, "h3")
	a.grants("h3", 500*time.Millisecond)
	a.until(gate.Draining, "h3")
	assert.Greater(t, linux.Now(), early)
	a.until(gate.Waiting, "h3")
}

func TestRenewalProlongsTheDeadlineWithoutCancelingTheDrain(t *testing.T) {
	t.Parallel()
	a := held(t, kill+2*time.Second, deaf...)
	a.deaf()
	began := linux.Now()
	require.NoError(t, a.send(gate.Order{Drain: &gate.Drain{Hold: "h1", Reason: "slow", Grace: 3 * time.Second}}))
	a.grants("h1", time.Hour)
	a.until(gate.Waiting, "h1")
	took := linux.Now() - began
	assert.GreaterOrEqual(t, took, 3*time.Second, "the deadline cut the grace that renewals had made room for")
	assert.Less(t, took, 6*time.Second, "the renewal called the drain off")
}

func TestDeadlineCutsTheGraceOfADrain(t *testing.T) {
	t.Parallel()
	a := supervised(t, os.Stderr, deaf...)
	deadline := linux.Now() + kill + 2*time.Second
	a.grants("h1", kill+2*time.Second)
	a.until(gate.Running, "h1")
	a.deaf()
	require.NoError(t, a.send(gate.Order{Drain: &gate.Drain{Hold: "h1", Reason: "slow", Grace: time.Minute}}))
	a.until(gate.Waiting, "h1")
	assert.Less(t, linux.Now(), deadline)
}

func TestUnreadLogDoesNotStopTheWatchdog(t *testing.T) {
	t.Parallel()
	r, w, err := os.Pipe()
	require.NoError(t, err)
	defer r.Close()
	// The pipe is full, so the write of each log line must wait.
	fd := int(w.Fd())
	require.NoError(t, unix.SetNonblock(fd, true))
	for err == nil {
		_, err = unix.Write(fd, bytes.Repeat([]byte("x"), 4096))
	}
	require.NoError(t, unix.SetNonblock(fd, false))
	a := supervised(t, w, "sleep", "1000")
	w.Close()
	a.grants("h1", kill+time.Second)
	deadline := linux.Now() + kill + time.Second
	a.until(gate.Running, "h1")
	a.until(gate.Waiting, "h1")
	assert.Less(t, linux.Now(), deadline)
}

func TestClosedLogPipeDoesNotShortenTheGrace(t *testing.T) {
	t.Parallel()
	r, w, err := os.Pipe()
	require.NoError(t, err)
	a := supervised(t, w, deaf...)
	w.Close()
	r.Close()
	a.grants("h1", time.Hour)
	a.until(gate.Running, "h1")
	a.deaf()
	began := linux.Now()
	a.drains("h1") // the shim logs the drain, and gets SIGPIPE; the grace is a second
	a.until(gate.Waiting, "h1")
	assert.GreaterOrEqual(t, linux.Now()-began, time.Second)
}

func TestShimReconnectsAfterAMalformedMessage(t *testing.T) {
	t.Parallel()
	a := supervised(t, os.Stderr, "sleep", "1000")
	require.NoError(t, a.send(strings.Repeat("x", 100)))
	a.accept()
	assert.Equal(t, gate.Waiting, a.next().Phase)
}

// The agent counts a shim's bounded wait from the instant Since in the shim's state.
func TestDrainOrderDoesNotProlongShimsBoundedWait(t *testing.T) {
	a := supervised(t, os.Stderr, "true")
	began := a.next()
	require.Equal(t, gate.Waiting, began.Phase)
	a.drains("h1")
	late := linux.Now() + patience
	st := a.next()
	for ; st.Hold != "h1"; st = a.next() {
		require.Less(t, linux.Now(), late)
	}
	assert.Equal(t, began.Since, st.Since)
}
