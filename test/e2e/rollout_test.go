// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/test/e2e/record"
)

// rolloutTimeout ends before kubectlTimeout, so that kubectl says what it waited for.
const rolloutTimeout = "--timeout=170s"

// ask is which pod's application answers when this one is asked; empty: none.
func (s *space) ask(pod *corev1.Pod) string {
	name, err := s.askOnce(s.Context(), pod)
	if err != nil {
		return ""
	}
	return name
}

// askOnce is ask with the reason why none answers.
func (s *space) askOnce(ctx context.Context, pod *corev1.Pod) (string, error) {
	body, err := s.client.CoreV1().Pods(s.name).ProxyGet("http", pod.Name, "8080", "/", nil).DoRaw(ctx)
	if err != nil {
		return "", fmt.Errorf("%w: %s", err, body) // the body has the reason
	}
	var meta record.Meta
	err = json.Unmarshal(body, &meta)
	return meta.Pod, err
}

// underWay is how many requests of one asker a handover may lose: what it asked just
// before the old application's end, just before the end of that pod's agent, to which
// its standby may send it once more, and when that way there is broken off.
const underWay = 3

func ready(pod *corev1.Pod) bool {
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

// A running three-replica Deployment, the default rolling update, the two
// commands of the README.
//
// compat: kinds/deployment carried
func TestAnnotationPutOnAndTakenOffRollsOutBothWays(t *testing.T) {
	needLab(t, "it needs the record")
	t.Parallel()
	s := newSpace(t)
	// Exclusivity begins when the last pod from before the annotation is gone,
	// and ends with the first from after it.
	ungated := func(p record.Process) bool { return p.Slot == "" }
	s.tolerate = func(o record.Overlap) bool { return ungated(o.A) || ungated(o.B) }
	a := app{name: "biller"}
	s.create(a)
	s.mustKubectl("", "rollout", "status", "deployment/biller", rolloutTimeout)
	s.await(startTimeout, "all three run", func() bool { return len(s.record(a.name).Running(fresh)) == 3 })

	s.mustKubectl("", "annotate", "deployment/biller", api.SingletonAnnotation+"=true", api.LeaseDurationAnnotation+"="+lastingLease.String())
	s.mustKubectl("", "rollout", "status", "deployment/biller", rolloutTimeout)
	s.await(startTimeout, "one runs, and only one", func() bool { return len(s.record(a.name).Running(fresh)) == 1 })
	s.await(startTimeout, "the old pods are gone", func() bool { return len(s.all(a.name)) == 3 })
	first := s.awaitRunning(a, soon)
	// A process that is starved for a moment is there all the same.
	s.never(handover, "an end of it, or another beside it", func() bool {
		return holding{space: s, a: a}.process(first.ID).Ended || s.after(a, first) != nil
	})
	holder := s.awaitHolder(deploymentSlot(a.name))
	s.await(soon, "every pod is Ready and answers with the holder's application", func() bool {
		for _, pod := range s.all(a.name) {
			marked := pod.Labels[api.RoleLabel] == api.RoleHolder
			if !ready(pod) || s.ask(pod) != holder.Name || marked != (pod.Name == holder.Name) {
				return false
			}
		}
		return true
	})

	s.mustKubectl("", "annotate", "deployment/biller", api.SingletonAnnotation+"-", api.LeaseDurationAnnotation+"-")
	s.mustKubectl("", "rollout", "status", "deployment/biller", rolloutTimeout)
	s.await(startTimeout, "all three run", func() bool { return len(s.record(a.name).Running(fresh)) == 3 })
	for _, pod := range s.all(a.name) {
		if pod.DeletionTimestamp == nil {
			assert.Empty(t, pod.Labels[api.GatedLabel])
		}
	}
}

func TestReadinessHolderLeavesStandbysNotReady(t *testing.T) {
	t.Parallel()
	a := lasting("plainly")
	a.annotations[api.ReadinessAnnotation] = string(api.ReadinessHolder)
	h := deployHolding(t, a, "it needs the record")
	onlyHolder := func() bool {
		holder := h.holder(deploymentSlot(a.name))
		for _, pod := range h.all(a.name) {
			if pod.DeletionTimestamp == nil && ready(pod) != (holder != nil && pod.Name == holder.Name) {
				return false
			}
		}
		return holder != nil
	}
	h.await(startTimeout, "the holder alone is Ready", onlyHolder)
	h.deletePod(h.victim)
	h.await(startTimeout, "the next holder alone is Ready", func() bool {
		return h.after(a, h.before) != nil && h.pod(h.victim.Name) == nil && onlyHolder()
	})
}

// answers are what one asker heard.
type answers struct {
	mu sync.Mutex
	// pods are whose application answered, each change once; lost is why none did.
	pods, lost []string
}

func (a *answers) add(pod string, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case err != nil:
		a.lost = append(a.lost, err.Error())
	case len(a.pods) == 0 || a.pods[len(a.pods)-1] != pod:
		a.pods = append(a.pods, pod)
	}
}

func (a *answers) heard() (pods, lost []string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.pods), slices.Clone(a.lost)
}

// keepAsking asks a pod, one request after the other, until the answer is called.
func (s *space) keepAsking(pod *corev1.Pod) (*answers, func()) {
	ctx, cancel := context.WithCancel(s.Context())
	heard, done := &answers{}, make(chan struct{})
	go func() {
		defer close(done)
		ticker := time.NewTicker(turn)
		defer ticker.Stop()
		for ctx.Err() == nil {
			name, err := s.askOnce(ctx, pod)
			if ctx.Err() == nil {
				heard.add(name, err)
			}
			select {
			case <-ticker.C:
			case <-ctx.Done():
			}
		}
	}()
	stop := func() { cancel(); <-done }
	s.Cleanup(stop)
	return heard, stop
}

// A standby refuses nobody during a handover: what comes meanwhile is held and
// answered by the next holder. Lost is at most what was under way to the old one at
// its end. The Service in front of all pods then answers as before.
func TestServiceAnswersThroughAHandover(t *testing.T) {
	t.Parallel()
	a := lasting("served")
	a.args = []string{"-start-delay=3s"} // so that there is a meanwhile
	h := deployHolding(t, a, "it needs the record")
	service := h.service(h.a)
	h.mustKubectl("", "rollout", "status", "deployment/served", rolloutTimeout)
	asked := func() string {
		body, err := h.client.CoreV1().Services(h.name).ProxyGet("http", service.Name, "80", "/", nil).DoRaw(t.Context())
		var meta record.Meta
		if err != nil || json.Unmarshal(body, &meta) != nil {
			return ""
		}
		return meta.Pod
	}
	h.await(startTimeout, "the Service answers", func() bool { return asked() == h.before.Pod })
	heard := map[string]*answers{}
	for _, pod := range h.all(h.a.name) {
		if pod.Name != h.victim.Name {
			h.await(soon, "a standby answers", func() bool { return h.ask(pod) == h.before.Pod })
			all, stop := h.keepAsking(pod)
			defer stop()
			h.await(soon, "the holder answers those who keep asking", func() bool {
				pods, _ := all.heard()
				return len(pods) > 0
			})
			heard[pod.Name] = all
		}
	}
	h.deletePod(h.victim)
	var next *record.Process
	h.await(startTimeout, "another takes over", func() bool { next = h.after(h.a, h.before); return next != nil })
	// Who holds now has its port from the agent, and for a moment nobody listened.
	delete(heard, next.Pod)
	require.NotEmpty(t, heard)
	for standby, all := range heard {
		h.await(soon, "the next holder answers in "+standby, func() bool {
			pods, _ := all.heard()
			return slices.Contains(pods, next.Pod)
		})
		pods, lost := all.heard()
		assert.Equal(t, []string{h.before.Pod, next.Pod}, pods)
		t.Logf("%s: lost %q", standby, lost)
		assert.LessOrEqual(t, len(lost), underWay)
		assert.NotContains(t, strings.Join(lost, "\n"), "connection refused")
	}
	h.await(soon, "the Service answers with the next holder", func() bool { return asked() == next.Pod })
	// Whom a Service goes on sending requests to after its end is the cluster's affair.
	h.await(startTimeout, "the Service has forgotten the old one", func() bool {
		return h.pod(h.victim.Name) == nil && !slices.Contains(h.endpoints(service), h.victim.Name)
	})
	h.never(handover, "a request that nobody answers", func() bool { return asked() == "" })
}
