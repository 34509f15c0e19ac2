// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/api"
)

// appearance is how the pod looks to Services, rollouts and people.
type appearance struct {
	// Ready, Reason and Message are our condition.
	Ready           bool
	Reason, Message string
	// Hold is the one that the pod has: then it has the label, and costs most to
	// delete.
	Hold string
}

// status writes the appearance into the pod's status, beside the loop: the last
// one wins, and a renewal never waits for it.
type status struct {
	config  Config
	budget  api.Budget
	random  *rand.Rand
	changed chan struct{}
	// answered is told, of each answer, under which hold it was asked for (none:
	// the pod stands by), and whether the pod is being deleted.
	answered func(ctx context.Context, hold string, deleted bool)

	mu   sync.Mutex
	want appearance
	some bool
}

func newStatus(config Config, budget api.Budget, random *rand.Rand) *status {
	return &status{config: config, budget: budget, random: random, changed: make(chan struct{}, 1),
		answered: func(context.Context, string, bool) {}}
}

// show asks for an appearance.
func (s *status) show(want appearance) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.some && s.want == want {
		return
	}
	s.want, s.some = want, true
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

func (s *status) wanted() appearance {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.want
}

// run writes what is asked for, until it is written or something else is.
func (s *status) run(ctx context.Context) {
	var written appearance
	var since time.Time // of written.Ready
	// unsure: something else may be stored, by a write whose answer was lost, or
	// by an earlier process.
	unsure := true
	misses := 0
	retry := time.NewTimer(0)
	<-retry.C
	for {
		select {
		case <-s.changed:
			if !unsure && s.wanted().Ready == written.Ready {
				// Only words have changed, and may change again at once.
				retry.Reset(calm)
				continue
			}
		case <-retry.C:
		case <-ctx.Done():
			retry.Stop()
			return
		}
		want := s.wanted()
		if !unsure && want == written {
			s.tell(written.Ready)
			continue
		}
		at := since
		if unsure || want.Ready != written.Ready {
			at = s.config.Wall()
		}
		// Another hold may look like the last one: what is stored is right then.
		if err := s.write(ctx, want, at); err != nil && (unsure || !errors.Is(err, kube.ErrUnchanged)) {
			s.config.Log.Debug("status is not written", "err", err)
			unsure = unsure || !errors.Is(err, kube.ErrConflict)
			retry.Reset(s.pause(misses))
			misses++
			continue
		}
		written, since, misses, unsure = want, at, 0, false
		s.tell(written.Ready)
		s.config.Calm()
	}
}

// tell lets a gate know for which readiness is all there is.
func (s *status) tell(ready bool) {
	if gate, ok := s.config.Gate.(Showing); ok {
		gate.Shown(ready)
	}
}

// pause backs off as a standby does: nobody's safety waits for this.
func (s *status) pause(misses int) time.Duration {
	d := min(quick<<min(misses, 10), slowest)
	return d/2 + time.Duration(s.random.Int64N(int64(d/2)+1))
}

// anything asks for the pod's version: the agent may patch its pod, not read it.
var anything = []byte("{}")

// write stores the appearance over the version that the pod has now. What an
// earlier write asked for, and nobody answered, was to replace a version that is
// past then: it cannot come true any more. For that, something has to be stored.
func (s *status) write(ctx context.Context, want appearance, since time.Time) error {
	pod, err := s.send(ctx, anything)
	if err != nil {
		return err
	}
	s.answered(ctx, want.Hold, pod.Deleted)
	patch, err := want.patch(pod.ResourceVersion, since)
	if err != nil {
		return err
	}
	stored, err := s.send(ctx, patch)
	if err == nil && stored.ResourceVersion == pod.ResourceVersion {
		return kube.ErrUnchanged
	}
	return err
}

// send sends one patch. Each has the time of a renewal: a server that is slow, but
// lets a pod hold, lets it be Ready too.
func (s *status) send(ctx context.Context, patch []byte) (kube.Pod, error) {
	ctx, cancel := context.WithTimeout(ctx, s.budget.RequestTimeout)
	defer cancel()
	return s.config.API.PatchPodStatus(ctx, s.config.PodName, patch)
}

// patch is a strategic merge patch: conditions are merged by their type, null
// takes a key away.
func (a appearance) patch(version string, since time.Time) ([]byte, error) {
	value := func(v string) any {
		if a.Hold == "" {
			return nil
		}
		return v
	}
	ready := "False"
	if a.Ready {
		ready = "True"
	}
	return json.Marshal(map[string]any{
		"metadata": map[string]any{
			"resourceVersion": version,
			"labels":          map[string]any{api.RoleLabel: value(api.RoleHolder)},
			"annotations":     map[string]any{api.DeletionCostAnnotation: value(api.HolderDeletionCost)},
		},
		"status": map[string]any{"conditions": []any{map[string]any{
			"type":               api.ReadyCondition,
			"status":             ready,
			"reason":             a.Reason,
			"message":            a.Message,
			"lastTransitionTime": since.UTC().Format(time.RFC3339),
		}}},
	})
}
