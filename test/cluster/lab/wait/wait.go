// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package wait waits for states that cause no event, for parallel jobs, and for the flock of a
// file.
package wait

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Lock takes the flock of a file. If another process has the flock, Lock calls the given function
// once, and waits. The returned function frees the flock. The kernel also frees the flock when this
// process ends.
func Lock(ctx context.Context, file string, waiting func()) (unlock func(), err error) {
	f, err := os.OpenFile(file, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	told := false
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) || ctx.Err() != nil {
			f.Close()
			return nil, errors.Join(ctx.Err(), err)
		}
		if !told {
			waiting()
			told = true
		}
		Pause(ctx, pollInterval*10)
	}
}

// pollInterval is short compared with the usual wait (tens of milliseconds and more). The interval
// is long compared with the cost of one call of the polled function.
const pollInterval = 20 * time.Millisecond

// Poll calls a function until the function returns no error. The error after the limit contains
// the argument "what", and the function's last error.
func Poll(ctx context.Context, limit time.Duration, what string, done func() error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		err := done()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w", what, err)
		case <-tick.C:
		}
	}
}

// Together runs jobs at the same time and waits for all.
func Together(jobs ...func() error) error {
	errs := make([]error, len(jobs))
	var all sync.WaitGroup
	for i, job := range jobs {
		all.Go(func() { errs[i] = job() })
	}
	all.Wait()
	return errors.Join(errs...)
}

// Pause waits for d, or until the context ends.
func Pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// ReadyLimit bounds each wait for a component to become ready on a busy machine. Usually
// the wait takes seconds.
const ReadyLimit = 2 * time.Minute
