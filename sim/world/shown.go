// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package world

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/api"
)

// shown is the pod as the API server has stored it.
type shown struct {
	pod     *pod
	version int64
	text    []byte
	// ready is the endpoint of a pod of the gate "readiness", while the stored status is
	// Ready.
	ready *child
	// condition is the agent's condition, and cost the deletion cost.
	condition bool
	cost      int
	// deleted reports that the pod has been deleted at the instant deletedAt. Its object stays
	// until the kubelet has stopped the pod.
	deleted   bool
	deletedAt time.Duration
}

// patch stores a patch of the pod's status, unless the patch names another version.
func (s *shown) patch(patch []byte) ([]byte, error) {
	body := decode(patch)
	version := meta(body, "resourceVersion")
	delete(metadata(body), "resourceVersion")
	if version != "" && version != text(s.version) {
		return nil, status(409, "Conflict", "another resourceVersion")
	}
	if stored, ok := body["status"]; ok {
		if raw := encode(body); !bytes.Equal(raw, s.text) {
			s.version++
			s.text = raw
			s.show(encode(stored))
		}
	}
	if annotations, ok := metadata(body)["annotations"].(map[string]any); ok {
		cost, _ := annotations[api.DeletionCostAnnotation].(string)
		s.cost, _ = strconv.Atoi(cost) // no cost is 0
	}
	is := kube.Pod{ResourceVersion: text(s.version), Deleted: s.deleted}
	if is.Deleted {
		is.GraceLeft = max(0, s.deletedAt+s.pod.grace-s.pod.w.now())
	}
	return json.Marshal(is)
}

// show applies the readiness in the stored status.
func (s *shown) show(raw []byte) {
	var stored struct {
		Conditions []struct{ Type, Status string }
	}
	must(json.Unmarshal(raw, &stored))
	for _, c := range stored.Conditions {
		if c.Type != api.ReadyCondition {
			continue
		}
		s.condition = c.Status == "True"
		if s.pod.gate == api.GateReadiness {
			s.setReady(s.condition)
		}
	}
}

// setReady makes the pod an endpoint, or removes the endpoint.
func (s *shown) setReady(ready bool) {
	p := s.pod
	switch {
	case ready && s.ready == nil:
		p.w.serial++
		s.ready = &child{
			container: p.containers[0], where: p.name, name: fmt.Sprintf("endpoint-%d", p.w.serial),
			hold: p.grant.Hold, slots: p.grant.Slots, alive: true, began: p.w.now(),
		}
		p.w.checks.childBegins(s.ready)
	case !ready && s.ready != nil:
		c := s.ready
		s.ready = nil
		c.dies()
	}
}

// mostUntold bounds the time after which a kubelet learns of a deletion.
const mostUntold = 1500 * time.Millisecond

// delete deletes the pod as a controller or a person does. The kubelet stops the pod once
// the kubelet has learned of the deletion.
func (s *shown) delete() {
	if s.deleted {
		return
	}
	s.end()
	s.pod.w.note(s.pod.name, "pod is deleted")
	s.pod.w.after(between(s.pod.rng, time.Millisecond, mostUntold), s.learned)
}

// end notes the deletion.
func (s *shown) end() {
	if !s.deleted {
		s.deleted, s.deletedAt = true, s.pod.w.now()
	}
}

// learned stops the pod, as soon as its kubelet has a path to the API server.
func (s *shown) learned() {
	if n := s.pod.node; n.cutIn || n.cutOut || s.pod.w.api.away {
		s.pod.w.after(time.Second, s.learned)
		return
	}
	s.pod.stop()
}

// stays reports whether a controller counts the pod.
func (s *shown) stays() bool { return s.pod.object && !s.deleted }

// isReady reports whether the pod is Ready: its agent says so, and its containers are.
func (s *shown) isReady() bool {
	unready := func(c *container) bool { return !c.ready() }
	return s.stays() && s.condition && s.pod.node.up && !slices.ContainsFunc(s.pod.containers, unready)
}

// isPending reports whether no container has started yet.
func (s *shown) isPending() bool {
	return !slices.ContainsFunc(s.pod.containers, func(c *container) bool { return c.starts > 0 })
}

// restarts returns the restarts of the container that has restarted most often.
func (s *shown) restarts() int {
	most := 0
	for _, c := range s.pod.containers {
		most = max(most, c.starts-1)
	}
	return most
}
