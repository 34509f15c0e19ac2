// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package story

import (
	"slices"
	"time"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/sim/apiserver"
	"github.com/metaparticle-io/metaparticle/sim/engine"
	"github.com/metaparticle-io/metaparticle/sim/world"
)

// workloads has the workloads of a seed, with their world and climate.
type workloads struct {
	*world.World
	templates []world.Template
	replicas  map[string]int
	slots     []string
	longest   time.Duration // the longest duration in a Lease
	grace     time.Duration // the longest grace of the pods
	// climate is the weather that lasts for the whole seed.
	climate apiserver.Weather
	byHand  bool // a person writes on the Leases
}

// add adds a workload, and starts its pods.
func (c *workloads) add(t world.Template, replicas int) {
	c.templates = append(c.templates, t)
	c.longest, c.grace = max(c.longest, t.Stated()), max(c.grace, t.Grace)
	for _, s := range t.Slots {
		if !slices.Contains(c.slots, s) {
			c.slots = append(c.slots, s)
		}
	}
	c.replicas[t.Workload] = replicas
	for range replicas {
		c.NewPod(t, engine.Pick(c.Rng, c.Nodes))
	}
}

// refill starts the pods that the workloads lack.
func (c *workloads) refill() {
	for _, t := range c.templates {
		for range c.replicas[t.Workload] - c.count(t.Workload) {
			c.NewPod(t, c.place())
		}
	}
}

// place returns the node that has the fewest pods.
func (c *workloads) place() *world.Node {
	return slices.MinFunc(c.Nodes, func(a, b *world.Node) int { return len(a.Pods()) - len(b.Pods()) })
}

// count returns the number of pods of a workload that are not being deleted.
func (c *workloads) count(workload string) int {
	n := 0
	for _, p := range c.Pods {
		if p.Workload == workload && p.Object && !p.Stopping {
			n++
		}
	}
	return n
}

// has reports whether some workload has the gate.
func (c *workloads) has(g api.Gate) bool {
	return slices.ContainsFunc(c.templates, func(t world.Template) bool { return t.Gate == g })
}

// scale returns the factor by which events take longer than with a lease of half a
// minute.
func (c *workloads) scale() time.Duration { return max(1, c.longest/(30*time.Second)) }
