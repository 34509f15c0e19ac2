// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"strconv"
	"strings"
	"time"
)

const (
	// firstFailureDelay and longestFailureDelay are the bounds of the kubelet's own back-off
	// for a container that fails.
	firstFailureDelay   = 10 * time.Second
	longestFailureDelay = 5 * time.Minute
	// mostFailures bounds the count, so that its text stays short.
	mostFailures = 1_000_000
)

// Failures is the value of [FailuresAnnotation]: how many times in a row the work of one key
// has failed. The zero value stands for none.
type Failures struct {
	Key   string
	Count int
}

// ParseFailures reads the text KEY COUNT. A malformed text stands for no failures, because
// failures only delay the next attempt.
func ParseFailures(text string) Failures {
	key, count, _ := strings.Cut(text, " ")
	n, err := strconv.Atoi(count)
	if err != nil || n < 1 || n > mostFailures || !isKey(key) {
		return Failures{}
	}
	return Failures{Key: key, Count: n}
}

// String returns the text that [ParseFailures] reads; empty for no failures.
func (f Failures) String() string {
	if f.Count == 0 {
		return ""
	}
	return f.Key + " " + strconv.Itoa(f.Count)
}

// With returns the failures after another failure of the key; f itself for an empty key.
func (f Failures) With(key string) Failures {
	switch key {
	case "":
		return f
	case f.Key:
		return Failures{Key: key, Count: min(f.Count+1, mostFailures)}
	}
	return Failures{Key: key, Count: 1}
}

// Delay returns the time from the last failure to the next attempt. The time doubles with
// each failure, and is zero for another key.
func (f Failures) Delay(key string) time.Duration {
	if f.Count == 0 || f.Key != key {
		return 0
	}
	return min(firstFailureDelay<<min(f.Count-1, 10), longestFailureDelay)
}
