// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"slices"

	"github.com/metaparticle-io/metaparticle/sim/world"
)

// DaemonSet models the controller of a DaemonSet with maxUnavailable 1, by its source in
// Kubernetes 1.37. Each node has one pod.
type DaemonSet struct{ *Workload }

// on returns the workload's pod on the node; nil for none.
func (d DaemonSet) on(n *world.Node) *world.Pod {
	all := d.All()
	if i := slices.IndexFunc(all, func(p *world.Pod) bool { return p.Node == n }); i >= 0 {
		return all[i]
	}
	return nil
}

// sync makes the pods that are missing, and deletes old pods. The method deletes each old pod
// that is not available. While no pod is unavailable, the method also deletes one old pod that is
// available.
func (d DaemonSet) sync() {
	unavailable := 0
	var old []*world.Pod
	for _, i := range d.random.Perm(len(d.Nodes)) {
		n := d.Nodes[i]
		p := d.on(n)
		switch {
		case p == nil:
			d.start(d.Newest, n, "")
			unavailable++
		case d.Available(p) && !d.Updated(p):
			old = append(old, p)
		case !d.Available(p):
			unavailable++
			if !d.Updated(p) {
				p.Shown.Delete()
			}
		}
	}
	if unavailable == 0 && len(old) > 0 {
		old[0].Shown.Delete()
	}
}
