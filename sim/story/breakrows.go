// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package story

import (
	"math/rand/v2"
	"slices"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/sim/apiserver"
	"github.com/metaparticle-io/metaparticle/sim/engine"
	"github.com/metaparticle-io/metaparticle/sim/world"
)

// breakRows has the cases of the story "table" in which a held Lease gets a state that does not follow
// from its last state. A person or a GitOps tool has created the Lease again, or etcd was
// restored without the wait of docs/operate/restore-etcd.md. The standbys have seen the holder, so they must wait
// until the holder's lease expires. The rows have a random source of their own.
type breakRows struct {
	*demands
	rng *rand.Rand
}

func (r breakRows) rows() map[string]func() {
	return map[string]func(){
		"lease replaced by a free one": func() { r.broken(func(*world.Child) { r.recreate(nil) }) },
		"lease replaced by an old one": func() { r.broken(r.reapply) },
		"etcd restored too early":      func() { r.broken(r.rollBack) },
	}
}

// last returns the name of the row that a seed plays after all other rows, so that their draws stay.
func (r breakRows) last() string {
	return engine.Pick(r.rng, []string{"lease replaced by a free one", "lease replaced by an old one", "etcd restored too early"})
}

// broken applies the cause. In half of the cases the holder's node is cut off, so that the holder does
// not learn of the cause. In the other cases the standbys learn of the deletion and of the new Lease by
// their watches. The new state may have a holder, for which the standbys wait anew.
func (r breakRows) broken(cause func(*world.Child)) {
	r.expiryWithin(world.Slow(r.budget.Duration)+r.unseeing(), func(c *world.Child) {
		r.each(ignoreStop)(c)
		if engine.Chance(r.rng, .5) {
			c.Pod().Node.Cut(true, true)
		}
		cause(c)
	})
}

// recreate deletes the Lease, and creates it with the spec.
func (r breakRows) recreate(lease map[string]any) {
	if lease == nil {
		lease = map[string]any{"kind": "Lease", "spec": map[string]any{}}
	}
	engine.Must(r.API.Remove("a GitOps tool", "Lease", r.slot, "", ""))
	_, err := r.API.Create("a GitOps tool", "Lease", r.slot, apiserver.Encode(lease))
	engine.Must(err)
}

// earlier returns the last state of the Lease that has another hold than the child's, and for which the
// argument "fits" returns true. The second result is false if there is no such state.
func (r breakRows) earlier(c *world.Child, fits func(*apiserver.Lease) bool) (apiserver.Version, bool) {
	for _, v := range slices.Backward(r.API.Object("Lease", r.slot).Since(0)) {
		if v.Lease != nil && v.Lease.Annotations[api.HoldAnnotation] != c.Hold && fits(v.Lease) {
			return v, true
		}
	}
	return apiserver.Version{}, false
}

// reapply replaces the Lease by a copy from the time before the holder. The copy names another pod,
// whose child is dead.
func (r breakRows) reapply(c *world.Child) {
	other := func(l *apiserver.Lease) bool { return l.Holder != "" && l.Holder != c.Pod().Identity() }
	if old, ok := r.earlier(c, other); ok {
		r.recreate(apiserver.Decode(old.Raw))
		return
	}
	r.recreate(nil)
}

// rollBack restores the objects from the time before the holder.
func (r breakRows) rollBack(c *world.Child) {
	if old, ok := r.earlier(c, func(*apiserver.Lease) bool { return true }); ok {
		r.API.Restore(old.At)
		return
	}
	r.recreate(nil)
}
