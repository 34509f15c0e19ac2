// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package barrier

import (
	"context"
	"io"
	"math/rand/v2"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/after"
	"github.com/metaparticle-io/metaparticle/agent/kube"
)

// API has the requests that a wait at a barrier sends. [kube.Client] documents these requests. The
// wait sends them concurrently.
type API interface {
	after.API
	// UpdateLease replaces the Lease only if its state is still the one that the pod has read.
	UpdateLease(ctx context.Context, lease *kube.Lease) (*kube.Lease, error)
}

// Config has the barrier at which the pod waits, and what the wait needs.
type Config struct {
	API API
	// Leases are the Leases of the barrier, one for each pod that must arrive. The first Lease
	// gets the record that the barrier is open.
	Leases []string
	// Duration is the lease duration: for this time a pod that has gone still counts.
	Duration time.Duration
	// PodName and PodUID identify the pod, in its Lease and its Events.
	PodName, PodUID string
	// Clock returns the instant of CLOCK_BOOTTIME. Clock may be called concurrently.
	Clock func() time.Duration
	// Counts reports whether the pod waits at the instant "now". A pod that does not wait sends no
	// write but its release. Nil means that the pod waits for as long as [Run] runs.
	Counts func(now time.Duration) bool
	// Opened is called once the barrier is known to be open, before the pod releases its Lease. So a
	// program begins without waiting for that write. Nil means that nobody asks.
	Opened func()
	// Log receives a line for each notice. Its Write may be called concurrently, and must not
	// block.
	Log io.Writer
	// Random is the only source of randomness.
	Random rand.Source
}
