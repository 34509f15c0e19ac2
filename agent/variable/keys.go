// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package variable

import (
	"slices"

	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/api"
)

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
