// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package after

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"

	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/api"
)

// API has the requests that a wait sends. [kube.Client] documents them.
type API interface {
	GetLease(ctx context.Context, name string) (*kube.Lease, error)
	// WatchLease calls fn for each event, one call at a time, and makes no call after WatchLease
	// has returned.
	WatchLease(ctx context.Context, name, resourceVersion string, fn func(kube.WatchEvent)) error
	// CreateEvent may be called concurrently with the other requests.
	CreateEvent(ctx context.Context, event kube.Event) error
}

// Config has the conditions for which the pod waits, and what the wait needs.
type Config struct {
	API        API
	Conditions []api.Condition
	// PodName and PodUID identify the pod, for its Events.
	PodName, PodUID string
	// Log receives a line for each notice. Its Write may be called concurrently, and must not
	// block.
	Log io.Writer
	// Random is the only source of randomness.
	Random rand.Source
}

// Run waits until each condition has been met once. If ctx ends first, Run returns the cause of
// that end.
func Run(ctx context.Context, c Config) error {
	if c.API == nil || c.Log == nil || c.Random == nil {
		return errors.New("after: no API, no log or no randomness")
	}
	random := rand.New(c.Random)
	for _, condition := range c.Conditions {
		if err := newWait(c, condition, random).run(ctx); err != nil {
			return fmt.Errorf("wait until %s: %w", goal(condition), err)
		}
	}
	return nil
}
