// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func TestAlarmRingsAtAnInstantThatHasPassed(t *testing.T) {
	a, err := NewAlarm()
	require.NoError(t, err)
	defer a.Close()
	go a.Run()
	a.Set(Now())
	select {
	case <-a.C:
	case <-time.After(10 * time.Second):
		t.Fatal("the alarm is silent")
	}
}

// The kernel refuses to poll a regular file, as it refuses to poll a timer beyond the bound on the
// polled files of a user.
func TestTimerThatCannotBePolledIsNoAlarm(t *testing.T) {
	fd, err := unix.Open(filepath.Join(t.TempDir(), "timer"), unix.O_CREAT|unix.O_RDWR|unix.O_NONBLOCK, 0o600)
	require.NoError(t, err)
	_, err = alarmOf(fd)
	require.ErrorIs(t, err, os.ErrNoDeadline)
}
