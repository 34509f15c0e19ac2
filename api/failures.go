// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	// firstFailureDelay and longestFailureDelay bound the result of [Failures.Delay]. The kubelet's
	// own back-off for a container that fails has the same bounds.
	firstFailureDelay   = 10 * time.Second
	longestFailureDelay = 5 * time.Minute
	// mostFailures bounds the count of failures, so that the text of the count stays short.
	mostFailures = 1_000_000
)

// MostFailing bounds the number of keys with failures in one Lease. The policy on Leases has the
// same bound. Each further key removes the oldest key.
const MostFailing = 8

// Failures is the value of [FailuresAnnotation]: how many times in a row the work of each key
// has failed, as KEY COUNT, comma-separated. A malformed part counts as no failure.
type Failures string

// Count returns how many times in a row the work of the key has failed.
func (f Failures) Count(key string) int {
	for _, part := range split(string(f)) {
		if name, text, _ := strings.Cut(part, " "); name == key && IsKey(key) {
			n, err := strconv.Atoi(text)
			if err != nil {
				return 0
			}
			return min(max(n, 0), mostFailures)
		}
	}
	return 0
}

// TimesInARow returns the text "1 time" for the number 1, and "n times in a row" for any other n.
func TimesInARow(n int) string {
	if n == 1 {
		return "1 time"
	}
	return strconv.Itoa(n) + " times in a row"
}

// Keys returns the keys with failures, the oldest first.
func (f Failures) Keys() []string {
	var keys []string
	for _, part := range split(string(f)) {
		if key, _, _ := strings.Cut(part, " "); f.Count(key) > 0 && !slices.Contains(keys, key) {
			keys = append(keys, key)
		}
	}
	return keys
}

// With returns f with one more failure of the key. For an empty key, the result is f.
func (f Failures) With(key string) Failures {
	if key == "" {
		return f
	}
	parts := split(string(f.Without(key)))
	parts = append(parts, key+" "+strconv.Itoa(min(f.Count(key)+1, mostFailures)))
	return Failures(strings.Join(parts[max(0, len(parts)-MostFailing):], ","))
}

// Without returns f without the failures of the key.
func (f Failures) Without(key string) Failures {
	var parts []string
	for _, other := range f.Keys() {
		if other != key {
			parts = append(parts, other+" "+strconv.Itoa(f.Count(other)))
		}
	}
	return Failures(strings.Join(parts, ","))
}

// Delay returns how long a pod with the key waits before the pod competes for the slot. The wait
// begins when the pod has seen the failures. The delay doubles with each failure, up to
// [longestFailureDelay]. Without a failure, the delay is zero.
func (f Failures) Delay(key string) time.Duration {
	n := f.Count(key)
	if n == 0 {
		return 0
	}
	return min(firstFailureDelay<<min(n-1, 10), longestFailureDelay)
}
