// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package world

import (
	"fmt"
	"time"

	"github.com/metaparticle-io/metaparticle/api"
)

// newWorks returns the story of [jobs] with a once claim instead of a lock. The pods of one
// key come one after the other, and old keys come back. In some worlds the work is an init
// container's.
func newWorks(w *World) *jobs {
	all := &workloads{World: w, replicas: map[string]int{}}
	j := &jobs{recovery: &recovery{workloads: all}}
	j.trouble = &trouble{workloads: all, takesLeases: chance(w.rng, .2)}
	for i := range 3 {
		w.newNode(fmt.Sprintf("node-%d", i+1))
	}
	t := anyTemplate(w, durations, "work", 0, []string{api.OnceLease("a")})
	t.gate, t.inits, t.containers, t.restless = api.GateContainer, nil, []string{"app"}, 0
	t.ends = between(w.rng, time.Second, time.Minute)
	if chance(w.rng, .4) {
		t.inits, t.containers = []string{"migrate"}, nil
	}
	j.assign = func(p *pod) { p.key = j.nextKey() }
	j.begin(t)
	return j
}

// nextKey returns the key of the next pod.
func (j *jobs) nextKey() string {
	j.made++
	n := (j.made + 2) / 3
	if chance(j.rng, .3) {
		n = 1 + j.rng.IntN(n)
	}
	return fmt.Sprintf("v%d", n)
}
