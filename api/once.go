// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// OnceAnnotation is the key of the annotation for once claims.
const OnceAnnotation = Prefix + "once"

const oncePrefix = "once."

// revisionPrefix begins the names of the Leases of once claims without a name. No claim with a name
// has a Lease with this prefix.
const revisionPrefix = "once-revision."

// maxOnce bounds the name of a once claim, and leaves room for the prefix of the Lease's
// name.
const maxOnce = maxName - len(oncePrefix)

// Once claims one slot. The pods run a container under that slot, one after another, until
// the container succeeds. The Lease then records the key, and no other pod repeats the work
// of that key. Pods of the whole namespace compete for the slot of a claim with a name. Only pods
// of one workload compete for the slot of a claim without a name.
var Once = &Kind{
	Key: OnceAnnotation, Ask: OnceAnnotation, Scope: ScopeNamespace, UntilSuccess: true, Sole: true, Awaited: true,
	parse:  parseOnce,
	slots:  onceSlots,
	isSlot: IsOnceSlot,
}

// OnceLease returns the name of the Lease of a once claim. All keys of one name share the
// Lease, so the work of two keys never runs at once.
func OnceLease(name string) string { return oncePrefix + name }

// revisionLease returns the name of the Lease for a workload's once claim, if that claim has no
// name.
func revisionLease(of Workload) string {
	return shortName(revisionPrefix + of.kindPart() + "." + of.Name)
}

func parseOnce(value string) ([]Claim, string) {
	name, key, keyed := strings.Cut(strings.TrimSpace(value), "=")
	switch {
	case value == "true":
		return []Claim{{Size: 1}}, ""
	case value == "false":
		return nil, ""
	case strings.Contains(value, ","):
		return nil, "write one name=key: a pod can have no other once claim"
	case !keyed:
		return nil, `write "true", "false", or a name and the key of the work that is to run once, as in schema=7`
	case !isOnce(name):
		return nil, fmt.Sprintf("a name before the = is at most %d lower-case letters, digits, dashes and dots, with a letter or digit at both ends", maxOnce)
	case !IsKey(key):
		return nil, fmt.Sprintf("a key after the = is at most %d letters, digits, dashes, dots and underscores, with a letter or digit at both ends", maxLabel)
	}
	return []Claim{{Name: name, Size: 1, Key: key}}, ""
}

func onceSlots(c Claim, of Workload) []string {
	if c.Name == "" {
		return []string{revisionLease(of)}
	}
	return []string{OnceLease(c.Name)}
}

// IsOnceSlot reports whether the text can be the name of the Lease of a once claim.
func IsOnceSlot(lease string) bool {
	name, ok := strings.CutPrefix(lease, oncePrefix)
	return ok && isOnce(name) || IsRevisionSlot(lease)
}

// IsRevisionSlot reports whether the text can be the name of the Lease of a once claim without a
// name. In a shortened name, IsRevisionSlot can judge only the part before the hash.
func IsRevisionSlot(lease string) bool {
	return strings.HasPrefix(lease, revisionPrefix) && isUnshortened(lease, isRevisionLease)
}

// isRevisionLease reports whether [revisionLease] can return the name without shortening it.
func isRevisionLease(lease string) bool {
	rest, ok := strings.CutPrefix(lease, revisionPrefix)
	return ok && isWorkload(rest)
}

// isOnce reports whether a once claim can have the name.
func isOnce(name string) bool { return len(name) <= maxOnce && isSubdomain(name) }

// onceLeaseDuration is the lease duration of a once claim, unless an annotation of the pod states
// another duration. An outage of the API server that lasts longer than [Budget.Outage] kills the
// work, which must then begin anew. A longer lease survives a longer outage. So the duration is
// four times [DefaultLeaseDuration], which is for applications that soon start again elsewhere.
const onceLeaseDuration = 2 * time.Minute

// MaxDone bounds the number of done keys in one Lease. The policy on Leases has the same bound.
// Each further key removes the oldest one.
const MaxDone = 50

// Done is the value of [DoneAnnotation]: the keys whose work has succeeded, the oldest
// first.
type Done string

// Keys returns the done keys.
func (d Done) Keys() []string { return split(string(d)) }

// Without returns the done keys except the given one.
func (d Done) Without(key string) Done {
	return Done(strings.Join(slices.DeleteFunc(d.Keys(), func(k string) bool { return k == key }), ","))
}

// Has reports whether the work of the key has succeeded.
func (d Done) Has(key string) bool {
	return slices.Contains(d.Keys(), key)
}

// With returns the done keys with the given key added. Beyond [MaxDone] keys, the oldest are
// dropped.
func (d Done) With(key string) Done {
	if key == "" || d.Has(key) {
		return d
	}
	keys := append(d.Keys(), key)
	return Done(strings.Join(keys[max(0, len(keys)-MaxDone):], ","))
}

// IsKey reports whether the text can be the key of a once claim. The rules are those for the
// value of a label, but a key is never empty.
func IsKey(key string) bool {
	letter := func(c rune) bool { return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' }
	inner := func(c rune) bool { return letter(c) || strings.ContainsRune("-._", c) }
	if key == "" || len(key) > maxLabel || !letter(rune(key[0])) || !letter(rune(key[len(key)-1])) {
		return false
	}
	return !strings.ContainsFunc(key, func(c rune) bool { return !inner(c) })
}

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
