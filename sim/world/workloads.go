// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package world

import (
	"slices"
	"time"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/sim/apiserver"
	"github.com/metaparticle-io/metaparticle/sim/engine"
)

// workloads has the workloads of a seed, with their world and climate.
type workloads struct {
	*World
	templates []template
	replicas  map[string]int
	slots     []string
	longest   time.Duration // the longest lease duration
	grace     time.Duration // the longest grace of the pods
	// climate is the weather that lasts for the whole seed.
	climate apiserver.Weather
	byHand  bool // a person writes on the Leases
}

// add adds a workload, and starts its pods.
func (c *workloads) add(t template, replicas int) {
	c.templates = append(c.templates, t)
	c.longest, c.grace = max(c.longest, t.duration), max(c.grace, t.grace)
	for _, s := range t.slots {
		if !slices.Contains(c.slots, s) {
			c.slots = append(c.slots, s)
		}
	}
	c.replicas[t.workload] = replicas
	for range replicas {
		c.newPod(t, engine.Pick(c.Rng, c.nodes))
	}
}

// refill starts the pods that the workloads lack.
func (c *workloads) refill() {
	for _, t := range c.templates {
		for range c.replicas[t.workload] - c.count(t.workload) {
			c.newPod(t, c.place())
		}
	}
}

// place returns the node that has the fewest pods.
func (c *workloads) place() *node {
	return slices.MinFunc(c.nodes, func(a, b *node) int { return len(a.pods()) - len(b.pods()) })
}

// count returns the number of pods of a workload that are not being deleted.
func (c *workloads) count(workload string) int {
	n := 0
	for _, p := range c.pods {
		if p.workload == workload && p.object && !p.stopping {
			n++
		}
	}
	return n
}

// has reports whether some workload has the gate.
func (c *workloads) has(g api.Gate) bool {
	return slices.ContainsFunc(c.templates, func(t template) bool { return t.gate == g })
}

// scale returns the factor by which events take longer than with a lease of half a
// minute.
func (c *workloads) scale() time.Duration { return max(1, c.longest/(30*time.Second)) }
