// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package step

import (
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/metaparticle-io/metaparticle/api"
)

// hinting is what [Claim.Alone] decides for a next Lease without the hint, and for one with it.
type hinting struct{ without, with bool }

var (
	written = hinting{true, true}
	removed = hinting{false, false}
	kept    = hinting{false, true}
)

func TestHintFollowsDeclaredReplicas(t *testing.T) {
	declares := func(wanted, living int) Replicas { return Replicas{Declared: true, Wanted: wanted, Living: living} }
	for name, test := range map[string]struct {
		replicas map[string]Replicas
		want     hinting
	}{
		"no pod yet":                           {map[string]Replicas{"web": declares(1, 0)}, written},
		"one pod":                              {map[string]Replicas{"web": declares(1, 1)}, written},
		"a rollout, or a pod that is replaced": {map[string]Replicas{"web": declares(1, 2)}, kept},
		"scaled up, without the second pod":    {map[string]Replicas{"web": declares(2, 1)}, removed},
		"several pods":                         {map[string]Replicas{"web": declares(2, 3)}, removed},
		"scaled to zero":                       {map[string]Replicas{"web": declares(0, 1)}, kept},
		"two workloads share a lock":           {map[string]Replicas{"web": declares(1, 1), "api": declares(1, 0)}, removed},
		"one of two is scaled to zero":         {map[string]Replicas{"web": declares(1, 1), "api": declares(0, 0)}, written},
		"its last pod is about to end":         {map[string]Replicas{"web": declares(1, 1), "api": declares(0, 1)}, kept},
		"a stranger's pod shares the lock":     {map[string]Replicas{"web": declares(1, 0), "": {Living: 1}}, removed},
		"the workload is deleted":              {map[string]Replicas{"web": {Living: 1}}, kept},
		"two pods of an unknown workload":      {map[string]Replicas{"": {Living: 2}}, removed},
		"nobody":                               {nil, kept},
	} {
		c := Claim{Replicas: test.replicas}
		assert.Equal(t, test.want, hinting{c.Alone(false), c.Alone(true)}, name)
	}
}

func TestOnlySlotsWithNextLeasesHaveHints(t *testing.T) {
	f := &Facts{Claims: Claims{}, Leases: map[string]*Lease{}}
	for _, slot := range []string{"lock.a", "lock.hinted", "lock.new", "semaphore.pool.0", "singleton.job.x"} {
		f.Claims.Add("till", "till", 0, slot)
		f.Claims.Count("web", Replicas{Declared: true, Wanted: 1}, slot, "lock.unclaimed")
		f.Leases[slot] = &Lease{Name: slot}
		f.Leases[api.NextLease(slot)] = &Lease{Name: api.NextLease(slot)}
	}
	delete(f.Leases, api.NextLease("lock.new"))
	f.Leases[api.NextLease("lock.hinted")].Annotations = map[string]string{api.AloneAnnotation: api.AloneTrue}
	assert.Equal(t, map[string]bool{"lock.a": true}, f.Hints())
	f.Claims.Count("web", Replicas{Declared: true, Wanted: 1}, "lock.a", "lock.hinted")
	assert.Equal(t, map[string]bool{"lock.hinted": false}, f.Hints())
}
