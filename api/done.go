// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"slices"
	"strings"
	"time"
)

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
