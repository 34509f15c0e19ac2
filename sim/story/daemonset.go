// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package story

import (
	"slices"

	"github.com/metaparticle-io/metaparticle/sim/world"
)

// daemonSet models the controller of a DaemonSet with maxUnavailable 1, by its source in
// Kubernetes 1.37. Each node has one pod.
type daemonSet struct{ *workload }

// on returns the workload's pod on the node; nil for none.
func (d daemonSet) on(n *world.Node) *world.Pod {
	all := d.all()
	if i := slices.IndexFunc(all, func(p *world.Pod) bool { return p.Node == n }); i >= 0 {
		return all[i]
	}
	return nil
}

// sync makes the pods that are missing, and deletes old pods. The method deletes each old pod that
// is not available. While no pod is unavailable, the method also deletes one old pod that is
// available.
func (d daemonSet) sync() {
	unavailable := 0
	var old []*world.Pod
	for _, i := range d.random.Perm(len(d.Nodes)) {
		n := d.Nodes[i]
		p := d.on(n)
		switch {
		case p == nil:
			d.start(d.newest, n, "")
			unavailable++
		case d.available(p) && !d.updated(p):
			old = append(old, p)
		case !d.available(p):
			unavailable++
			if !d.updated(p) {
				p.Shown.Delete()
			}
		}
	}
	if unavailable == 0 && len(old) > 0 {
		old[0].Shown.Delete()
	}
}
