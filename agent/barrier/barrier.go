// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package barrier

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/after"
	"github.com/metaparticle-io/metaparticle/api"
)

// leaving bounds the attempts to release the Lease after the wait. A Lease that is not released
// expires.
const leaving = 2 * time.Second

// Run makes the pod arrive at the barrier, and waits until the barrier is open. If ctx ends
// first, Run releases the pod's Lease and returns the cause of that end.
func Run(ctx context.Context, c Config) error {
	budget, err := api.NewBudget(c.Duration)
	switch {
	case err != nil:
		return fmt.Errorf("barrier: %w", err)
	case c.API == nil || c.Log == nil || c.Random == nil || c.Clock == nil || len(c.Leases) == 0:
		return errors.New("barrier: no API, log, randomness, clock or Leases")
	}
	random := rand.New(c.Random)
	a := newArrival(c, budget, rand.New(rand.NewPCG(random.Uint64(), random.Uint64())))
	waiting, stop := context.WithCancel(ctx)
	defer stop()
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		defer stop()
		a.run(waiting)
	}()
	// The watch of [after.Run] shows at once that the barrier is open. If that watch is silent, the
	// method a.run later reads that the barrier is open, and ends this wait.
	err = after.Run(waiting, after.Config{
		API: c.API, Conditions: []api.Condition{{Lease: c.Leases[0], Opened: len(c.Leases)}},
		PodName: c.PodName, PodUID: c.PodUID, Log: c.Log, Random: rand.NewPCG(random.Uint64(), random.Uint64()),
	})
	stop()
	<-gone
	if a.open {
		err = nil
	}
	if err == nil && c.Opened != nil {
		c.Opened()
	}
	if ctx.Err() != nil && err != nil {
		err = fmt.Errorf("wait at the barrier: %w", context.Cause(ctx))
	}
	leaves, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaving)
	defer cancel()
	a.leave(leaves)
	return err
}
