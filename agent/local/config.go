// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package local

import (
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/barrier"
	"github.com/metaparticle-io/metaparticle/agent/elector"
	"github.com/metaparticle-io/metaparticle/agent/leash"
	"github.com/metaparticle-io/metaparticle/agent/variable"
	"github.com/metaparticle-io/metaparticle/api"
)

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
	Variables variable.Requests
	// Run is the UID of the pod's Job. Barriers sends the requests about the Leases of barriers. If
	// no claim names a barrier, Run may be empty, and Barriers may be nil.
	Run      string
	Barriers barrier.API
	// Leash kills the programs of lost holds; nil lets the programs run on.
	Leash *leash.Leash
	// Leaps delivers a value after each leap of the wall clock; nil delivers none.
	Leaps <-chan struct{}
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
