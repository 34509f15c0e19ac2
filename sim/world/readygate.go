// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package world

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/metaparticle-io/metaparticle/agent"
	"github.com/metaparticle-io/metaparticle/agent/gate"
	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/agent/podgate"
	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/sim/apiserver"
	"github.com/metaparticle-io/metaparticle/sim/engine"
)

// shown is the pod as the API server has stored it.
type shown struct {
	pod     *Pod
	version int64
	text    []byte
	// ready is a child that the world makes up for a pod of the gate "readiness". The made-up
	// child lives while the stored status is Ready.
	ready *Child
	// condition reports that the agent's pod condition in the stored status is true. The field Cost
	// is the pod's deletion cost.
	condition bool
	// unreadyAt is the instant at which that condition last became false, and readyAt the last one at which
	// it was stored as true.
	unreadyAt, readyAt time.Duration
	Cost               int
	// deleted reports that the pod has been deleted at the instant deletedAt. The pod's object
	// stays until the kubelet has stopped the pod.
	deleted   bool
	deletedAt time.Duration
}

// readyGate is the real gate [podgate.Readiness], and also notes each grant in the simulated pod.
type readyGate struct {
	*podgate.Readiness
	a *AgentProcess
}

// Grant implements agent.Gate.
func (g readyGate) Grant(id gate.ShimID, grant gate.Grant) error {
	err := g.Readiness.Grant(id, grant)
	if err == nil {
		g.a.Pod.w.Do(func() { g.a.Pod.granted(grant) })
	}
	return err
}

// runReadiness runs the agent's process in a pod of the gate "readiness".
func (a *AgentProcess) runReadiness(config agent.Config) error {
	g := podgate.NewReadiness(agentMachine{a}.Now)
	config.Gate = readyGate{g, a}
	return a.serve(config, g.Run)
}

// patch stores a patch of the pod's status, and returns the pod. If the patch names a
// resourceVersion other than the stored one, the result is a conflict. For a pod of the gate
// "readiness" that has no object, the result is the error NotFound.
func (s *shown) patch(patch []byte) ([]byte, error) {
	if p := s.pod; !p.Object && p.Gate == api.GateReadiness {
		return nil, apiserver.Status(404, "NotFound", "Pod "+p.Name)
	}
	body := apiserver.Decode(patch)
	version := apiserver.Meta(body, "resourceVersion")
	delete(apiserver.Metadata(body), "resourceVersion")
	if version != "" && version != strconv.FormatInt(s.version, 10) {
		return nil, apiserver.Status(409, "Conflict", "another resourceVersion")
	}
	if stored, ok := body["status"]; ok {
		if raw := apiserver.Encode(body); !bytes.Equal(raw, s.text) {
			s.version++
			s.text = raw
			s.show(apiserver.Encode(stored))
		}
	}
	if annotations, ok := apiserver.Metadata(body)["annotations"].(map[string]any); ok {
		cost, _ := annotations[api.DeletionCostAnnotation].(string)
		s.Cost, _ = strconv.Atoi(cost) // without the annotation the cost is 0
	}
	is := kube.Pod{ResourceVersion: strconv.FormatInt(s.version, 10), Deleted: s.deleted}
	if is.Deleted {
		is.GraceLeft = max(0, s.deletedAt+s.pod.Grace-s.pod.w.Now())
	}
	return json.Marshal(is)
}

// show reads the agent's pod condition from the stored status. With the gate "readiness", that pod
// condition makes the pod Ready or not Ready.
func (s *shown) show(raw []byte) {
	var stored struct {
		Conditions []struct{ Type, Status string }
	}
	engine.Must(json.Unmarshal(raw, &stored))
	for _, c := range stored.Conditions {
		if c.Type != api.ReadyCondition {
			continue
		}
		if s.condition = c.Status == "True"; s.condition {
			s.readyAt = s.pod.w.Now()
		} else if s.unreadyAt < s.readyAt {
			s.unreadyAt = s.pod.w.Now()
		}
		if s.pod.Gate == api.GateReadiness {
			s.setReady(s.condition)
		}
	}
}

// setReady begins a child when a pod of the gate "readiness" becomes Ready, and ends that
// child when the pod becomes not Ready. The world judges the pod by that child.
func (s *shown) setReady(ready bool) {
	p := s.pod
	switch {
	case ready && s.ready == nil:
		s.ready = &Child{
			Container: p.Containers[0], where: p.Name, Name: fmt.Sprintf("endpoint-%d", p.w.Number()),
			Hold: p.grant.Hold, Slots: slotTokens(&p.grant), Alive: true, Began: p.w.Now(),
		}
		p.w.Checks.childBegins(s.ready)
	case !ready && s.ready != nil:
		c := s.ready
		s.ready = nil
		c.dies()
	}
}

// MostUntold bounds the time after which a kubelet learns of a deletion.
const MostUntold = 1500 * time.Millisecond

// Delete deletes the pod as a controller or a person does. The kubelet stops the pod once
// the kubelet has learned of the deletion.
func (s *shown) Delete() {
	if s.deleted {
		return
	}
	s.end()
	s.pod.w.Note(s.pod.Name, "pod is deleted")
	s.pod.w.After(engine.Between(s.pod.rng, time.Millisecond, MostUntold), s.learned)
}

// end notes the deletion.
func (s *shown) end() {
	if !s.deleted {
		s.deleted, s.deletedAt = true, s.pod.w.Now()
	}
}

// learned stops the pod, as soon as its kubelet has a path to the API server.
func (s *shown) learned() {
	if n := s.pod.Node; !n.online() || s.pod.w.API.Away {
		s.pod.w.After(time.Second, s.learned)
		return
	}
	s.pod.Stop()
}

// Stays reports whether the pod exists and is not deleted. A controller counts no other pod.
func (s *shown) Stays() bool { return s.pod.Object && !s.deleted }

// IsReady reports whether the pod is Ready: the agent's pod condition is true, and all containers
// of the pod are ready.
func (s *shown) IsReady() bool {
	unready := func(c *container) bool { return !c.seemsReady() }
	return s.Stays() && s.condition && s.pod.Node.Up && !slices.ContainsFunc(s.pod.Containers, unready)
}

// seemsReady reports whether the kubelet counts the container as ready. In a pod of a proven
// revision and a strict controller, the kubelet's probe passes while the child starts.
func (c *container) seemsReady() bool {
	runs := len(c.Shims) > 0 && !c.Shims[len(c.Shims)-1].Dead
	return c.ready() || runs && c.pod.Strict && c.proven()
}

// proven reports whether the Lease of the pod's slot names the pod's revision as proven.
func (c *container) proven() bool {
	l, ok := c.pod.w.API.Lease(c.pod.Slots[0])
	return ok && c.pod.Revision.Same(RolloutOf(l).Proven)
}

// IsPending reports whether no container has started yet.
func (s *shown) IsPending() bool {
	return !slices.ContainsFunc(s.pod.Containers, func(c *container) bool { return c.starts > 0 })
}

// Restarts returns the restarts of the container that has restarted most often.
func (s *shown) Restarts() int {
	most := 0
	for _, c := range s.pod.Containers {
		most = max(most, c.starts-1)
	}
	return most
}

// serve runs a gate without shims, and the agent, as cmd/agent does.
func (a *AgentProcess) serve(config agent.Config, gate func(context.Context) error) error {
	config.Containers, config.InitContainers, config.Granted = []string{podgate.Container}, nil, nil
	made, err := agent.New(config)
	engine.Must(err)
	a.Pod.w.Do(func() { a.agent = made })
	return agent.Serve(a.Process.Ctx, gate, func(ctx context.Context) error { return made.Run(ctx, a.stop) })
}
