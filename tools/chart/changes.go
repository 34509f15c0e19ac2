// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"slices"
)

// change replaces the lines [from, to) of a text. Helm makes the change if the condition is true.
type change struct {
	from, to  int
	lines     []string
	condition string
}

// compare returns the changes between two texts, by their longest common subsequence of lines.
func compare(before, after []string, condition string) (changes []change) {
	// common[i][j] is the length of the longest common subsequence of before[i:] and after[j:].
	common := make([][]int, len(before)+1)
	for i := range common {
		common[i] = make([]int, len(after)+1)
	}
	for i, a := range slices.Backward(before) {
		for j, b := range slices.Backward(after) {
			if common[i][j] = max(common[i+1][j], common[i][j+1]); a == b {
				common[i][j] = common[i+1][j+1] + 1
			}
		}
	}
	for i, j := 0, 0; i < len(before) || j < len(after); {
		if i < len(before) && j < len(after) && before[i] == after[j] {
			i, j = i+1, j+1
			continue
		}
		from, first := i, j
		for (i < len(before) || j < len(after)) && (i == len(before) || j == len(after) || before[i] != after[j]) {
			if j == len(after) || i < len(before) && common[i+1][j] >= common[i][j+1] {
				i++
			} else {
				j++
			}
		}
		changes = append(changes, change{from, i, after[first:j], condition})
	}
	return changes
}

// merge writes all changes into the text. Each change stands between the lines of its Helm
// condition. Several changes may add lines at one place, in the order of the argument "changes".
// Two changes that replace the same lines are an error.
func merge(text []string, changes []change) (merged []string, err error) {
	slices.SortStableFunc(changes, func(a, b change) int { return a.from - b.from })
	at := 0
	for _, c := range changes {
		if c.from < at {
			return nil, fmt.Errorf("line %d: two components replace the same lines", c.from+1)
		}
		merged = append(merged, text[at:c.from]...)
		if len(c.lines) > 0 {
			merged = append(merged, "{{- if "+c.condition+" }}\n")
			merged = append(merged, c.lines...)
			if c.to > c.from {
				merged = append(merged, "{{- else }}\n")
			}
		} else {
			merged = append(merged, "{{- if not ("+c.condition+") }}\n")
		}
		merged = append(merged, text[c.from:c.to]...)
		merged = append(merged, "{{- end }}\n")
		at = c.to
	}
	return append(merged, text[at:]...), nil
}
