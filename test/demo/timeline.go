// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// note adds a line about the start or the end of a process, or about a client's answer. The
// argument "at" is the instant of that event.
func (s *scene) note(at time.Duration, text string) {
	s.lines = append(s.lines, line{at: at, text: text})
}

// noteWrite adds a write of the Lease. The method "stamp" adds the instant later, by the
// API server's clock, because the watch may report the write late.
func (s *scene) noteWrite(text string) {
	s.lines = append(s.lines, line{text: text, before: s.version})
}

// stamp gives each write the instant at which the write reached the API server.
func (s *scene) stamp() error {
	for i, l := range s.lines {
		if l.before == "" {
			continue
		}
		at, err := s.writes.received(l.before)
		if err != nil {
			return fmt.Errorf("time of %q: %w", l.text, err)
		}
		s.lines[i].at = at
	}
	return nil
}

func (s *scene) noted(word string) bool {
	return slices.ContainsFunc(s.lines, func(l line) bool { return strings.Contains(l.text, word) })
}

// ordered returns the lines in the order of their instants. Events of the kernel and of
// the API server may arrive in another order.
func (s *scene) ordered() []line {
	return slices.SortedStableFunc(slices.Values(s.lines), func(a, b line) int { return cmp.Compare(a.at, b.at) })
}

// print prints the timeline.
func (s *scene) print() {
	fmt.Println("\n    Processes: when the kernel started or ended them. Slot: when the write reached the API server.")
	before := s.struck
	for _, l := range s.ordered() {
		fmt.Printf("    %9.1f ms  (+%.1f)  %s\n", milliseconds(l.at-s.struck), milliseconds(l.at-before), l.text)
		before = l.at
	}
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// outcome is the line of the verdict about one fault. All instants count from the fault.
type outcome struct {
	title                 string
	dead, started, silent time.Duration
}

func (s *scene) outcome(title string) outcome {
	return outcome{title: title, dead: s.dead - s.struck, started: s.started - s.struck, silent: s.silent}
}

// verdict returns the table of all faults. The overlap is the time in which both processes were alive,
// by the kernel's record.
func verdict(all []outcome) string {
	var text strings.Builder
	w := tabwriter.NewWriter(&text, 0, 0, 3, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "EVENT\tOLD PROCESS DEAD\tNEXT STARTED\tNO ANSWER FOR\tBOTH ALIVE\t")
	for _, o := range all {
		fmt.Fprintf(w, "%s\t%.1f ms\t%.1f ms\t%.0f ms\t%.0f ms\t\n",
			o.title, milliseconds(o.dead), milliseconds(o.started), milliseconds(o.silent), milliseconds(max(0, o.dead-o.started)))
	}
	w.Flush()
	return text.String()
}
