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

func (s *scene) note(at time.Duration, text string) { s.lines = append(s.lines, line{at, text}) }

func (s *scene) noted(word string) bool {
	return slices.ContainsFunc(s.lines, func(l line) bool { return strings.Contains(l.text, word) })
}

// print prints the time line, in order: the kernel's news and the API server's
// come by different ways.
func (s *scene) print() {
	slices.SortStableFunc(s.lines, func(a, b line) int { return cmp.Compare(a.at, b.at) })
	fmt.Println()
	before := s.struck
	for _, l := range s.lines {
		fmt.Printf("    %9.1f ms  (+%.1f)  %s\n", milliseconds(l.at-s.struck), milliseconds(l.at-before), l.text)
		before = l.at
	}
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
