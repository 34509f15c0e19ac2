// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
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
