// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/app"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/cluster"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/holder"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/kubectl"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/lease"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/space"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/status"
	"github.com/metaparticle-io/metaparticle/test/e2e/record"
)

// underWay bounds the requests of one client that a handover may lose. A first request arrives at
// the old holder's application just before this application ends. A second arrives at the old
// holder's agent just before this agent ends. A third is under way when the connection from a
// standby to the old holder breaks.
const underWay = 3

// A Deployment of three replicas rolls out when its claim is added, and again when the claim is
// removed.
//
// docs/compatibility.md: kinds/deployment carried
func TestClaimAdditionAndRemovalRollOutTheDeployment(t *testing.T) {
	cluster.NeedLab(t, "it needs the record")
	t.Parallel()
	s := space.New(t)
	// Ungated processes may run beside all others. The slot is exclusive only from the end of the
	// last ungated process until the start of the next ungated process.
	ungated := func(p record.Process) bool { return p.Slot == "" }
	s.Tolerate = func(o record.Overlap) bool { return ungated(o.A) || ungated(o.B) }
	a := app.App{Name: "biller"}
	app.Create(s, a)
	kubectl.Must(s, "", "rollout", "status", "deployment/biller", kubectl.RolloutTimeout)
	s.Await(space.StartTimeout, "all three run", func() bool { return len(s.Record(a.Name).Running(space.Fresh)) == 3 })

	kubectl.Must(s, "", "annotate", "deployment/biller", api.SingletonAnnotation+"=true", api.LeaseDurationAnnotation+"="+lease.Lasting.String())
	kubectl.Must(s, "", "rollout", "status", "deployment/biller", kubectl.RolloutTimeout)
	s.Await(space.StartTimeout, "one runs, and only one", func() bool { return len(s.Record(a.Name).Running(space.Fresh)) == 1 })
	s.Await(space.StartTimeout, "the old pods are gone", func() bool { return len(s.Pods(a.Name)) == 3 })
	first := app.AwaitRunning(s, a, space.Soon)
	// The test looks for a recorded end. Late time stamps prove no end, because a living process
	// that starves writes them late, too.
	s.Never(lease.Handover, "an end of it, or another beside it", func() bool {
		return holder.Holder{Space: s, App: a}.Process(first.ID).Ended || app.After(s, a, first) != nil
	})
	holder := s.AwaitHolder(lease.OfDeployment(a.Name))
	s.Await(space.Soon, "every pod is Ready and answers with the holder's application", func() bool {
		for _, pod := range s.Pods(a.Name) {
			marked := pod.Labels[api.RoleLabel] == api.RoleHolder
			if !status.Ready(pod) || app.Ask(s, pod) != holder.Name || marked != (pod.Name == holder.Name) {
				return false
			}
		}
		return true
	})

	kubectl.Must(s, "", "annotate", "deployment/biller", api.SingletonAnnotation+"-", api.LeaseDurationAnnotation+"-")
	kubectl.Must(s, "", "rollout", "status", "deployment/biller", kubectl.RolloutTimeout)
	s.Await(space.StartTimeout, "all three run", func() bool { return len(s.Record(a.Name).Running(space.Fresh)) == 3 })
	// The rollout may end before the last old pod is deleted, so the test also waits for
	// that deletion.
	s.Await(space.StartTimeout, "no pod has a gate", func() bool {
		return !slices.ContainsFunc(s.Pods(a.Name), func(pod *corev1.Pod) bool { return pod.Labels[api.GatedLabel] != "" })
	})
}

func TestOnlyHolderIsReadyIfAnnotationSaysHolder(t *testing.T) {
	t.Parallel()
	a := app.Lasting("plainly")
	a.Annotations[api.ReadinessAnnotation] = string(api.ReadinessHolder)
	h := holder.Deploy(t, a, "it needs the record")
	onlyHolder := func() bool {
		holder := h.Holder(lease.OfDeployment(a.Name))
		for _, pod := range h.Pods(a.Name) {
			if pod.DeletionTimestamp == nil && status.Ready(pod) != (holder != nil && pod.Name == holder.Name) {
				return false
			}
		}
		return holder != nil
	}
	h.Await(space.StartTimeout, "the holder alone is Ready", onlyHolder)
	app.DeletePod(h.Space, h.Victim)
	h.Await(space.StartTimeout, "the next holder alone is Ready", func() bool {
		return app.After(h.Space, a, h.Before) != nil && h.Pod(h.Victim.Name) == nil && onlyHolder()
	})
}

// answers collects the answers to one client.
type answers struct {
	mu sync.Mutex
	// The field named pods has the names of the pods that answered. If one pod answers several
	// times in a row, the field has its name once. The field named lost has the errors of failed
	// requests.
	pods, lost []string
}

// add adds an answer or an error.
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

// heard returns the answers and errors so far.
func (a *answers) heard() (pods, lost []string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.pods), slices.Clone(a.lost)
}

// keepAsking sends one request after the other to a pod, and collects the answers, until the
// returned function is called.
func keepAsking(s *space.Space, pod *corev1.Pod) (*answers, func()) {
	ctx, cancel := context.WithCancel(s.Context())
	heard, done := &answers{}, make(chan struct{})
	go func() {
		defer close(done)
		ticker := time.NewTicker(space.CheckInterval)
		defer ticker.Stop()
		for ctx.Err() == nil {
			name, err := app.AskOnce(s, ctx, pod)
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

// During a handover a standby lets new requests wait, and the next holder answers them.
// Only requests that were under way to the old holder may be lost. Afterwards the Service
// answers as before.
func TestServiceAnswersDuringAHandover(t *testing.T) {
	t.Parallel()
	a := app.Lasting("served")
	a.Args = []string{"-start-delay=3s"} // so that the handover takes a while
	h := holder.Deploy(t, a, "it needs the record")
	service := app.Service(h.Space, h.App)
	kubectl.Must(h.Space, "", "rollout", "status", "deployment/served", kubectl.RolloutTimeout)
	asked := func() string {
		body, err := h.Client.CoreV1().Services(h.Namespace).ProxyGet("http", service.Name, "80", "/", nil).DoRaw(t.Context())
		var meta record.Meta
		if err != nil || json.Unmarshal(body, &meta) != nil {
			return ""
		}
		return meta.Pod
	}
	h.Await(space.StartTimeout, "the Service answers", func() bool { return asked() == h.Before.Pod })
	heard := map[string]*answers{}
	for _, pod := range h.Pods(h.App.Name) {
		if pod.Name != h.Victim.Name {
			h.Await(space.Soon, "a standby answers", func() bool { return app.Ask(h.Space, pod) == h.Before.Pod })
			all, stop := keepAsking(h.Space, pod)
			defer stop()
			h.Await(space.Soon, "the holder answers those who keep asking", func() bool {
				pods, _ := all.heard()
				return len(pods) > 0
			})
			heard[pod.Name] = all
		}
	}
	app.DeletePod(h.Space, h.Victim)
	var next *record.Process
	h.Await(space.StartTimeout, "another takes over", func() bool { next = app.After(h.Space, h.App, h.Before); return next != nil })
	// The test leaves out the new holder's pod. In that pod no process listened for a
	// moment, because the application took the port over from the agent.
	delete(heard, next.Pod)
	require.NotEmpty(t, heard)
	for standby, all := range heard {
		h.Await(space.Soon, "the next holder answers in "+standby, func() bool {
			pods, _ := all.heard()
			return slices.Contains(pods, next.Pod)
		})
		pods, lost := all.heard()
		assert.Equal(t, []string{h.Before.Pod, next.Pod}, pods)
		t.Logf("%s: lost %q", standby, lost)
		assert.LessOrEqual(t, len(lost), underWay)
		assert.NotContains(t, strings.Join(lost, "\n"), "connection refused")
	}
	h.Await(space.Soon, "the Service answers with the next holder", func() bool { return asked() == next.Pod })
	// The cluster's proxies may send requests to the deleted pod for a while, so the test
	// waits until the endpoint of this pod is gone.
	h.Await(space.StartTimeout, "the Service has forgotten the old one", func() bool {
		return h.Pod(h.Victim.Name) == nil && !slices.Contains(app.Endpoints(h.Space, service), h.Victim.Name)
	})
	h.Never(lease.Handover, "a request that nobody answers", func() bool { return asked() == "" })
}
