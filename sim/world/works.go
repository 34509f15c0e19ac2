// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package world

import (
	"fmt"

	"github.com/metaparticle-io/metaparticle/api"
)

// newWorks returns the story of [jobs] with a once claim instead of a lock. The pods of one
// key come one after the other, and old keys come back. In some worlds the work is an init
// container's.
func newWorks(w *World) *jobs {
	j, t := newEnding(w, "work", api.OnceLease("a"))
	t.containers = []string{"app"}
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
