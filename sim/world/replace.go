// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package world

import (
	"maps"
	"slices"
	"time"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/sim/engine"
)

// Replace gives the name of the node to another machine. The old machine runs on without a network,
// so the world soon has no other faults for it. After the time "pause" the kubelet of the other
// machine starts the same pods. If "kept" is true, the other machine has copies of their volumes.
// Otherwise the volumes stay with the old machine, and the pods get empty ones. The node must be
// up, and must have no tenants.
func Replace(n *Node, kept bool, pause time.Duration) {
	w := n.w
	n.heir = w.newNode(n.Name, n.Name+" "+n.boot)
	w.Note(n.Name, "is another machine (boot %s, not %s, with the old volumes: %v)", n.heir.boot, n.boot, kept)
	w.Nodes[slices.Index(w.Nodes, n)] = n.heir
	w.API.Watches.Severed()
	for _, p := range n.Pods() {
		if p.Object && !p.Stopping {
			w.After(pause, moveTo(p, n.heir, kept).startAll)
		}
	}
}

// Sound reports whether the machine runs, and is neither suspended nor paused.
func Sound(n *Node) bool { return n.Up && !n.frozen && !n.Paused }

// moveTo makes the pod anew on the machine that has replaced the pod's node. The processes on the
// old machine stay, but they have no object any more.
func moveTo(p *Pod, n *Node, kept bool) *Pod {
	w := p.w
	next := &Pod{
		Template: p.Template, w: w, Name: p.Name, uid: p.uid, Node: n, rng: w.Source(p.Name + p.uid + n.boot),
		Key: p.Key, Job: p.Job, contact: p.contact, Orphaned: p.Orphaned, Object: true, Shown: p.Shown,
	}
	p.heir, p.Object, p.Shown.ready = next, false, nil
	furnish(next)
	// The numbers of processes go on far above those of the old machine. So each process has a name
	// and a random source of its own.
	next.agentRuns = p.agentRuns + farBeyond
	for i, c := range p.Containers {
		next.Containers[i].starts = c.starts + farBeyond
	}
	if kept {
		next.volume, next.notes, next.boots, next.course = maps.Clone(p.volume), maps.Clone(p.notes), p.boots, p.course
	} else if p.Gate != api.GateReadiness {
		next.earlier = next.agentRuns
	}
	if next.Shown.ready != nil {
		next.Shown.ready.Container = next.Containers[0] // the API server still has the pod's status
	}
	if next.Shown.deleted {
		w.After(engine.Between(next.rng, time.Millisecond, MostUntold), next.Shown.learned)
	}
	w.Pods = append(w.Pods, next)
	return next
}

// farBeyond is greater than the number of processes that a container has in a story.
const farBeyond = 1000
