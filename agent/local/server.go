// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package local

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/variable"
	"github.com/metaparticle-io/metaparticle/api"
)

// API is the local API of one pod.
type API struct {
	config    Config
	keepers   []*keeper
	variables []*variable.Variable
	arrivals  []*arrival
}

// New returns a local API. No goroutine starts before [API.Run].
func New(config Config) (*API, error) {
	config, err := config.check()
	if err != nil {
		return nil, err
	}
	budget, err := api.NewBudget(config.LeaseDuration)
	if err != nil {
		return nil, fmt.Errorf("local: %w", err)
	}
	a := &API{config: config}
	for _, claim := range config.Claims {
		switch claim.Kind {
		case api.Variable:
			a.variables = append(a.variables, newVariable(config, claim))
		case api.Arrivals:
			a.arrivals = append(a.arrivals, newArrival(config, budget, config.barrier(claim)))
		default:
			a.keepers = append(a.keepers, newKeeper(config, budget, claim))
		}
	}
	return a, nil
}

// newVariable returns the object by which the agent reads and writes a Variable. Each write has an
// id, which differs from the ids of all writes of an earlier agent process.
func newVariable(c Config, of api.Claim) *variable.Variable {
	random := c.Random()
	return variable.New(variable.Config{
		Name: of.Name, Requests: c.Variables, PodUID: c.PodUID, Process: fmt.Sprintf("%08x", uint32(random.Uint64())),
		Random: random, Log: c.Log,
	})
}

// Run keeps all claims until the channel "stop" is closed and no slot is left to release. Then
// Run returns nil. If ctx ends first, Run releases nothing, and the Leases expire.
func (a *API) Run(ctx context.Context, stop <-chan struct{}) error {
	errs := make([]error, len(a.keepers))
	var group sync.WaitGroup
	for i, k := range a.keepers {
		group.Go(func() { errs[i] = k.run(ctx, stop) })
	}
	for _, v := range a.variables {
		group.Go(func() { v.Run(ctx, stop) })
	}
	for _, b := range a.arrivals {
		group.Go(func() { b.run(ctx, stop) })
	}
	if a.config.Leaps != nil {
		watching, end := context.WithCancel(ctx)
		defer end()
		go a.passLeaps(watching)
	}
	if a.config.Leash != nil {
		watching, end := context.WithCancel(ctx)
		defer end()
		go a.passShimLeaps(watching)
	}
	group.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// passLeaps reports each leap of the wall clock to each keeper.
func (a *API) passLeaps(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-a.config.Leaps:
			for _, k := range a.keepers {
				k.post(ctx, k.leapt)
			}
		}
	}
}

// passShimLeaps tells each keeper of each leap that a shim has noticed. A frozen program stays
// frozen until each keeper knows of the leap, and has renewed its hold, if any.
func (a *API) passShimLeaps(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case leaps := <-a.config.Leash.Leaps():
			for _, k := range a.keepers {
				k.post(ctx, func(now time.Duration) { k.learnLeap(now, leaps) })
			}
		}
	}
}

// keeper returns the keeper of a claim; nil if the pod has no such claim.
func (a *API) keeper(word, name string) *keeper {
	for _, k := range a.keepers {
		if k.of.Kind.Word == word && k.of.Name == name {
			return k
		}
	}
	return nil
}
