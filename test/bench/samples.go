// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"slices"
	"time"
)

// samples are measured times.
type samples []time.Duration

// quantile returns the sample below which a part q of the samples lies.
func (s samples) quantile(q float64) time.Duration {
	if len(s) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(s))
	return sorted[min(int(q*float64(len(sorted))), len(sorted)-1)]
}

func (s samples) print(name string) {
	ms := func(d time.Duration) string { return fmt.Sprintf("%.1f", float64(d.Microseconds())/1000) }
	fmt.Printf("| %s | %d | %s | %s | %s |\n", name, len(s), ms(s.quantile(.5)), ms(s.quantile(.99)), ms(slices.Max(append(s, 0))))
}
