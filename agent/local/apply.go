// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package local

import (
	"slices"
	"strconv"
	"strings"

	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/api"
)

// Action is a change of a Variable that a program requests.
type Action struct {
	// Text or Integer is the new value. Both fields are nil for an add, and if Typed is not nil.
	Text    *string
	Integer *int64
	// Typed is a new value of the type that the Variable already has. If the Variable has no
	// value, Typed is text.
	Typed *string
	// Add is the addend. Key is the idempotency key of the add; empty for none.
	Add int64
	Key string
	// Match is the resourceVersion that the Variable must have; empty if the action accepts each
	// resourceVersion. Fresh requires that the Variable has no value yet.
	Match string
	Fresh bool
	// Fence returns the fence of the hold under which the program writes. If that hold is lost
	// or uncertain, Fence returns LostHold or UncertainHold. A nil function means that the
	// program names no hold.
	Fence func() (kube.Fence, Refusal)
}

// The method "adds" reports whether the action adds to an integer.
func (a *Action) adds() bool { return a.Text == nil && a.Integer == nil && a.Typed == nil }

// Refusal is the reason why an action did not take effect; empty for an action that took effect.
// Only with the refusal [Unknown], the action may have taken effect nevertheless.
type Refusal string

const (
	// Unknown means that a write got no answer, or a conflict, and that its outcome or its version
	// cannot be proven.
	Unknown Refusal = "unknown"
	// Unavailable means that the Variable could not be read or written in time, and that
	// nothing was written.
	Unavailable Refusal = "unavailable"
	// Absent means that the API server has no such Variable.
	Absent Refusal = "absent"
	// Mismatch means that the Variable has another resourceVersion than Match, or already has a
	// value although Fresh is set.
	Mismatch Refusal = "mismatch"
	// WrongType means that the Variable has a text, but the action needs an integer, or the
	// reverse.
	WrongType Refusal = "type"
	// Overflow means that the sum would need more than 64 bits.
	Overflow Refusal = "overflow"
	// KeyReused means that the key belongs to an add with another addend.
	KeyReused Refusal = "reused"
	// Fenced means that the fence of the Variable refuses the write. Either a later hold has
	// written, or another lock protects the Variable, or the program names no hold.
	Fenced Refusal = "fenced"
	// LostHold means that the program has lost the hold under which it writes. UncertainHold
	// means that the last renewal of that hold is too long ago. After the next renewal the
	// program can write again.
	LostHold, UncertainHold Refusal = "lost", "uncertain"
	// TooMany means that too many calls wait for the Variable: actions, reads and watches.
	TooMany Refusal = "many"
	// Stopping means that the agent stops.
	Stopping Refusal = "stopping"
)

// apply changes v as the action requests; v is a copy that nobody else uses. For an add, the result
// is the new integer, or the integer after the first add with the same key. The result "changed"
// reports whether v must be written.
func (a *Action) apply(v *kube.Variable, pod, version string) (result int64, changed bool, refusal Refusal) {
	var fence kube.Fence
	if a.Fence != nil {
		if fence, refusal = a.Fence(); refusal != "" {
			return 0, false, refusal
		}
	}
	if a.Key != "" {
		if k, ok := keptKey(v, a.Key); ok {
			if k.Add != a.Add {
				return 0, false, KeyReused
			}
			return k.Result, false, ""
		}
	}
	switch {
	case a.Fence == nil && v.Fence != nil, a.Fence != nil && !admits(v.Fence, fence):
		return 0, false, Fenced
	case a.Match != "" && a.Match != version, a.Fresh && (v.Value != nil || v.Integer != nil):
		return 0, false, Mismatch
	case a.adds():
		result, refusal = a.add(v, pod)
	default:
		refusal = a.set(v)
	}
	if refusal != "" {
		return 0, false, refusal
	}
	if a.Fence != nil {
		v.Fence = &fence
	}
	return result, true, ""
}

// The function "admits" reports whether a write may follow an earlier write. The argument "before"
// is the fence of the earlier write; nil for none. The argument "next" is the fence of the new
// write. The schema of Variables has the same rule.
func admits(before *kube.Fence, next kube.Fence) bool {
	return before == nil || before.Lock == next.Lock &&
		(next.Epoch > before.Epoch || next.Epoch == before.Epoch && next.Token >= before.Token)
}

func (a *Action) add(v *kube.Variable, pod string) (int64, Refusal) {
	if v.Value != nil {
		return 0, WrongType
	}
	sum := int64(0)
	if v.Integer != nil {
		sum = *v.Integer
	}
	before := sum
	sum += a.Add
	if (sum < before) != (a.Add < 0) && a.Add != 0 {
		return 0, Overflow
	}
	v.Integer = &sum
	if a.Key != "" {
		keep(v, kube.Key{Key: a.Key, Add: a.Add, Result: sum, Pod: pod})
	}
	return sum, ""
}

func (a *Action) set(v *kube.Variable) Refusal {
	text, integer := a.Text, a.Integer
	if a.Typed != nil {
		text = a.Typed
		if v.Integer != nil {
			n, err := strconv.ParseInt(strings.TrimSpace(*a.Typed), 10, 64)
			if err != nil {
				return WrongType
			}
			text, integer = nil, &n
		}
	}
	if text != nil && v.Integer != nil || integer != nil && v.Value != nil {
		return WrongType
	}
	v.Value, v.Integer = text, integer
	return ""
}

// oldAfter is the number of newer keys after which a key is old. At a hundred adds a second, a
// key is old after ten seconds, the longest time of a call.
const oldAfter = 1000

// keptKey returns the record of the key; false if the Variable does not keep it.
func keptKey(v *kube.Variable, key string) (kube.Key, bool) {
	i := slices.IndexFunc(v.Keys, func(k kube.Key) bool { return k.Key == key })
	if i < 0 {
		return kube.Key{}, false
	}
	return v.Keys[i], true
}

// keep adds a key to the kept keys. If the list then has more than [api.MaxKeys] keys, keep drops
// an earlier key.
func keep(v *kube.Variable, k kube.Key) {
	v.Keyed++
	k.At = v.Keyed
	v.Keys = append(v.Keys, k)
	for len(v.Keys) > api.MaxKeys {
		i := surplus(v)
		v.Keys = slices.Delete(v.Keys, i, i+1)
	}
}

// surplus returns the index of the key to drop. The keys are in the order of their adds. If the
// first key is old, surplus chooses that key. Otherwise surplus chooses the first key of the pod
// that has the most keys. If several pods have that number of keys, surplus chooses the first key
// of all these pods.
func surplus(v *kube.Variable) int {
	if v.Keyed-v.Keys[0].At >= oldAfter {
		return 0
	}
	counts := map[string]int{}
	most := 0
	for _, k := range v.Keys {
		counts[k.Pod]++
		most = max(most, counts[k.Pod])
	}
	return slices.IndexFunc(v.Keys, func(k kube.Key) bool { return counts[k.Pod] == most })
}

// keepsNewest reports whether the Variable must still have the key of an add if the add was stored.
// So if the result is true and the key is missing, the add was not stored. The key must be the
// newest key of its pod. The argument "count" is the value of the field Keyed before the add. The
// list of keys drops such a key only when the key is old, or when each of 64 other pods has a newer
// key.
func keepsNewest(v *kube.Variable, count int64) bool {
	pods := map[string]bool{}
	for _, k := range v.Keys {
		pods[k.Pod] = true
	}
	newer := v.Keyed - count
	return newer < api.MaxKeys || newer < oldAfter && len(pods) < api.MaxKeys
}
