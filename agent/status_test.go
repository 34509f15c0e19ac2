// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/agent/status"
	"github.com/metaparticle-io/metaparticle/api"
)

// status returns the writer of a pod's status, without an agent.
func (l *link) status(w *world) *status.Status { return statusBy(w, l) }

func statusBy(w *world, a API) *status.Status {
	c := Config{
		Pod:     Pod{PodName: "a"},
		Outside: Outside{API: a, Wall: time.Now, Idle: func() {}, Log: slog.New(slog.DiscardHandler)},
	}
	shown := showConfig(c, api.Budget{RequestTimeout: time.Second}, rand.New(rand.NewPCG(1, 1)))
	shown.Answered = func(context.Context, string, bool) {}
	s := status.NewStatus(shown)
	go s.Run(w.t.Context())
	return s
}

func TestAgentKeepsDeletionCostThatAPersonSet(t *testing.T) {
	for cost, want := range map[string][]string{
		"":                     {api.HolderDeletionCost, "null"},
		api.HolderDeletionCost: {api.HolderDeletionCost, "null"},
		"100":                  {"absent", "absent"},
		"0":                    {"absent", "absent"},
	} {
		simulate(t, func(w *world) {
			l := newLink(w.server, "a")
			l.cost = cost
			p := &pod{world: w, link: l}
			s := l.status(w)
			for i, hold := range []string{"h", ""} {
				s.Show(status.Appearance{Ready: hold != "", Reason: "any", Hold: hold})
				w.pass(time.Second)
				is := "absent"
				if written, ok := p.looks().Metadata.Annotations[api.DeletionCostAnnotation]; ok {
					is = "null"
					if written != nil {
						is = *written
					}
				}
				assert.Equal(t, want[i], is, "cost %q, hold %q", cost, hold)
			}
		})
	}
}

// repeating is a link behind a proxy that repeats a stored patch, and so returns a conflict.
type repeating struct {
	*link
	conflicts int
}

func (r *repeating) PatchPodStatus(ctx context.Context, pod string, patch []byte) (kube.Pod, error) {
	stored, err := r.link.PatchPodStatus(ctx, pod, patch)
	if err == nil && r.conflicts > 0 && string(patch) != string(status.Anything) {
		r.conflicts--
		r.set(func(l *link) { l.edits++ })
		return kube.Pod{}, &kube.StatusError{Code: http.StatusConflict}
	}
	return stored, err
}

// With the gate "readiness", the hold ends once the agent knows that the pod is not Ready.
func TestConflictAfterStoredWriteNeverHidesTheReadiness(t *testing.T) {
	simulate(t, func(w *world) {
		r := &repeating{link: newLink(w.server, "a")}
		s := statusBy(w, r)
		s.Show(status.Appearance{Reason: status.ReadyStandingBy})
		w.pass(time.Minute)
		r.conflicts = 1
		s.Show(status.Appearance{Ready: true, Reason: status.ReadyHolding, Hold: "h"})
		w.pass(10 * time.Millisecond)
		s.Show(status.Appearance{Reason: status.ReadyStandingBy})
		w.pass(time.Minute)
		assert.Contains(t, r.patches[len(r.patches)-1], `"status":"False"`)
	})
}

// crowded refuses each change of the pod's labels, as the policy does for a pod with very many labels.
type crowded struct{ *link }

func (c crowded) PatchPodStatus(ctx context.Context, pod string, patch []byte) (kube.Pod, error) {
	if strings.Contains(string(patch), `"labels":`) {
		return kube.Pod{}, &kube.StatusError{Code: http.StatusForbidden}
	}
	return c.link.PatchPodStatus(ctx, pod, patch)
}

// A user who may change pods could otherwise keep the holder out of its Services.
func TestPodWithVeryManyLabelsBecomesReady(t *testing.T) {
	simulate(t, func(w *world) {
		l := newLink(w.server, "a")
		s := statusBy(w, crowded{l})
		s.Show(status.Appearance{Ready: true, Reason: status.ReadyHolding, Hold: "h"})
		w.pass(time.Second)
		p := &pod{world: w, link: l}
		assert.Equal(t, "True Holding", p.ready())
	})
}

// The second hold's status equals that of the first hold, so the API server stores nothing for
// the second hold.
func TestNewHoldStoresNoUnchangedPodStatus(t *testing.T) {
	simulate(t, func(w *world) {
		l := newLink(w.server, "a")
		s := l.status(w)
		s.Show(status.Appearance{Ready: true, Reason: status.ReadyHolding, Hold: "first"})
		w.pass(time.Minute)
		require.Len(t, l.patches, 1)
		s.Show(status.Appearance{Ready: true, Reason: status.ReadyHolding, Hold: "second"})
		w.pass(time.Minute)
		assert.Len(t, l.patches, 1)
		assert.Equal(t, 4, w.server.patched(), "two for each hold")
	})
}
