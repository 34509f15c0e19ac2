// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Mistake is one problem of one annotation.
type Mistake struct {
	// Key is the key of the annotation, with its prefix.
	Key   string
	Value string
	// Problem is the part of the message after the key: the problem, and its remedy.
	Problem string
}

func (m Mistake) Error() string { return brief(m.Key) + " " + m.Problem }

// Mistakes are all problems of a set of annotations, sorted by key. [Parse] returns
// no other error.
type Mistakes []Mistake

func (m Mistakes) Error() string {
	problems := make([]string, len(m))
	for i, mistake := range m {
		problems[i] = mistake.Error()
	}
	return strings.Join(problems, "; ")
}

func (m Mistakes) sort() {
	slices.SortFunc(m, func(a, b Mistake) int {
		return cmp.Or(strings.Compare(a.Key, b.Key), strings.Compare(a.Problem, b.Problem))
	})
}

// alike are the kinds whose claims all hold a pod back in the same way, whatever the value.
var alike = []*Kind{Singleton, Lock, Semaphore, StartLock}

// shaping are the settings without which nobody knows which parts of a pod matter.
var shaping = []string{ContainersAnnotation, GateAnnotation, ReadinessAnnotation}

// Rest returns what the annotations ask for apart from the mistakes. So one answer can name the
// mistakes of the pod's other fields, too. A misspelt key counts as the key that it resembles, and a
// claim with a wrong value as a claim with a valid one. The second result is false if the rest is
// unknown, because a mistake is about an annotation that decides what matters in the pod.
func (m Mistakes) Rest(annotations map[string]string) (Request, bool) {
	rest := maps.Clone(annotations)
	for _, mistake := range m {
		key, value := mistake.Key, annotations[mistake.Key]
		delete(rest, key)
		if !Known(key) {
			meant, _ := Annotations.nearest(key)
			if _, taken := annotations[meant]; taken || meant == "" {
				continue
			}
			key = meant
			if Annotations.of(key).valid(value) {
				rest[key] = value
				continue
			}
		}
		switch a := Annotations.of(key); {
		case slices.Contains(alike, a.Kind):
			rest[key] = a.Examples[0]
		case a.Kind != nil || slices.Contains(shaping, key):
			return Request{}, false
		}
	}
	request, err := Parse(rest)
	return request, err == nil
}

// unknown describes the mistake of a key that the table does not have.
func (all table) unknown(key string) string {
	if key == InjectionLabel {
		return fmt.Sprintf("is a label of the namespace, not an annotation: kubectl label namespace NAME %s=%s",
			InjectionLabel, InjectionEnabled)
	}
	if known, ok := all.nearest(key); ok {
		return fmt.Sprintf("is not known: did you mean %s?", known)
	}
	return "is not known: remove it"
}

// nearest returns the known key that differs from the given key by the fewest edits; false if
// no known key is near. A known key is near if at most two edits separate the keys. For a long
// known key, the edits may be as many as a third of its characters after the prefix.
func (all table) nearest(key string) (string, bool) {
	if len(key) > mostShown {
		// No known annotation has so long a key, and the comparison of a huge key would
		// take long.
		return "", false
	}
	name := strings.ToLower(strings.TrimPrefix(key, Prefix))
	best, least := "", 0
	for _, a := range all {
		known := strings.TrimPrefix(a.Key, Prefix)
		d := distance(name, known)
		if d > max(2, len(known)/3) || d >= len(known) {
			continue
		}
		if best == "" || d < least {
			best, least = a.Key, d
		}
	}
	return best, best != ""
}

// distance counts the insertions, deletions, replacements and swaps of adjacent characters that
// change a into b.
func distance(a, b string) int {
	x, y := []rune(a), []rune(b)
	var before []int // the row in front of the row "last", in the table of distances
	last := make([]int, len(y)+1)
	for j := range last {
		last[j] = j
	}
	for i := range x {
		row := make([]int, len(y)+1)
		row[0] = i + 1
		for j := range y {
			replace := last[j]
			if x[i] != y[j] {
				replace++
			}
			row[j+1] = min(row[j]+1, last[j+1]+1, replace)
			if i > 0 && j > 0 && x[i] == y[j-1] && x[i-1] == y[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
		before, last = last, row
	}
	return last[len(y)]
}
