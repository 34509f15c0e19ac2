// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package podgate

import (
	"bufio"
	"context"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/agent/gate"
	"github.com/metaparticle-io/metaparticle/agent/linux"
	"github.com/metaparticle-io/metaparticle/api"
)

// patience bounds every wait. The bound is far above the longest wait of a
// passing test.
const patience = time.Minute

// served is the gate of one agent process, with Run under way.
type served struct {
	*Pod
	t      *testing.T
	dir    string
	cancel context.CancelFunc
	stop   chan struct{}
	done   chan error
}

func serve(t *testing.T, dir string) *served {
	t.Helper()
	return serveOn(t, PodConfig{Dir: dir})
}

func serveOn(t *testing.T, config PodConfig) *served {
	t.Helper()
	p, err := OpenPod(t.Context(), config)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	s := &served{Pod: p, t: t, dir: config.Dir, cancel: cancel, stop: make(chan struct{}), done: make(chan error, 1)}
	go func() { s.done <- p.Run(ctx, s.stop) }()
	t.Cleanup(s.kill)
	return s
}

// kill ends the process as SIGKILL would, without a message or a write.
func (s *served) kill() {
	s.cancel()
	select {
	case err := <-s.done:
		s.done <- err
	case <-time.After(patience):
		assert.Fail(s.t, "it does not end")
	}
}

// ended returns the result of Run.
func (s *served) ended() error {
	s.t.Helper()
	select {
	case err := <-s.done:
		s.done <- err
		return err
	case <-time.After(patience):
		require.FailNow(s.t, "it does not end")
		return nil
	}
}

// The method "next" returns the next report.
func (s *served) next() gate.Report {
	s.t.Helper()
	select {
	case r := <-s.Reports():
		return r
	case <-time.After(patience):
		require.FailNow(s.t, "no report")
		return gate.Report{}
	}
}

// reported returns the number of reports so far.
func (s *served) reported() int {
	s.box.mu.Lock()
	defer s.box.mu.Unlock()
	return s.box.puts
}

// wait connects in the same way as the role "wait" in the init container.
func (s *served) wait() *bufio.Reader {
	s.t.Helper()
	c, err := net.Dial("unix", filepath.Join(s.dir, "wait.sock"))
	require.NoError(s.t, err)
	s.t.Cleanup(func() { c.Close() })
	require.NoError(s.t, c.SetReadDeadline(time.Now().Add(patience)))
	return bufio.NewReader(c)
}

func granting(hold string, leave time.Duration) gate.Grant {
	return gate.Grant{
		Hold: hold, Slots: gate.SlotsOf([]api.Token{{Slot: "lock.a", Token: "7"}}),
		Deadline: linux.Now() + leave + 3*time.Second, Drain: 2 * time.Second, Kill: time.Second,
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// letGo serves a gate, and lets the application start under the hold. The results are the gate and
// its report about that start.
func letGo(t *testing.T, dir, hold string, leave time.Duration) (*served, gate.Report) {
	t.Helper()
	s := serve(t, dir)
	in := s.wait()
	r := s.next()
	require.NoError(t, s.Grant(r.Shim, granting(hold, leave)))
	word, err := in.ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, goOn, word)
	return s, s.next()
}

func TestApplicationStartsOnlyAfterTheGrant(t *testing.T) {
	s := serve(t, t.TempDir())
	assert.Zero(t, s.reported(), "nobody waits yet")
	done := make(chan error, 1)
	noted := false
	go func() {
		err := Wait(t.Context(), Socket(filepath.Join(s.dir, "wait.sock")))
		noted = exists(filepath.Join(s.dir, letStart))
		done <- err
	}()
	r := s.next()
	assert.Equal(t, gate.Waiting, r.Phase)
	assert.True(t, r.Connected)
	assert.Empty(t, r.Unproven)
	assert.False(t, exists(filepath.Join(s.dir, letStart)))
	select {
	case <-done:
		require.Fail(t, "it goes on without a grant")
	default:
	}
	require.NoError(t, s.Grant(r.Shim, granting("h1", time.Hour)))
	require.NoError(t, <-done)
	assert.True(t, noted, "the note is older than the application")
	r = s.next()
	assert.Equal(t, gate.Running, r.Phase)
	assert.Equal(t, "h1", r.Hold)
}

func TestStandInRefusesGrantWhenNoContainerWaits(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	s := serve(t, t.TempDir())
	done := make(chan error, 1)
	go func() { done <- Wait(ctx, Socket(filepath.Join(s.dir, "wait.sock"))) }()
	r := s.next()
	cancel()
	require.ErrorIs(t, <-done, context.Canceled)
	assert.False(t, s.next().Connected, "nobody waits any more")
	require.ErrorIs(t, s.Grant(r.Shim, granting("h1", time.Hour)), gate.ErrNotNoted)
	assert.False(t, exists(filepath.Join(s.dir, letStart)), "and nothing may run")
}

// The kubelet restarts all containers, but the restart does not prove that the earlier
// processes are dead.
func TestHoldStaysUnprovenAfterRestartOfAllContainers(t *testing.T) {
	dir := t.TempDir()
	s, _ := letGo(t, dir, "h1", time.Hour)
	s.kill()
	require.NoError(t, MoveNote(Dir(dir)))
	for range 2 { // the second time, only the agent restarts
		s = serve(t, dir)
		assert.Zero(t, s.reported(), "nothing runs, and nobody waits yet")
		in := s.wait()
		r := s.next()
		assert.Equal(t, gate.Waiting, r.Phase)
		assert.Equal(t, "h1", r.Unproven)
		require.ErrorIs(t, s.Grant(r.Shim, granting("h1", time.Hour)), gate.ErrUnproven)
		_ = in
		s.kill()
	}
	s, r := letGo(t, dir, "h2", time.Hour)
	assert.Empty(t, r.Unproven, "another hold was acquired by everybody's rules")
	s.kill()
	assert.Equal(t, "h2", serve(t, dir).next().Hold)
}

func TestAgentTurnCommandSucceedsWithoutAnyRecordedHold(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, MoveNote(Dir(dir)))
	require.NoError(t, MoveNote(Dir(filepath.Join(dir, "not there yet"))))
}

func TestRebootProvesDeathUnlessPodHasOwnKernel(t *testing.T) {
	for name, test := range map[string]struct {
		ownKernel bool
		unproven  string
	}{"the node's": {false, ""}, "its own": {true, "h1"}} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			require.NoError(t, (&note{Shim: "s", Hold: "h1", BootID: "yesterday", EndsAt: linux.Now() + time.Hour}).write(Dir(dir)))
			require.NoError(t, MoveNote(Dir(dir)))
			p, err := OpenPod(t.Context(), PodConfig{Dir: dir, OwnKernel: test.ownKernel})
			require.NoError(t, err)
			defer p.Close()
			assert.Equal(t, gate.Waiting, p.report.Phase)
			assert.Equal(t, test.unproven, p.report.Unproven)
		})
	}
}

func TestPodGateRestartsAllContainersOnADrain(t *testing.T) {
	s, r := letGo(t, t.TempDir(), "h1", time.Hour)
	require.ErrorIs(t, s.Grant(r.Shim, granting("h2", time.Hour)), gate.ErrOver)
	require.NoError(t, s.Drain(r.Shim, "Lost", time.Minute))
	require.ErrorIs(t, s.ended(), ErrRestart)
	assert.Equal(t, gate.Running, s.report.Phase, "it never says that anything is over")
	assert.Equal(t, 2, s.reported(), "waiting, running, and nothing since")
	assert.True(t, exists(filepath.Join(s.dir, letStart)))
}

func TestPodGateRestartsContainersBeforeTheRenewedDeadline(t *testing.T) {
	s, r := letGo(t, t.TempDir(), "h1", 50*time.Millisecond)
	extended := granting("h1", 300*time.Millisecond)
	require.NoError(t, s.Grant(r.Shim, extended))
	require.ErrorIs(t, s.ended(), ErrRestart)
	early := linux.Now() - (extended.Deadline - extended.Drain - extended.Kill)
	assert.GreaterOrEqual(t, early, time.Duration(0), "not before what the renewal allows")
	assert.Less(t, linux.Now(), extended.Deadline, "and early, because killing is the kubelet's")
}

// An earlier agent process has let the containers start. Only the next agent process can
// enforce their deadline.
func TestRestartedAgentEnforcesDeadlineThatEarlierProcessWrote(t *testing.T) {
	dir := t.TempDir()
	s, _ := letGo(t, dir, "h1", 100*time.Millisecond)
	s.kill()
	require.ErrorIs(t, serve(t, dir).ended(), ErrRestart)
}

func TestPodGateRefusesGrantsOnceTheAgentStops(t *testing.T) {
	s := serve(t, t.TempDir())
	in := s.wait()
	r := s.next()
	close(s.stop)
	// The gate sees the closed channel "stop" only after a moment. Until then the gate may accept
	// a grant.
	for !s.isStopped() {
		runtime.Gosched()
	}
	require.ErrorIs(t, s.Grant(r.Shim, granting("h1", time.Hour)), gate.ErrNotNoted)
	s.kill()
	_, err := in.ReadString('\n')
	require.Error(t, err)
}

func (p *Pod) isStopped() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stopped
}

func TestStandInRefusesGrantIfNoteIsUnwritable(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(dir, letStart+".new"), 0o755))
	s := serve(t, dir)
	in := s.wait()
	r := s.next()
	require.ErrorIs(t, s.Grant(r.Shim, granting("h1", time.Hour)), gate.ErrNotNoted)
	assert.Equal(t, 1, s.reported(), "it waits, as before")
	s.kill()
	_, err := in.ReadString('\n')
	require.Error(t, err, "it was not told to go on")
}

// A crash of the node may leave half of a note. If that note was written before the last restart
// of all containers, the gate still accepts a grant of another hold.
func TestPodGateAcceptsGrantDespiteUnreadableEarlierGrant(t *testing.T) {
	for _, text := range damagedNotes {
		dir := t.TempDir()
		require.NoError(t, os.WriteFile(filepath.Join(dir, before), []byte(text), 0o600))
		s := serve(t, dir)
		s.wait()
		r := s.next()
		assert.Equal(t, gate.Waiting, r.Phase)
		assert.Equal(t, gate.Unreadable, r.Unproven)
		require.NoError(t, s.Grant(r.Shim, granting("h2", time.Hour)))
		assert.Empty(t, s.next().Unproven, "another hold was acquired by everybody's rules")
		s.kill()
		require.NoError(t, MoveNote(Dir(dir)))
		s = serve(t, dir)
		s.wait()
		assert.Equal(t, "h2", s.next().Unproven)
	}
}

// A container may run, but its deadline is in the unreadable note. So no agent process could
// enforce that deadline.
func TestPodGateRestartsContainersWhoseDeadlineIsUnreadable(t *testing.T) {
	for _, text := range damagedNotes {
		dir := t.TempDir()
		require.NoError(t, os.WriteFile(filepath.Join(dir, letStart), []byte(text), 0o600))
		_, err := OpenPod(t.Context(), PodConfig{Dir: dir})
		require.ErrorIs(t, err, ErrRestart)
		require.NoError(t, MoveNote(Dir(dir)))
		s := serve(t, dir)
		s.wait()
		assert.Equal(t, gate.Unreadable, s.next().Unproven)
	}
}

func TestPodGateBlocksASecondAgentProcess(t *testing.T) {
	s := serve(t, t.TempDir())
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := OpenPod(ctx, PodConfig{Dir: s.dir})
	require.ErrorIs(t, err, context.DeadlineExceeded)
}

// If an agent was frozen after it had acquired the slot, its grant may come when another pod
// already holds the slot.
func TestStandInRefusesGrantThatCameTooLate(t *testing.T) {
	s := serve(t, t.TempDir())
	s.wait()
	r := s.next()
	require.ErrorIs(t, s.Grant(r.Shim, granting("h1", -time.Second)), gate.ErrNotNoted)
	assert.False(t, exists(filepath.Join(s.dir, letStart)))
	require.NoError(t, s.Grant(r.Shim, granting("h2", time.Hour)), "it still waits")
}

// slowVolume is a directory whose writes a test can slow down.
type slowVolume struct {
	kernel
	// write runs at each write, before the note is stored.
	write func()
}

func (v slowVolume) Write(name string, text []byte) error {
	v.write()
	return v.kernel.Write(name, text)
}

// serveSlowly serves a gate whose volume calls the function at each write.
func serveSlowly(t *testing.T, write func()) *served {
	t.Helper()
	dir := t.TempDir()
	return serveOn(t, PodConfig{Dir: dir, Machine: slowVolume{kernel: kernel{Dir(dir)}, write: write}})
}

// The write of the note may take longer than the Lease lasts. When the write ends, another pod
// may already hold the slot.
func TestApplicationNeverStartsAfterItsDeadline(t *testing.T) {
	leave := 200 * time.Millisecond
	s := serveSlowly(t, func() { <-time.After(2 * leave) })
	in := s.wait()
	assert.ErrorIs(t, s.Grant(s.next().Shim, granting("h1", leave)), gate.ErrNotNoted)
	s.cancel()
	word, _ := in.ReadString('\n')
	assert.Empty(t, word, "nothing may start after the deadline")
}

// A disk that hangs must not keep the watchdog from its work.
func TestStandInRestartsContainersPromptlyDespiteHangingDisk(t *testing.T) {
	writes, hang := 0, make(chan struct{})
	s := serveSlowly(t, func() {
		if writes++; writes > 1 {
			<-hang
		}
	})
	in := s.wait()
	r := s.next()
	require.NoError(t, s.Grant(r.Shim, granting("h1", time.Second)))
	_, err := in.ReadString('\n')
	require.NoError(t, err)
	renewed := make(chan error, 1)
	go func() { renewed <- s.Grant(r.Shim, granting("h1", 2*time.Second)) }()
	select {
	case err := <-s.done:
		s.done <- err
		assert.ErrorIs(t, err, ErrRestart)
	case <-time.After(5 * time.Second):
		assert.Fail(t, "the application runs on after its slot has expired")
	}
	close(hang)
	require.NoError(t, <-renewed)
}

// While the write of the first note hangs, the gate still reacts to a stop.
func TestStandInObeysStopSignalDespiteHangingDisk(t *testing.T) {
	begun, hang := make(chan struct{}), make(chan struct{})
	s := serveSlowly(t, func() {
		close(begun)
		<-hang
	})
	in := s.wait()
	r := s.next()
	granted := make(chan error, 1)
	go func() { granted <- s.Grant(r.Shim, granting("h1", time.Hour)) }()
	<-begun
	close(s.stop)
	stopped := assert.Eventually(t, func() bool {
		if !s.mu.TryLock() {
			return false
		}
		defer s.mu.Unlock()
		return s.stopped
	}, patience, time.Millisecond)
	close(hang)
	err := <-granted
	if !stopped {
		return
	}
	assert.ErrorIs(t, err, gate.ErrNotNoted, "the pod stops: nothing starts any more")
	s.cancel()
	word, _ := in.ReadString('\n')
	assert.Empty(t, word)
}

func TestSecondStartOfWaitContainerRestartsAllContainers(t *testing.T) {
	s, _ := letGo(t, t.TempDir(), "h1", time.Hour)
	s.wait()
	require.ErrorIs(t, s.ended(), ErrRestart)
}
