// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/cli-runtime/pkg/printers"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/console/view"
)

// columns are those of the table of slots. The ones with a priority are shown by -o wide.
var columns = []metav1.TableColumnDefinition{
	{Name: "Namespace"}, {Name: "Slot"}, {Name: "Holder"}, {Name: "Node"}, {Name: "Held"}, {Name: "Standbys"}, {Name: "Status"},
	{Name: "Serves", Priority: 1}, {Name: "Renewed", Priority: 1}, {Name: "Token", Priority: 1}, {Name: "Last handover", Priority: 1},
}

// table writes a line for each slot. A read-write lock has a line for each pod that reads or writes.
func (v screen) table(out io.Writer, slots []view.Slot, state objects, namespaces bool) error {
	t := &metav1.Table{ColumnDefinitions: columns}
	if !namespaces {
		t.ColumnDefinitions = columns[1:]
	}
	nodes := state.nodes()
	for _, cells := range v.lines(slots) {
		cells[3] = nodes[cells[3]]
		if !namespaces {
			cells = cells[1:]
		}
		var row metav1.TableRow
		for _, cell := range cells {
			row.Cells = append(row.Cells, inOneLine(cell))
		}
		t.Rows = append(t.Rows, row)
	}
	return printers.NewTablePrinter(printers.PrintOptions{Wide: v.output == "wide", NoHeaders: v.bare}).PrintObj(t, out)
}

// lines returns the cells of each line. In place of the node, there is the holder's identity.
func (v screen) lines(slots []view.Slot) (lines [][]string) {
	locks := locksOf(slots)
	for _, s := range slots {
		lock := locks[s.Group()]
		if s.Kind != view.RWLock {
			lines = append(lines, v.line(s, s.Slot, s.Holder, v.status(s)))
		} else if lock != nil {
			lines = append(lines, v.lockLines(lock)...)
			delete(locks, s.Group())
		}
	}
	return lines
}

// locksOf returns the slots of each read-write lock. A tenant can make thousands of locks, so the slots
// are sorted into locks only once.
func locksOf(slots []view.Slot) map[string][]view.Slot {
	locks := map[string][]view.Slot{}
	for _, s := range slots {
		if s.Kind == view.RWLock {
			locks[s.Group()] = append(locks[s.Group()], s)
		}
	}
	return locks
}

func (v screen) lockLines(lock []view.Slot) (lines [][]string) {
	first := lock[0]
	first.Standbys = standbysOf(lock)
	name := lockOf(first.Slot)
	for _, p := range possessions(lock) {
		role := "Reads"
		switch {
		case p.writes:
			role = "Writes"
		case p.waits:
			role = "WaitsToWrite"
		}
		lines = append(lines, v.line(first, name, p.slots[0].Holder, role))
	}
	if len(lines) == 0 {
		return [][]string{v.line(first, name, nil, v.status(first))}
	}
	return lines
}

func (v screen) line(s view.Slot, name string, h *view.Holder, status string) []string {
	cells := []string{s.Namespace, name, "<none>", "", "", fmt.Sprint(len(s.Standbys)), status, "", "", "", ""}
	if len(s.Handovers) > 0 {
		last := s.Handovers[0]
		cells[10] = handoverText(last) + ", " + age(v.now(), last.At) + " ago"
	}
	if h == nil {
		return cells
	}
	cells[2], cells[3], cells[9] = h.Pod, h.Identity, h.Token
	if h.Since != nil {
		cells[4] = age(v.now(), *h.Since)
	}
	if h.ServingSince != nil {
		cells[7] = age(v.now(), *h.ServingSince)
	}
	if h.Renewed != nil {
		cells[8] = age(v.now(), *h.Renewed) + " ago"
	}
	return cells
}

// status returns the state of a slot in a few words, what needs attention first.
func (v screen) status(s view.Slot) string {
	var all []string
	for _, g := range s.Gaps {
		if g.Ungated > 0 {
			all = append(all, fmt.Sprintf("Ungated(%d)", g.Ungated))
		}
		if g.NotCarried {
			all = append(all, "NotCarried")
		}
		if g.Refused != "" {
			all = append(all, "Refused")
		}
	}
	switch h := s.Holder; {
	case s.Kind == view.Mistake:
	case s.Missing:
		all = append(all, "NoLease")
	case h == nil && s.Opened > 0:
		all = append(all, "Open")
	case h == nil && worked(s):
		all = append(all, "Done")
	case h == nil && s.Paused == "":
		all = append(all, "Free")
	case h == nil:
	case h.Gone:
		all = append(all, "HolderGone")
	case h.Deleted:
		all = append(all, "HolderEnds")
	case h.ServingSince != nil:
		all = append(all, "Serving")
	case h.Starting:
		all = append(all, "Starting")
	case h.Hold != "" && s.Kind != view.Once:
		all = append(all, "NotServing")
	default:
		all = append(all, "Held")
	}
	if s.Paused != "" {
		all = append(all, "Paused("+string(s.Paused)+")")
	}
	if s.Yield != "" && s.Holder != nil && api.ParseYield(s.Yield).Hold == s.Holder.Hold {
		all = append(all, "Yielding")
	}
	if t := s.Talk; t != nil && t.Leaves {
		all = append(all, "Leaving")
	} else if t != nil {
		all = append(all, "Wished")
	}
	if w := s.Waits; w != nil && w.Until != nil {
		all = append(all, "RolloutWaits("+age(*w.Until, v.now())+")")
	} else if w != nil {
		all = append(all, "RolloutWaits")
	}
	for _, key := range slices.Sorted(maps.Keys(s.Failures)) {
		all = append(all, fmt.Sprintf("Failed(%s)", key))
	}
	return strings.Join(all, ",")
}

// nodes returns the node of each pod, by the pod's identity.
func (o objects) nodes() map[string]string {
	nodes := make(map[string]string, len(o.pods))
	for _, pod := range o.pods {
		nodes[view.IdentityOf(*pod)] = pod.Spec.NodeName
	}
	return nodes
}
