// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package gate

import (
	"context"
	"log/slog"
	"os"
	"time"
)

// Lock makes this process the only agent of its pod, as [Listen] does: it waits
// until no other one has the file locked. The lock ends with the process.
func Lock(ctx context.Context, path string, log *slog.Logger) (*os.File, error) {
	return acquireLock(ctx, path, log)
}

// Alarm rings at an instant of CLOCK_BOOTTIME, for gates that are their own
// watchdog outside of a shim. Go's timers stop in suspend.
type Alarm struct{ alarm *alarm }

// NewAlarm makes an alarm that is not set.
func NewAlarm() (*Alarm, error) {
	a, err := newAlarm()
	if err != nil {
		return nil, err
	}
	return &Alarm{alarm: a}, nil
}

// Rings yields a value after each expiry. Run passes them on.
func (a *Alarm) Rings() <-chan struct{} { return a.alarm.C }

// Run passes expiries on until Close.
func (a *Alarm) Run() { a.alarm.run() }

// Set makes it ring at the instant, at once if that has passed.
func (a *Alarm) Set(at time.Duration) { a.alarm.set(at) }

// Close ends Run.
func (a *Alarm) Close() error { return a.alarm.file.Close() }
