// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package samples has the measured times of a benchmark.
package samples

import (
	"fmt"
	"slices"
	"time"
)

// Times are the samples of one measurement.
type Times []time.Duration

// Quantile returns the sample below which the fraction q of all samples lies.
func (s Times) Quantile(q float64) time.Duration {
	if len(s) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(s))
	return sorted[min(int(q*float64(len(sorted))), len(sorted)-1)]
}

// Print prints a row of a table, in milliseconds.
func (s Times) Print(name string) {
	ms := func(d time.Duration) string { return fmt.Sprintf("%.1f", float64(d.Microseconds())/1000) }
	fmt.Printf("| %s | %d | %s | %s | %s |\n", name, len(s), ms(s.Quantile(.5)), ms(s.Quantile(.99)), ms(slices.Max(append(s, 0))))
}
