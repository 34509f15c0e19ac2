// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/api"
)

// staleStart is a client whose watches without a version begin with an old state, as from an API
// server whose watch cache is behind.
type staleStart struct {
	*link
	name string
	old  atomic.Pointer[kube.Lease]
}

func (c *staleStart) WatchLease(ctx context.Context, name, v string, fn func(kube.WatchEvent)) error {
	if old := c.old.Load(); name == c.name && v == "" && old != nil {
		fn(kube.WatchEvent{Type: kube.Added, Lease: old.Clone(), ResourceVersion: old.ResourceVersion})
	}
	return c.link.WatchLease(ctx, name, v, fn)
}

// askFor returns the next Lease with an ask of the given pod.
func askFor(l kube.Lease, pod string) *kube.Lease {
	l.Holder, l.RenewTime, l.Annotations = pod, time.Now(), map[string]string{api.RevisionAnnotation: newRevision.String()}
	return &l
}

// A person labels all Leases, or etcd is encrypted with a new key. So the next Lease gets a new
// version, and still has the ask of a dead pod.
func TestRewrittenNextLeaseRenewsNoAsk(t *testing.T) {
	simulate(t, func(w *world) {
		w.free(theSlot, nextLease)
		w.server.put(askFor(w.server.lease(nextLease), "dead_u"))
		a := w.start("a", of(oldRevision))
		a.connect("s1")
		w.within(time.Second, "the old child runs", func() bool { return a.running("s1") })
		w.pass(2 * time.Minute)
		l := w.server.lease(nextLease)
		l.Labels = map[string]string{"team": "x"}
		w.server.put(&l)
		w.pass(time.Minute)
		assert.Empty(t, a.gates.told(), "no pod asks")
		assert.Empty(t, w.rollout().Turns, "no turn of the revision counts")
	})
}

// The holder's watch of the next Lease begins anew, with a state from before the hold. That state
// has an ask.
func TestOldAskEndsNoHold(t *testing.T) {
	simulate(t, func(w *world) {
		w.free(theSlot, nextLease)
		free := w.server.lease(nextLease)
		asked := w.server.put(askFor(free, "b_u"))
		w.server.put(&free)
		var c *staleStart
		a := w.start("a", of(oldRevision), func(cf *Config) { c = &staleStart{link: cf.API.(*link), name: nextLease}; cf.API = c })
		a.connect("s1")
		w.within(time.Second, "the old child runs", func() bool { return a.running("s1") })
		w.pass(2 * time.Minute)
		c.old.Store(asked)
		w.pass(6 * time.Minute)
		assert.Empty(t, a.gates.told(), "no pod asks")
		assert.True(t, a.running("s1"))
	})
}

// An asker's clock may run behind, or be set back. After a restore of etcd the versions may be
// smaller than before.
func TestAsksCountDespiteSetClocksAndRestores(t *testing.T) {
	began := time.Now()
	seen := func(a *asks, now time.Duration, version int, pod string, renewed time.Duration, own string) bool {
		l := askFor(kube.Lease{ResourceVersion: strconv.Itoa(version)}, pod)
		l.RenewTime = began.Add(renewed)
		a.see(now, l, own)
		return a.last.Seen == now
	}
	var a asks
	assert.False(t, seen(&a, 1, 10, "b_u", 0, "5"), "the ask may be old")
	assert.True(t, seen(&a, 2, 11, "b_u", -time.Hour, "5"), "the asker's clock was set back")
	assert.True(t, seen(&a, 3, 12, "c_u", -2*time.Hour, "5"), "another asker's clock runs behind")
	assert.False(t, seen(&a, 4, 13, "c_u", -2*time.Hour, "5"), "the asker has written nothing")
	assert.False(t, seen(&a, 5, 11, "b_u", -time.Hour, "13"), "the state is old")
	assert.Equal(t, "c_u", a.last.Identity, "an old state ends no ask")
	assert.False(t, seen(&a, 6, 7, "b_u", time.Second, "6"), "after a restore the first ask may be old")
	assert.True(t, seen(&a, 7, 8, "b_u", 2*time.Second, "6"))
}
