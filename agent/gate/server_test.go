// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package gate

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/metaparticle-io/metaparticle/agent/linux"
	"github.com/metaparticle-io/metaparticle/api"
)

// patience bounds every wait of a test. Only a bug makes a test wait for so long.
const patience = time.Minute

func TestDeskSendsOnlyGrantsWhoseHoldIsStored(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, _ := served(t, Config{Dir: dir})
	shim := joined(t, dir, waiting("one"))
	reported(t, s, func(r Report) bool { return r.Connected })
	require.NoError(t, s.Grant("one", grantOf("h1")))
	assert.Equal(t, "h1", shim.order().Grant.Hold)
	var e entry
	b, err := os.ReadFile(filepath.Join(dir, "granted", "app"))
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(b, &e))
	assert.Equal(t, entry{Shim: digest("one"), Hold: "h1", BootID: s.machine.BootID}, e)
	assert.NotContains(t, string(b), `"one"`, "a program that reads the note could speak for the shim")

	// Without a note the server sends no grant.
	require.NoError(t, os.Remove(filepath.Join(dir, "granted", "app")))
	require.NoError(t, os.Remove(filepath.Join(dir, "granted")))
	err = s.Grant("one", grantOf("h2"))
	assert.ErrorIs(t, err, ErrNotNoted)
	assert.ErrorIs(t, err, os.ErrNotExist)
	assert.True(t, Unsent(err))
	require.NoError(t, s.Grant("one", grantOf("h1")))
	assert.Equal(t, "h1", shim.order().Grant.Hold, "the refused one was not sent")
}

func TestDeskReportsUnprovenHoldsFoundInItsNotes(t *testing.T) {
	t.Parallel()
	boot, err := linux.BootID()
	require.NoError(t, err)
	for name, test := range map[string]struct {
		note, unproven string
		ownKernel      bool
	}{
		"another shim":        {note: `{"shim":"old","hold":"h1","bootID":"` + boot + `"}`, unproven: "h1"},
		"the same shim":       {note: `{"shim":"` + digest("one") + `","hold":"h1","bootID":"` + boot + `"}`, unproven: ""},
		"of another boot":     {note: `{"shim":"old","hold":"h1","bootID":"other"}`, unproven: ""},
		"cannot be read":      {note: `{"shim":"o`, unproven: Unreadable},
		"empty":               {note: ``, unproven: Unreadable},
		"of no boot":          {note: `{"shim":"old","hold":"h1"}`, unproven: "h1"},
		"of another boot, no": {note: `{"shim":"old","bootID":"other"}`, unproven: Unreadable},
		"of a machine of the pod's own": {
			note: `{"shim":"old","hold":"h1","bootID":"other"}`, unproven: "h1", ownKernel: true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			require.NoError(t, os.Mkdir(filepath.Join(dir, "granted"), 0o777))
			require.NoError(t, os.WriteFile(filepath.Join(dir, "granted", "app"), []byte(test.note), 0o644))
			s, _ := served(t, Config{Dir: dir, OwnKernel: test.ownKernel})
			shim := joined(t, dir, waiting("one"))
			r := reported(t, s, func(r Report) bool { return r.Connected })
			assert.Equal(t, test.unproven, r.Unproven)
			if test.unproven != "" {
				assert.ErrorIs(t, s.Grant("one", grantOf(test.unproven)), ErrUnproven)
			}
			require.NoError(t, s.Grant("one", grantOf("h2")), "another hold needs no proof")
			assert.Equal(t, "h2", shim.order().Grant.Hold)
			reported(t, s, func(r Report) bool { return r.Unproven == "" })
		})
	}
}

// A shim that is ending can connect a last time, and end before its first message.
func TestShimDisconnectingBeforeFirstMessageCausesNoWarning(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	dir := t.TempDir()
	_, end := served(t, Config{Dir: dir, Log: slog.New(slog.NewTextHandler(&log, nil))})
	u, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: filepath.Join(dir, "agent.sock"), Net: "unixpacket"})
	require.NoError(t, err)
	require.NoError(t, u.Close())
	strange, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: filepath.Join(dir, "agent.sock"), Net: "unixpacket"})
	require.NoError(t, err)
	defer strange.Close()
	_, err = strange.Write([]byte("{}"))
	require.NoError(t, err)
	_, err = strange.Read(make([]byte, 1))
	require.Error(t, err, "the agent's end has hung up on a stranger, and so has heard both")
	end()
	assert.Equal(t, 1, strings.Count(log.String(), "WARN"), "%s", log.String())
}

// If the server cannot read a container's note, the server must assume that the container may have
// had a grant of any hold.
func TestDeskReadsGrantedHoldsFromItsNotes(t *testing.T) {
	t.Parallel()
	boot, err := linux.BootID()
	require.NoError(t, err)
	dir := t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(dir, "granted"), 0o777))
	for container, text := range map[string]string{"migrate": `{"shim":"old","hold":"h1","bootID":"` + boot + `"}`, "seed": "{"} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, "granted", container), []byte(text), 0o644))
	}
	s, _ := served(t, Config{Dir: dir})
	assert.True(t, s.Granted("migrate", "h1"))
	assert.False(t, s.Granted("migrate", "h2"))
	assert.True(t, s.Granted("seed", "h2"), "it may be any")
	assert.False(t, s.Granted("app", "h1"))
}

// A postStart hook begins directly after a grant, so its program must exist before the grant.
func TestDeskInstallsHookProgramBeforeReportingShim(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	installed := make(chan struct{}, 2)
	s, _ := served(t, Config{Dir: dir, InstallHTTP: func() error {
		installed <- struct{}{}
		return errors.New("the volume is full")
	}})
	joined(t, dir, waiting("plain"))
	assert.EqualValues(t, "plain", (<-s.Reports()).Shim)
	assert.Empty(t, installed)
	asks := waiting("asks")
	asks.HTTP = true
	joined(t, dir, asks)
	for (<-s.Reports()).Shim != "asks" { //nolint:revive // the loop drops other reports
	}
	assert.Len(t, installed, 1, "an error refuses no shim")
}

func TestDrainIsRepeatedToAShimThatReconnects(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, _ := served(t, Config{Dir: dir})
	shim := joined(t, dir, waiting("one"))
	reported(t, s, func(r Report) bool { return r.Connected })
	require.NoError(t, s.Drain("one", "nothing is granted", time.Hour), "nothing to drain")
	require.NoError(t, s.Grant("one", grantOf("h1")))
	shim.order()

	shim.Close()
	reported(t, s, func(r Report) bool { return !r.Connected })
	assert.ErrorIs(t, s.Grant("one", grantOf("h1")), ErrNotConnected)
	require.NoError(t, s.Drain("one", "yield", time.Minute))
	require.NoError(t, s.Drain("one", "in a hurry", time.Second))
	require.NoError(t, s.Drain("one", "longer", time.Hour))

	// The shim has started no child under h1, but must still carry out the drain of h1.
	shim.connect(dir)
	d := shim.order().Drain
	require.NotNil(t, d)
	assert.Equal(t, "h1", d.Hold)
	assert.Equal(t, "in a hurry", d.Reason)
	assert.LessOrEqual(t, d.Grace, time.Second)
	shim.is(Waiting, "h1")
	reported(t, s, func(r Report) bool { return r.Hold == "h1" })
	assert.ErrorIs(t, s.Grant("one", grantOf("h1")), ErrOver)
	assert.NoFileExists(t, filepath.Join(dir, "granted", "app"))

	// A drain of h1 does not apply to h2.
	require.NoError(t, s.Grant("one", grantOf("h2")))
	assert.Equal(t, "h2", shim.order().Grant.Hold)
	shim.is(Running, "h2")
	shim.connect(dir)
	require.NoError(t, s.Drain("one", "again", time.Second))
	assert.Equal(t, "h2", shim.order().Drain.Hold)
}

func TestSlowAgentLoopGetsEachShimsLastReport(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, _ := served(t, Config{Dir: dir})
	one := joined(t, dir, waiting("one"))
	two := joined(t, dir, waiting("two"))
	for range 100 {
		one.is(Running, "h1")
		two.is(Running, "h2")
		one.is(Waiting, "h1")
		two.is(Draining, "h2")
	}
	one.is(Ended, "h1")
	one.hungUp()
	last := map[ShimID]Report{}
	for last["one"].Phase != Ended || last["one"].Connected || last["two"].Phase != Draining {
		r := reported(t, s, func(Report) bool { return true })
		assert.False(t, last[r.Shim].Phase == Ended && r.Phase != Ended, "older after newer")
		last[r.Shim] = r
	}
}

func TestSilentShimIsNotReportedDead(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, _ := served(t, Config{Dir: dir, Silence: 200 * time.Millisecond})
	st := waiting("one")
	st.Phase, st.Hold = Running, "h1"
	shim := joined(t, dir, st)
	r := reported(t, s, func(r Report) bool { return r.Silent })
	assert.True(t, r.Connected)
	assert.False(t, r.Dead)
	shim.is(Running, "h1")
	reported(t, s, func(r Report) bool { return !r.Silent })
}

func TestDeskDisconnectsAShimWithAnInvalidState(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, _ := served(t, Config{Dir: dir, RequirePID1: true})
	st := waiting("one")
	st.PID1 = false
	joined(t, dir, st).hungUp()

	st = waiting("two")
	st.Container = "../../etc/passwd"
	joined(t, dir, st).hungUp()

	known := joined(t, dir, waiting("three"))
	reported(t, s, func(r Report) bool { return r.Connected })
	known.Container = "other"
	known.is(Waiting, "")
	known.hungUp()
	reported(t, s, func(r Report) bool { return r.Shim == "three" && !r.Connected })

	rebooted := joined(t, dir, waiting("four"))
	rebooted.hungUpAfter(func() { rebooted.BootID = "other"; rebooted.connect(dir) })
	assert.ErrorIs(t, s.Grant("nobody", grantOf("h1")), ErrUnknown)
	assert.ErrorIs(t, s.Drain("nobody", "", 0), ErrUnknown)
}

func TestSecondAgentProcessOpensDeskAfterFirstEnds(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	_, end := served(t, Config{Dir: dir})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := Listen(ctx, Config{Dir: dir})
	require.ErrorIs(t, err, context.DeadlineExceeded)

	second := make(chan *Server)
	go func() {
		s, err := Listen(t.Context(), Config{Dir: dir})
		assert.NoError(t, err)
		second <- s
	}()
	end()
	select {
	case s := <-second:
		require.NoError(t, s.Close())
		require.NoError(t, s.Close(), "twice is once")
	case <-time.After(patience):
		t.Fatal("the lock is not free")
	}
}

func TestAnyUserMayConnectToTheDesksSocket(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "agent.sock"), nil, 0o600), "a stale one")
	_, _ = served(t, Config{Dir: dir})
	info, err := os.Stat(filepath.Join(dir, "agent.sock"))
	require.NoError(t, err)
	assert.Equal(t, os.ModeSocket|0o777, info.Mode())
}

func TestDeskReportsAShimsDeathOnlyOnProof(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		pid1    bool
		granted string
		phase   Phase
		hold    string
		dead    bool
	}{
		"PID 1 of a running child":       {pid1: true, granted: "h1", phase: Running, hold: "h1", dead: true},
		"PID 1 with a grant on its way":  {pid1: true, granted: "h1", phase: Waiting, dead: true},
		"no PID 1, child running":        {granted: "h1", phase: Running, hold: "h1"},
		"no PID 1, child draining":       {granted: "h1", phase: Draining, hold: "h1"},
		"no PID 1, grant on its way":     {granted: "h2", phase: Waiting, hold: "h1"},
		"no PID 1, never granted":        {phase: Waiting, dead: true},
		"no PID 1, hold is over":         {granted: "h1", phase: Waiting, hold: "h1", dead: true},
		"no PID 1, came to its end":      {granted: "h1", phase: Ended, hold: "h1", dead: true},
		"no PID 1, hold is not this one": {phase: Running, hold: "h1"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			s, _ := served(t, Config{Dir: dir, oldKernel: true})
			pidfd, kill := ofSleeper(t)
			st := waiting("one")
			st.PID1 = test.pid1
			shim := joined(t, dir, st, pidfd)
			heir := joined(t, dir, waiting("two"), pidfdOfSelf(t))
			reported(t, s, func(r Report) bool { return r.Shim == "one" && r.Connected })
			if test.granted != "" {
				require.NoError(t, s.Grant("one", grantOf(test.granted)))
				reported(t, s, func(r Report) bool { return r.Shim == "two" && r.Unproven == test.granted })
			}
			shim.is(test.phase, test.hold)
			reported(t, s, func(r Report) bool { return r.Phase == test.phase && r.Hold == test.hold })
			kill()
			shim.Close() // the kernel closes the connection of a dead shim, too
			r := reported(t, s, func(r Report) bool { return r.Shim == "one" && (r.Dead || !r.Connected) })
			if test.dead {
				if !r.Dead {
					reported(t, s, func(r Report) bool { return r.Shim == "one" && r.Dead })
				}
				assert.NoFileExists(t, filepath.Join(dir, "granted", "app"))
				return
			}
			// If the server wrongly reported the death of the shim "one", that report would
			// come before the next report of the shim "two".
			heir.is(Draining, "h9")
			reported(t, s, func(r Report) bool {
				assert.False(t, r.Dead)
				return r.Shim == "two" && r.Phase == Draining
			})
		})
	}
}

func pidfdOfSelf(t *testing.T) int {
	t.Helper()
	fd, err := unix.PidfdOpen(os.Getpid(), 0)
	require.NoError(t, err)
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

func TestDeathReportContainsLastMessageOfTheShim(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, _ := served(t, Config{Dir: dir, oldKernel: true})
	pidfd, kill := ofSleeper(t)
	shim := joined(t, dir, waiting("one"), pidfd)
	reported(t, s, func(r Report) bool { return r.Connected })
	// The shim never reads these grants. So when the shim closes the connection, the kernel
	// reports a reset of the connection to the server.
	for range 100 {
		require.NoError(t, s.Grant("one", grantOf("h1")))
	}
	kill()
	shim.is(Running, "h1")
	shim.is(Ended, "h1")
	shim.Close()
	r := reported(t, s, func(r Report) bool { return r.Dead })
	assert.Equal(t, Ended, r.Phase)
	assert.False(t, r.Connected)
}

func TestDeskRefusesAShimWithoutPidfd(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	_, _ = served(t, Config{Dir: dir, oldKernel: true})
	joined(t, dir, waiting("one")).hungUp()
	null, err := os.Open(os.DevNull)
	require.NoError(t, err)
	defer null.Close()
	joined(t, dir, waiting("two"), int(null.Fd())).hungUp()
}

// dialled connects to the server, and sends no message.
func dialled(t *testing.T, dir string) net.Conn {
	t.Helper()
	c, err := net.Dial("unixpacket", filepath.Join(dir, api.SocketName))
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
	return c
}

func TestDeskClosesConnectionsThatSendNoMessage(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	served(t, Config{Dir: dir})
	_, err := dialled(t, dir).Read(make([]byte, 1))
	assert.ErrorIs(t, err, io.EOF)
}

// A process in the pod can pretend to be many shims, and open a connection for each of them.
func TestDeskBoundsItsConnections(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	served(t, Config{Dir: dir})
	for i := range mostConns {
		joined(t, dir, waiting(fmt.Sprintf("shim-%d", i)))
	}
	c := dialled(t, dir)
	require.NoError(t, c.SetReadDeadline(time.Now().Add(firstWithin/2)))
	_, err := c.Read(make([]byte, 1))
	assert.ErrorIs(t, err, io.EOF)
}
