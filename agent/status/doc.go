// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package status publishes the state of an agent for people, Services and rollouts. The package
// writes the pod's condition, label and deletion cost, sends Events, and serves metrics.
//
// # The guarantee
//
// The package delays no renewal. Status and Events are written beside the agent's loop, and may
// be late. With the gate "readiness" the pod's condition is itself the gate, so a late status
// must not be stored. Each write of the status names the last resourceVersion of the pod that
// the agent knows. So once a later write has changed the pod, the API server refuses a late write.
//
// # Clocks
//
// [Readiness] takes the instant of each decision as an argument. The package writes wall clock
// times only for people.
//
// # What is not guaranteed
//
// An Event may be dropped, because the log has the same fact. The application's processes cause few
// Events, so an Event that such a process causes may be left out. While the API server does not
// answer, the pod's condition may be out of date. The reason and message of a standby's
// condition may be [WordsDelay] old.
//
// The agent writes the deletion cost of its own pod. Rejected: enroll writes it, because the
// webhook's account would need the right to patch every pod. Rejected for a standby without a path
// to its holder: a check with each renewal, which every application would log; not Ready at the
// first error, by which the death of a node would empty a Service until the lease expires; a
// refused connection as an error, because some applications listen on only some of their ports.
// Rejected for metrics: one series for each slot, because 64 watchers would serve each 64 times; a
// histogram of renewals, which needs a library.
package status

import (
	"context"
	"log/slog"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/kube"
)

// API has the requests that this package sends.
type API interface {
	// PatchPodStatus patches the pod's status, and returns the pod as it is after the patch.
	PatchPodStatus(ctx context.Context, pod string, patch []byte) (kube.Pod, error)
	CreateEvent(ctx context.Context, event kube.Event) error
}

// Config has the pod for which this package writes, and the API to which it writes.
type Config struct {
	PodName, PodUID string
	// Shards is the number of shards into which the work is divided; zero if the pod claims no
	// shard.
	Shards int
	API    API
	// Timeout bounds each request.
	Timeout time.Duration
	// Backoff returns the time from a failed write to the next attempt. The argument "misses" is
	// the number of failed writes in a row before that failed write.
	Backoff func(misses int) time.Duration
	// Delay returns the random delay of a write that changes only the reason or message of a
	// standby's condition. The delay spreads the writes of many standbys.
	Delay func() time.Duration
	// Stored is called by Status with each readiness that the API server has stored.
	Stored func(ctx context.Context, ready bool)
	// Answered is called by Status after each answer about the pod. The argument "hold" is the
	// pod's hold when the request was sent; empty for none. The argument "deleted" reports that
	// the pod is being deleted.
	Answered func(ctx context.Context, hold string, deleted bool)
	// Idle is called after each write of the pod's status or Events, when a burst of the
	// agent's requests is usually over. The function may do postponed work, such as a garbage
	// collection.
	Idle func()
	Wall func() time.Time
	Log  *slog.Logger
}

// WordsDelay is the longest delay of a write that changes only the reason and message of a
// standby's condition. The shortest delay is half of that. Most handovers are over by then, and
// have restored the reason and message, so the write is not needed any more.
const WordsDelay = 5 * time.Second

// Calm is the time for which a status or an Event waits, so that the requests of a handover come
// first. By then the requests of most handovers have been sent.
const Calm = 100 * time.Millisecond
