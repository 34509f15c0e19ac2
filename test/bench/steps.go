// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"net/http"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/metaparticle-io/metaparticle/test/bench/samples"
)

// handed is one handover. Both instants are readings of the kernel's CLOCK_MONOTONIC.
type handed struct {
	exit, exec time.Duration
	// old and next are the UIDs of the holder before and after the handover.
	old, next string
}

// write is a stored write of a slot's Lease. Both instants are from the API server's audit log.
type write struct {
	// pod is the UID of the pod that wrote.
	pod              string
	received, stored time.Duration
}

// steps describes each step between the old application's exit and the new one's exec.
var steps = []string{
	"from the exit to the receipt of the releasing PUT: the shim reaps and reports, the agent writes",
	"the API server stores the releasing PUT",
	"from then to the receipt of the acquiring PUT: the standby gets the watch event, and writes",
	"the API server stores the acquiring PUT",
	"from then to the exec: the answer, the check whether the pod is deleted unless that was checked before, the grant, fork and exec",
}

// printSteps prints the duration of each step of the handovers.
func printSteps(rounds []handed, writes []write) error {
	times := make([]samples.Times, len(steps))
	for _, r := range rounds {
		at := func(pod string, from time.Duration) *write {
			i := slices.IndexFunc(writes, func(w write) bool {
				return w.pod == pod && w.received >= from && w.stored <= r.exec
			})
			if i < 0 {
				return nil
			}
			return &writes[i]
		}
		release := at(r.old, r.exit)
		if release == nil {
			continue
		}
		acquire := at(r.next, release.received)
		if acquire == nil {
			continue
		}
		for i, d := range []time.Duration{
			release.received - r.exit, release.stored - release.received, acquire.received - release.stored,
			acquire.stored - acquire.received, r.exec - acquire.stored,
		} {
			times[i] = append(times[i], d)
		}
	}
	if len(times[0]) < len(rounds)/2 {
		return fmt.Errorf("the audit log has the writes of %d handovers of %d", len(times[0]), len(rounds))
	}
	fmt.Println("\nThe steps of these handovers, in milliseconds, by the kernel and by the API server's audit log. A write is")
	fmt.Println("stored a moment before the log says so, so its event may come earlier.")
	fmt.Println("\n| step | rounds | p50 | p99 | max |\n|---|---|---|---|---|")
	for i, step := range steps {
		times[i].Print(step)
	}
	return nil
}

// writes returns the stored writes of all Leases since the audit log had the given length.
func (b *bench) writes(from int64) ([]write, error) {
	zero, err := monotonicZero()
	if err != nil {
		return nil, err
	}
	var writes []write
	err = b.audit(from, func(event audited) {
		if event.Verb != "update" || event.ResponseStatus.Code != http.StatusOK {
			return
		}
		_, uid := event.pod()
		writes = append(writes, write{pod: uid, received: event.RequestReceivedTimestamp.Sub(zero), stored: event.StageTimestamp.Sub(zero)})
	})
	return writes, err
}

// monotonicZero returns the time of the wall clock at which CLOCK_MONOTONIC was zero.
func monotonicZero() (time.Time, error) {
	var now unix.Timespec
	err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now)
	return time.Now().Add(-time.Duration(now.Nano())), err
}
