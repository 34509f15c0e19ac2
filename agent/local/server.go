// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package local

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/elector"
	"github.com/metaparticle-io/metaparticle/agent/wait"
	"github.com/metaparticle-io/metaparticle/api"
)

// API is the local API of one pod.
type API struct {
	config    Config
	keepers   []*keeper
	variables []*Variable
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
			a.variables = append(a.variables, variableOf(config, claim))
		case api.Arrivals:
			a.arrivals = append(a.arrivals, newArrival(config, budget, config.barrier(claim)))
		default:
			a.keepers = append(a.keepers, newKeeper(config, budget, claim))
		}
	}
	return a, nil
}

// variableOf returns the object by which the agent reads and writes a Variable. Each write has an
// id, which differs from the ids of all writes of an earlier agent process.
func variableOf(c Config, of api.Claim) *Variable {
	random := c.Random()
	return newVariable(variableConfig{
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
				k.post(ctx, k.hearLeap)
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

// Config has the settings of a local API. Zero values mean the defaults.
type Config struct {
	// PodName, PodUID and PodIP describe the agent's own pod.
	PodName, PodUID, PodIP string
	// Claims are the claims that the pod's programs may use: claims on slots, on Variables and on
	// barriers.
	Claims []api.Claim
	// LeaseDuration is the duration that the agent writes into its Leases. Zero means
	// api.DefaultLeaseDuration.
	LeaseDuration time.Duration
	// BootID is the boot id of the running kernel. Boots are all boots of the pod's volume
	// ([lease.Self]).
	BootID string
	Boots  []string
	// OwnKernel reports that the pod may run in a virtual machine of its own. The pod's earlier
	// virtual machine may still run. So a Lease with another boot id does not prove that the
	// program of that boot is dead.
	OwnKernel bool
	// Restarted reports that an earlier agent process of the pod has served the local API. If the
	// pod keeps no note of earlier processes, Restarted is false.
	Restarted bool
	Leases    elector.Leases
	// Variables sends the requests about Variables. Variables may be nil only if no claim names
	// a Variable.
	Variables VariableAPI
	// Run is the UID of the pod's Job. Barriers sends the requests about the Leases of barriers. If
	// no claim names a barrier, Run may be empty, and Barriers may be nil.
	Run      string
	Barriers wait.BarrierAPI
	// Leash kills the programs of lost holds; nil lets the programs run on.
	Leash *Leash
	// Leaps delivers a value after each leap of the wall clock; nil delivers none. Ahead returns how far the
	// wall clock is ahead of Clock; nil means that it never leaps.
	Leaps <-chan struct{}
	Ahead func() time.Duration
	// Clock returns the time since boot (CLOCK_BOOTTIME). Wall returns the time that the
	// agent writes into the Lease for people; time.Now is the default.
	Clock func() time.Duration
	Wall  func() time.Time
	// Random returns a new source of randomness for one claim. Only the loop of that claim uses
	// the source.
	Random func() rand.Source
	Log    *slog.Logger
}

// check refuses invalid settings, and fills in the defaults.
func (c Config) check() (Config, error) {
	switch {
	case c.PodName == "" || c.PodUID == "":
		return c, errors.New("local: no name or uid of the pod")
	case len(c.Claims) == 0:
		return c, errors.New("local: no claims")
	case c.BootID == "":
		return c, errors.New("local: no boot id")
	case c.Leases == nil || c.Clock == nil || c.Random == nil:
		return c, errors.New("local: requests for Leases, a clock and a random source are needed")
	}
	for _, claim := range c.Claims {
		switch {
		case claim.Kind.Word == "":
			return c, fmt.Errorf("local: the local API has no claim %q", claim.Name)
		case claim.Kind == api.Variable && c.Variables == nil:
			return c, errors.New("local: requests for Variables are needed")
		case claim.Kind == api.Arrivals && (c.Barriers == nil || c.barrier(claim).Leases() == nil):
			return c, errors.New("local: a barrier needs requests for its Leases, and a run")
		}
	}
	if c.LeaseDuration == 0 {
		c.LeaseDuration = api.DefaultLeaseDuration
	}
	if c.Ahead == nil {
		c.Ahead = func() time.Duration { return 0 }
	}
	if c.Wall == nil {
		c.Wall = time.Now
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c, nil
}

// barrier returns the arguments of the barrier that a claim names. The barrier's run is the pod's
// run ([Config.Run]).
func (c Config) barrier(of api.Claim) api.BarrierArgs {
	return api.BarrierArgs{Barrier: api.Barrier{Name: of.Name, Size: of.Size}, Run: c.Run}
}
