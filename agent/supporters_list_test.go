// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/agent/promise"
	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/sim/apiserver"
)

// refuses refuses so many writes of the holder a that would change the list of supporters.
func (n *peers) refuses(times int) {
	old := n.server.Refuse
	n.server.Refuse = func(ctx context.Context, r apiserver.Request) error {
		changes := r.By == "a" && r.Verb == "put" && r.Name == theSlot &&
			r.Lease.Annotations[api.SupportersAnnotation] != n.server.lease(theSlot).Annotations[api.SupportersAnnotation]
		if changes && times > 0 {
			times--
			return &kube.StatusError{Code: 403, Reason: "Forbidden"}
		}
		return old(ctx, r)
	}
}

// An agent process that has ended promises nothing, and takes no slot. So as long as the Lease names it, an outage
// stops the application, and the death of the holder's node costs the whole Lease.
func TestNextProcessOfASupporterReplacesTheLast(t *testing.T) {
	for _, refused := range []int{0, 1} {
		for _, standbys := range [][]string{{"b"}, {"b", "c"}} {
			t.Run(fmt.Sprint(standbys, refused), simulated(func(t *testing.T, w *world) {
				n := supported(w, append([]string{"a"}, standbys...)...)
				w.pass(time.Minute)
				n.refuses(refused)
				for _, name := range standbys {
					n.restart(name)
				}
				took := w.within(30*time.Second, "the list names the next processes alone", func() bool { return n.lists(standbys...) })
				t.Log("listed after", took)
				w.pass(time.Second)
				assert.EqualValues(t, len(standbys), n.pods["a"].metric("metaparticle_supporters"))
				n.dies("a")
				w.within(32*time.Second, "another pod runs", func() bool { return len(n.runs()) > 0 })
			}))
		}
	}
}

// The alert counts those who answer, and not the names in the Lease.
func TestListOfTheDeadCountsAsNoSupport(t *testing.T) {
	simulate(t, func(w *world) {
		n := supported(w, "a", "b", "c")
		a := n.pods["a"]
		w.pass(time.Minute)
		n.refuses(1 << 30)
		assert.EqualValues(t, 2, a.metric("metaparticle_supporters"))
		n.restart("b")
		w.pass(90 * time.Second)
		require.Len(t, n.list().IDs, 2, "the API server refuses the next list")
		require.False(t, n.lists("b", "c"))
		assert.Zero(t, a.metric("metaparticle_supporters"), "a holder needs the promises of both")
		assert.True(t, a.running("s1"), "it still renews")
		n.refuses(0)
	})
}

// A third standby neither writes an offer nor takes the place of another one, before one of them is gone.
func TestThirdStandbySupportsOnlyOnceAPlaceIsFree(t *testing.T) {
	simulate(t, func(w *world) {
		n := supported(w, "a", "c", "d")
		b := n.start("b")
		b.connect("s1")
		w.pass(2 * time.Minute)
		assert.False(t, w.words().Of(b.identity()), "two others support the holder")
		assert.True(t, n.lists("c", "d"))
		n.dies("d")
		w.within(90*time.Second, "the next one takes its place", func() bool { return n.lists("b", "c") })
	})
}

// Each change of the list costs the holder its promises, until the change is stored.
func TestListKeepsThoseWhoAnswer(t *testing.T) {
	simulate(t, func(w *world) {
		n := supported(w, "a", "y", "z")
		before, key, asks := n.list(), promise.NewKey(rand.NewPCG(5, 5)), 0
		n.strangers = func(_ context.Context, _ netip.AddrPort, message string) (string, error) {
			asks++
			a, ok := promise.Expected{By: before.Key, To: api.SupporterID("x_u", key.Public()), Hold: n.holdID()}.Ask(message)
			assert.True(t, ok)
			return key.Promise(a), nil
		}
		n.flood(1, func(int) api.Contact {
			return api.Contact{Address: netip.MustParseAddrPort("10.9.0.1:15090"), Key: key.Public()}
		})
		w.pass(2 * time.Minute)
		assert.Greater(t, asks, 3, "it answers, too")
		assert.Equal(t, before, n.list())
	})
}

// A pod knows by the list how often the holder renews, whatever its own lease duration.
func TestSupporterOfAnotherLeaseDurationTakesTheSlotSoonAfterAnOutage(t *testing.T) {
	for _, own := range []time.Duration{30 * time.Second, 40 * time.Second} {
		t.Run(own.String(), simulated(func(t *testing.T, w *world) {
			n := supported(w, "a", "b")
			n.dies("b")
			c := n.start("c", func(c *Config) { c.LeaseDuration = own })
			c.connect("s1")
			w.within(3*time.Minute, "c supports a", func() bool { return n.lists("c") })
			n.all(func(l *link) { l.cut = true })
			w.pass(2 * time.Minute)
			n.dies("a")
			w.pass(2 * time.Minute)
			c.link.set(over)
			w.within(20*time.Second, "c runs", func() bool { return c.running("s1") })
		}))
	}
}
