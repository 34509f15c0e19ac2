// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/agent/leave"
	"github.com/metaparticle-io/metaparticle/api"
)

// slowOffers delays each write of the next Lease until the channel goOn is closed.
type slowOffers struct {
	*link
	goOn chan struct{}
}

func (o *slowOffers) UpdateLease(ctx context.Context, l *kube.Lease) (*kube.Lease, error) {
	if l.Name == nextLease {
		<-o.goOn
	}
	return o.link.UpdateLease(ctx, l)
}

func TestDelayedOfferNeverErasesOffersToNextHolder(t *testing.T) {
	simulate(t, func(w *world) {
		s := w.serve(1)
		slow := &slowOffers{goOn: make(chan struct{})}
		d := w.start("d", behind(&ports{}, func(c *Config) { slow.link = c.API.(*link); c.API = slow })...)
		d.connect("late")
		w.pass(10 * time.Second)
		require.Equal(t, "True StandingBy", d.ready())
		s.holder.agent.Yield()
		w.pass(leave.Answers / 2)
		l := w.server.lease(theSlot)
		l.Holder, l.AcquireTime, l.Annotations[api.HoldAnnotation] = "c_u", time.Now(), "later"
		w.server.put(&l)
		next := w.server.lease(nextLease)
		offers := api.Offers{Leave: "later", Pods: []api.Offer{{Identity: "e_u"}}}.String()
		next.Annotations = map[string]string{api.OffersAnnotation: offers}
		w.server.put(&next)
		w.pass(100 * time.Millisecond)
		close(slow.goOn)
		w.pass(time.Second)
		next = w.server.lease(nextLease)
		assert.Equal(t, offers, next.Annotations[api.OffersAnnotation])
	})
}

// The holder's agent restarts during a leave. The next Lease keeps the offers for the old leave.
// These offers must not count for a leave of the new agent process.
func TestNewAgentProcessIgnoresOffersForEarlierLeave(t *testing.T) {
	for name, c := range map[string]struct {
		gone   bool
		leaves bool
	}{
		"the pods that offered offer again": {false, true},
		"the pods that offered are gone":    {true, false},
	} {
		t.Run(name, simulated(func(t *testing.T, w *world) {
			s := w.serve(2)
			s.holder.agent.Yield()
			w.within(time.Second, "the holder is out", func() bool { return s.holder.ready() == "False Leaving" })
			s.holder.kill()
			a := w.start("a")
			a.gates.connect(a.gates.shim("s1").report)
			w.pass(20 * time.Second)
			require.True(t, a.running("s1"))
			require.Equal(t, "True Holding", a.ready())
			if c.gone {
				for _, p := range s.others {
					p.kill()
				}
			}
			w.pass(10 * time.Minute)
			a.agent.Yield()
			left := false
			for range 30 {
				w.pass(100 * time.Millisecond)
				left = left || a.ready() == "False Leaving"
			}
			assert.Equal(t, c.leaves, left, "at least one Ready pod stays")
		}))
	}
}

// A thief of the holder's rights announces a new leave ten times a second.
func TestStandbyBoundsItsOffersDespiteFrequentLeaveAnnouncements(t *testing.T) {
	simulate(t, func(w *world) {
		b, _ := w.outlive()
		sent := 0
		for n := range 600 {
			l := w.server.lease(theSlot)
			l.RenewTime = time.Now()
			hold := l.Annotations[api.HoldAnnotation]
			l.Annotations = maps.Clone(l.Annotations)
			l.Annotations[api.LeavingAnnotation] = fmt.Sprintf("%s.%d %s", hold, n, api.LeavingSoon)
			w.server.put(&l)
			sent += b.requested(100 * time.Millisecond)
		}
		assert.Positive(t, sent)
		assert.LessOrEqual(t, sent, 2*(int(time.Minute/offerPause)+offerBurst))
	})
}

// A person who may patch Leases can write 256 KiB of annotations.
func TestStandbyRepeatsNoOverlongLeave(t *testing.T) {
	simulate(t, func(w *world) {
		w.outlive()
		l := w.server.lease(theSlot)
		l.RenewTime, l.Annotations = time.Now(), maps.Clone(l.Annotations)
		l.Annotations[api.LeavingAnnotation] = l.Annotations[api.HoldAnnotation] + "." + strings.Repeat("1", 200<<10) + " " + api.LeavingSoon
		w.server.put(&l)
		w.pass(time.Second)
		next := w.server.lease(nextLease)
		assert.Empty(t, next.Annotations[api.OffersAnnotation])
	})
}
