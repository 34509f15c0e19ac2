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

// words returns what the pods of the slot say.
func (w *world) words() api.Words {
	return api.ParseWords(w.server.lease(nextLease).Annotations[api.WordsAnnotation])
}

// speak replaces all words of the next Lease.
func (w *world) speak(words ...api.Word) {
	w.annotate(nextLease, api.WordsAnnotation, api.Words(words).String())
}

// hold returns the number of the present hold.
func (w *world) holdID() string { return w.server.lease(theSlot).Annotations[api.HoldAnnotation] }

// announcement is a holder's announcement that its hold ends.
type announcement struct {
	id, says string
	at       time.Time
}

// announcements returns the announcements that the pod has made, each as it first was.
func (p *pod) announcements() (all []announcement) {
	for _, r := range p.world.server.Requests("put") {
		id, says, _ := strings.Cut(r.Lease.Annotations[api.LeavingAnnotation], " ")
		if r.By == p.link.name && r.Name == theSlot && says != "" && (len(all) == 0 || all[len(all)-1].id != id) {
			all = append(all, announcement{id, says, r.At})
		}
	}
	return all
}

// announced waits for the holder's announcement, and returns its id.
func (w *world) announced() (id string) {
	w.t.Helper()
	w.within(time.Second, "the holder announces", func() bool {
		id, _, _ = strings.Cut(w.server.lease(theSlot).Annotations[api.LeavingAnnotation], " ")
		return id != ""
	})
	return id
}

// slowWords delays each write of the next Lease until the channel goOn is closed.
type slowWords struct {
	*link
	goOn chan struct{}
}

func (o *slowWords) UpdateLease(ctx context.Context, l *kube.Lease) (*kube.Lease, error) {
	if l.Name == nextLease {
		<-o.goOn
	}
	return o.link.UpdateLease(ctx, l)
}

func TestDelayedAnswerNeverErasesAnswersToNextHolder(t *testing.T) {
	simulate(t, func(w *world) {
		s := w.serve(1)
		slow := &slowWords{goOn: make(chan struct{})}
		d := w.start("d", behind(&ports{}, func(c *Config) { slow.link = c.API.(*link); c.API = slow })...)
		d.connect("late")
		w.pass(10 * time.Second)
		require.Equal(t, "True StandingBy", d.ready())
		s.holder.agent.Yield()
		w.pass(leave.Answers / 2)
		l := w.server.lease(theSlot)
		l.Holder, l.AcquireTime, l.Annotations[api.HoldAnnotation] = "c_u", time.Now(), "later"
		w.server.put(&l)
		answer := api.Word{Say: api.Stays, Identity: "e_u", To: "later.1"}
		w.speak(answer)
		w.pass(100 * time.Millisecond)
		close(slow.goOn)
		w.pass(time.Second)
		assert.Equal(t, api.Words{answer}, w.words())
	})
}

// The holder's agent restarts during a leave. The next Lease keeps the answers to the old announcement.
// These answers must not count for an announcement of the new agent process.
func TestNewAgentProcessIgnoresAnswersToEarlierAnnouncement(t *testing.T) {
	for name, c := range map[string]struct {
		gone   bool
		leaves bool
	}{
		"the pods that answered answer again": {false, true},
		"the pods that answered are gone":     {true, false},
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

// A thief of the holder's rights announces a new end ten times a second.
func TestStandbyBoundsItsAnswersDespiteFrequentAnnouncements(t *testing.T) {
	simulate(t, func(w *world) {
		b, _ := w.outlive()
		sent := 0
		for n := range 600 {
			l := w.server.lease(theSlot)
			l.RenewTime, l.Annotations = time.Now(), maps.Clone(l.Annotations)
			l.Annotations[api.LeavingAnnotation] = fmt.Sprintf("%s.%d %s", w.holdID(), n, api.LeavingSoon)
			w.server.put(&l)
			sent += b.requested(100 * time.Millisecond)
		}
		assert.Positive(t, sent)
		assert.LessOrEqual(t, sent, 2*(int(time.Minute/answerPause)+answerBurst))
	})
}

// A person who may patch Leases can write 256 KiB of annotations.
func TestStandbyRepeatsNoOverlongAnnouncement(t *testing.T) {
	simulate(t, func(w *world) {
		w.outlive()
		l := w.server.lease(theSlot)
		l.RenewTime, l.Annotations = time.Now(), maps.Clone(l.Annotations)
		l.Annotations[api.LeavingAnnotation] = w.holdID() + "." + strings.Repeat("1", 200<<10) + " " + api.LeavingSoon
		w.server.put(&l)
		w.pass(time.Second)
		assert.Empty(t, w.server.lease(nextLease).Annotations[api.WordsAnnotation])
	})
}
