// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"fmt"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func TestWallClockChangeAboveBoundIsALeap(t *testing.T) {
	for name, c := range map[string]struct {
		steps []time.Duration
		leapt bool
	}{
		"none":                   {nil, false},
		"a time server's step":   {[]time.Duration{128 * time.Millisecond}, false},
		"below the bound":        {[]time.Duration{450 * time.Millisecond}, false},
		"a leap second":          {[]time.Duration{-time.Second}, true},
		"a pause":                {[]time.Duration{time.Minute}, true},
		"back":                   {[]time.Duration{-time.Hour}, true},
		"small ones that add up": {[]time.Duration{200 * time.Millisecond, 200 * time.Millisecond, 200 * time.Millisecond}, true},
		"forth and back":         {[]time.Duration{time.Second, -time.Second}, false},
	} {
		t.Run(name, func(t *testing.T) {
			var ahead time.Duration
			l := LeapsOf(Now, func() time.Duration { return Wall() + ahead })
			for _, step := range c.steps {
				ahead += step
			}
			assert.Equal(t, c.leapt, l.Leapt())
			l.Rebase()
			assert.False(t, l.Leapt())
		})
	}
}

// The kernel shows the flags of a timer: absolute (1), and cancelled when somebody sets the
// clock (2).
func TestKernelCancelsLeapTimerWhenClockIsSet(t *testing.T) {
	l := NewLeaps()
	defer l.Close()
	require.NotNil(t, l.file)
	raw, err := l.file.SyscallConn()
	require.NoError(t, err)
	var info []byte
	require.NoError(t, raw.Control(func(fd uintptr) { info, err = os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", fd)) }))
	require.NoError(t, err)
	assert.Contains(t, string(info), "clockid: 0\n", "CLOCK_REALTIME")
	assert.Contains(t, string(info), "settime flags: 03\n")
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		l.Run()
	}()
	require.NoError(t, l.Close())
	<-ended
	assert.Empty(t, l.C, "nobody has set the clock")
}

func TestSettingTheWallClockPromptsALeapCheck(t *testing.T) {
	l := LeapsOf(Now, Wall)
	errs := []error{unix.ECANCELED, unix.ECANCELED, os.ErrClosed}
	l.pass(func([]byte) (n int, err error) {
		err, errs = errs[0], errs[1:]
		return 0, &os.PathError{Op: "read", Path: "wall clock", Err: err}
	})
	assert.Len(t, l.C, 1)
	assert.Empty(t, errs)
}

func TestUnchangedWallClockCausesNoLeap(t *testing.T) {
	var ahead atomic.Int64
	l := LeapsOf(Now, func() time.Duration { return Wall() + time.Duration(ahead.Load()) })
	leapt := l.Watch(t.Context())
	l.C <- struct{}{} // C delivers a value, although nobody has set the clock
	ahead.Store(int64(time.Minute))
	l.C <- struct{}{}
	<-leapt
	assert.Empty(t, leapt)
}
