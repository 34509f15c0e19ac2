// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package api

import "slices"

// Marks returns the entries of [SlotsAnnotation] for a pod of the workload. The entries are the
// slots of [Request.Slots], and a text for each Variable and each barrier that the pod's program
// uses. No Lease of a slot has such a text as its name.
func (r Request) Marks(of Workload) []string {
	marks := r.Slots(of)
	for _, name := range r.Variables() {
		marks = append(marks, variableMark(name))
	}
	for _, b := range BarriersOf(r.Claimed) {
		marks = append(marks, localBarrier(b))
	}
	slices.Sort(marks)
	return marks
}

// BarriersOf returns the barriers at which the pod's program waits by the local API.
func BarriersOf(claims []Claim) (barriers []Barrier) {
	for _, c := range claims {
		if c.Kind == Arrivals {
			barriers = append(barriers, Barrier{Name: c.Name, Size: c.Size})
		}
	}
	return barriers
}

// localBarrier returns the text of the barrier in the annotation of the local API.
func localBarrier(b Barrier) string { return "barrier/" + b.String() }
