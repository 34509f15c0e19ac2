// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package show shows people, Services and rollouts the state of an agent: by the pod's
// condition, label and deletion cost, by Events, and by metrics.
//
// # The guarantee
//
// The package delays no renewal. The status and the Events are written beside the
// agent's loop, late if need be. With the gate "readiness" the pod's condition is
// itself the gate, so a late status must not count. Each status replaces the version
// that was read just before, so the API server refuses a late one.
//
// # Clocks
//
// [Readiness] takes the instant of each decision as an argument. Wall clock times are
// written only for people.
//
// # What is not guaranteed
//
// An Event may be dropped, because the log has the same fact. The pod's condition may
// be out of date while the API server does not answer. The reason and message of a standby
// are up to [WordsDelay] old.
package show

import (
	"context"
	"log/slog"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/kube"
)

// API is the part of the API server to which this package writes.
type API interface {
	// PatchPodStatus returns the pod as it is after the patch.
	PatchPodStatus(ctx context.Context, pod string, patch []byte) (kube.Pod, error)
	CreateEvent(ctx context.Context, event kube.Event) error
}

// Config names the pod for which this package writes, and the API to which it writes.
type Config struct {
	PodName, PodUID string
	// Shards is the number of shards of the pod's work; zero for other claims.
	Shards int
	API    API
	// Timeout bounds one request.
	Timeout time.Duration
	// Backoff returns the pause after a write that failed. The argument misses counts the
	// failed writes just before that one.
	Backoff func(misses int) time.Duration
	// Delay returns the delay of a write that changes only the words of a standby's
	// condition. The random delay keeps many standbys from writing at the same time.
	Delay func() time.Duration
	// StartsWithin bounds the time between the success of a gated init container and the
	// start of the next container. After that time the agent ends the hold.
	StartsWithin time.Duration
	// Status calls Stored with each readiness that the API server has stored.
	Stored func(ctx context.Context, ready bool)
	// Status calls Asked with each answer about the pod. The argument hold is the pod's
	// hold when the request was sent, or empty. The argument deleted reports that the
	// pod is being deleted.
	Asked func(ctx context.Context, hold string, deleted bool)
	// Calm is called after each write of the pod's status or Events, because the agent's
	// work usually pauses then.
	Calm func()
	Wall func() time.Time
	Log  *slog.Logger
}

// WordsDelay is the longest delay of a write that changes only the reason and message of a
// standby's condition. The shortest delay is half of that. Most handovers are over by then,
// and make the write needless.
const WordsDelay = 5 * time.Second

// Calm is the delay of a write that only informs people. By then the requests of most
// handovers have been sent, so the write delays none of them.
const Calm = 100 * time.Millisecond
