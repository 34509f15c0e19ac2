// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package proof

import (
	"slices"

	"github.com/metaparticle-io/metaparticle/agent/gate"
)

// The type "reports" has the last report of each shim, in the order in which the shims started.
type reports []gate.Report

// index returns the index of the shim's report, or -1 for an unknown or dead shim.
func (all reports) index(id gate.ShimID) int {
	return slices.IndexFunc(all, func(r gate.Report) bool { return r.Shim == id })
}

// last returns the shim's last report. The second result is false for a shim that is unknown or
// dead.
func (all reports) last(id gate.ShimID) (gate.Report, bool) {
	if at := all.index(id); at >= 0 {
		return all[at], true
	}
	return gate.Report{}, false
}

// put returns the reports in which this report replaces the last report of the same shim. The
// report of a new shim is inserted after the reports of all shims that started earlier or at the
// same instant.
func (all reports) put(r gate.Report) reports {
	if at := all.index(r.Shim); at >= 0 {
		all[at] = r
		return all
	}
	at := slices.IndexFunc(all, func(k gate.Report) bool { return k.Began > r.Began })
	if at < 0 {
		at = len(all)
	}
	return slices.Insert(all, at, r)
}

// fresher reports whether a connected shim of the same container follows the shim at the index i.
// Such a shim started later, or at the same instant.
func (all reports) fresher(i int) bool {
	return slices.ContainsFunc(all[i+1:], func(other gate.Report) bool {
		return other.Container == all[i].Container && other.Connected
	})
}

// grants has, for each hold, the shims that may have a child of that hold.
type grants map[string][]gate.ShimID

// The method "of" returns true if any shim may have a child of the hold.
func (g grants) of(hold string) bool { return len(g[hold]) > 0 }

// has reports whether the shim may have a child of the hold.
func (g grants) has(hold string, id gate.ShimID) bool { return slices.Contains(g[hold], id) }

func (g grants) add(hold string, id gate.ShimID) {
	if !g.has(hold, id) {
		g[hold] = append(g[hold], id)
	}
}

func (g grants) clear(hold string, id gate.ShimID) {
	left := slices.DeleteFunc(g[hold], func(other gate.ShimID) bool { return other == id })
	if len(left) == 0 {
		delete(g, hold)
		return
	}
	g[hold] = left
}

// clearAll remembers that the shim has no child of any hold.
func (g grants) clearAll(id gate.ShimID) {
	for hold := range g {
		g.clear(hold, id)
	}
}
