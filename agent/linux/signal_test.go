// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func TestProcessStatusParserReturnsUserAndSignals(t *testing.T) {
	const whole = "Name:\tsh\nUid:\t1000\t1\t2\t3\nSigBlk:\t0000000000000001\nSigIgn:\t0000000000000002\nSigCgt:\t0000000000004000\n"
	p, err := parseStatus(whole)
	require.NoError(t, err)
	assert.Equal(t, 1000, p.UID)
	for sig, want := range map[syscall.Signal]bool{
		unix.SIGHUP: true, unix.SIGINT: true, unix.SIGTERM: true, unix.SIGQUIT: false, 64: false,
	} {
		assert.Equal(t, want, p.Expects(sig), sig)
	}
	for name, text := range map[string]string{
		"empty":        "",
		"no user":      "SigBlk:\t0\nSigIgn:\t0\nSigCgt:\t0\n",
		"no signals":   "Uid:\t0\t0\t0\t0\n",
		"bad user":     "Uid:\tx\n",
		"bad signals":  "Uid:\t0\nSigBlk:\tx\n",
		"without tabs": "Uid: 0\nSigBlk: 0\nSigIgn: 0\nSigCgt: 0\n",
	} {
		_, err := parseStatus(text)
		assert.Error(t, err, name)
	}
}

func TestShimKeepsUserAfterSignalingAsAnotherUser(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root, to be another user for an instant")
	}
	const user = 1000
	child := exec.Command("sleep", "1000")
	child.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: user, Gid: user, NoSetGroups: true}}
	require.NoError(t, child.Start())
	require.NoError(t, unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0))

	require.ErrorIs(t, signalAs(user+1, child.Process.Pid, unix.SIGKILL), unix.EPERM, "the user counts, and nothing else")
	require.NoError(t, signalAs(user, child.Process.Pid, unix.SIGKILL))
	require.Error(t, child.Wait())
	assert.Equal(t, unix.SIGKILL, child.ProcessState.Sys().(syscall.WaitStatus).Signal())

	dumpable, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
	require.NoError(t, err)
	assert.Equal(t, 1, dumpable)
	threads, err := os.ReadDir("/proc/self/task")
	require.NoError(t, err)
	for _, thread := range threads {
		text, err := os.ReadFile("/proc/self/task/" + thread.Name() + "/status")
		require.NoError(t, err)
		assert.Contains(t, string(text), "\nUid:\t0\t0\t0\t0\n")
		assert.Contains(t, string(text), "\nCapEff:\t"+capabilities(t, string(text), "CapPrm")+"\n")
	}
}

func capabilities(t *testing.T, status, name string) string {
	t.Helper()
	_, after, found := strings.Cut(status, "\n"+name+":\t")
	require.True(t, found)
	value, _, _ := strings.Cut(after, "\n")
	return value
}
