// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"context"
	"errors"
	"math"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// leap is the shortest change of the wall clock that counts as the trace of a paused machine. If a
// machine is paused for less than that, no process notices, and the margin shrinks by up to 0.5 s. The
// least margin is 2 s. In the shortest lease (10 s), a clock that is a thousandth fast and a clock
// that is a thousandth slow use another 20 ms. The rest of the margin is for a late watchdog. If a
// machine is paused unnoticed, the margin does not also cover the largest drift. The drift is
// largest if chronyd slews one clock up and the other clock down, each by a twelfth. That drift
// alone uses 1.8 s of the margin of a lease of 12 s (api.Budget).
const leap = 500 * time.Millisecond

// Leaps notices that the wall clock has leapt, forward or back, compared with CLOCK_BOOTTIME.
//
// A machine cannot see that it was paused, because all of its clocks stood still. Only the wall
// clock is corrected afterwards, by the hypervisor or by a time server. If a person sets the wall
// clock for another reason, that looks the same. Neither slewing nor a suspend is a leap: slewing
// changes both clocks alike, and both clocks go on during a suspend.
type Leaps struct {
	// C delivers a value after each setting of the wall clock.
	C         chan struct{}
	now, wall func() time.Duration
	base      window
	file      *os.File // the timer that each setting of the wall clock cancels; nil for none
}

// window bounds the difference between the wall clock and CLOCK_BOOTTIME, because the two
// clocks cannot be read at the same instant.
type window struct{ low, high time.Duration }

// NewLeaps begins to compare the two clocks. In a kernel that does not report when the wall
// clock is set (gVisor), the channel C stays empty. A shim then compares the clocks only after
// each of its other inputs, and so at least once in the time gate.BeatEvery.
func NewLeaps() *Leaps {
	l := LeapsOf(Now, Wall)
	fd, err := unix.TimerfdCreate(unix.CLOCK_REALTIME, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC)
	if err != nil {
		return l
	}
	// The timer itself must never expire, so it is armed for the year 2262.
	spec := unix.ItimerSpec{Value: unix.NsecToTimespec(math.MaxInt64)}
	if err := unix.TimerfdSettime(fd, unix.TFD_TIMER_ABSTIME|unix.TFD_TIMER_CANCEL_ON_SET, &spec, nil); err != nil {
		unix.Close(fd)
		return l
	}
	l.file = os.NewFile(uintptr(fd), "wall clock")
	l.Rebase() // after the timer is set, so that the timer notices each leap since this call
	return l
}

// LeapsOf returns Leaps that compare a wall clock with a clock that cannot be set. The caller writes
// to C after each setting of the wall clock.
func LeapsOf(now, wall func() time.Duration) *Leaps {
	l := &Leaps{C: make(chan struct{}, 1), now: now, wall: wall}
	l.Rebase()
	return l
}

// Run writes to C after each setting of the wall clock, until Close.
func (l *Leaps) Run() {
	if l.file != nil {
		l.pass(l.file.Read)
	}
}

// pass writes to C at each cancellation of the timer. After a setting of the wall clock, the kernel
// answers the next read of the timer with ECANCELED. The timer stays armed.
func (l *Leaps) pass(read func([]byte) (int, error)) {
	var expirations [8]byte
	for {
		if _, err := read(expirations[:]); err != nil && !errors.Is(err, unix.ECANCELED) {
			return
		}
		select {
		case l.C <- struct{}{}:
		default:
		}
	}
}

// Watch returns a channel that delivers a value after each leap, until ctx ends.
func (l *Leaps) Watch(ctx context.Context) <-chan struct{} {
	leapt := make(chan struct{})
	go l.Run()
	go func() {
		for {
			select {
			case <-l.C:
			case <-ctx.Done():
				return
			}
			if !l.Leapt() {
				continue
			}
			l.Rebase()
			select {
			case leapt <- struct{}{}:
			case <-ctx.Done():
				return
			}
		}
	}()
	return leapt
}

// Close ends Run.
func (l *Leaps) Close() error {
	if l.file == nil {
		return nil
	}
	return l.file.Close()
}

// Leapt reports whether the wall clock has leapt since the last Rebase. Several small steps add
// up to a leap.
func (l *Leaps) Leapt() bool {
	now := l.read()
	return now.low-l.base.high >= leap || l.base.low-now.high >= leap
}

// Rebase makes the present difference of the clocks the base of later comparisons.
func (l *Leaps) Rebase() { l.base = l.read() }

// narrow is the longest duration of a good reading of both clocks. After a slower reading, the
// method "read" tries again. The system calls of a reading take a microsecond, so only a
// reading that something interrupts is slower.
const narrow = time.Millisecond

// read reads both clocks in a few attempts, and returns the narrowest window. If something
// interrupts each attempt, the window is wider, and Leapt may miss a small leap.
func (l *Leaps) read() window {
	best := window{high: math.MaxInt64}
	for range 5 {
		before := l.now()
		wall := l.wall()
		after := l.now()
		if after-before < best.high-best.low {
			best = window{low: wall - after, high: wall - before}
		}
		if after-before < narrow {
			break
		}
	}
	return best
}
