// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Now returns the instant of CLOCK_BOOTTIME: the time since boot, suspend included.
func Now() time.Duration {
	return clock(unix.CLOCK_BOOTTIME) // Linux has had this clock since 2.6.39
}

// Wall returns the instant of CLOCK_REALTIME: the time since 1970.
func Wall() time.Duration {
	return clock(unix.CLOCK_REALTIME)
}

// Ahead returns how far the wall clock is ahead of CLOCK_BOOTTIME.
func Ahead() time.Duration { return Wall() - Now() }

// BootID returns the id of the boot from which Now counts.
func BootID() (string, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("read boot id: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}

// Alarm rings at an instant of CLOCK_BOOTTIME. The timers of the Go runtime would stop in
// suspend.
type Alarm struct {
	file *os.File
	fd   int
	// C delivers a value when the timer has expired.
	C chan struct{}
}

// NewAlarm makes an alarm that is not set. If the alarm could never ring, NewAlarm returns an error.
func NewAlarm() (*Alarm, error) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_BOOTTIME, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("create timer: %w", err)
	}
	return alarmOf(fd)
}

// alarmOf makes an alarm from a timer. If the Go runtime cannot poll the timer, alarmOf closes the timer,
// and returns an error. The kernel bounds the files that a user's processes poll, and may lack memory.
// Without the error, each read of the timer would fail at once, and the watchdog would never ring.
func alarmOf(fd int) (*Alarm, error) {
	file := os.NewFile(uintptr(fd), "timer")
	if err := file.SetReadDeadline(time.Time{}); err != nil {
		file.Close()
		return nil, fmt.Errorf("poll timer: %w", err)
	}
	return &Alarm{file: file, fd: fd, C: make(chan struct{}, 1)}, nil
}

// Run passes the timer's expirations on to C until Close. A value in C may be late, or may belong
// to an earlier call of Set, so the reader of C must read the clock. After each expiration C has an
// unread value, so the reader misses no expiration.
func (a *Alarm) Run() {
	var expirations [8]byte
	for {
		if _, err := a.file.Read(expirations[:]); err != nil {
			return
		}
		select {
		case a.C <- struct{}{}:
		default:
		}
	}
}

// Set makes the alarm ring at the given instant; if that instant has passed, the alarm rings at
// once.
func (a *Alarm) Set(at time.Duration) {
	at = max(at, 1) // zero would disarm the timer
	spec := unix.ItimerSpec{Value: unix.NsecToTimespec(int64(at))}
	if err := unix.TimerfdSettime(a.fd, unix.TFD_TIMER_ABSTIME, &spec, nil); err != nil {
		panic(fmt.Sprintf("set timer: %v", err)) // the call fails only for invalid arguments
	}
}

// Close ends Run.
func (a *Alarm) Close() error { return a.file.Close() }
