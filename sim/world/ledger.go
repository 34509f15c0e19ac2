// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package world

import (
	"slices"
	"strings"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/sim/apiserver"
)

// shared are the Variables that each [LocalPod] declares. An add to "keyed" has an idempotency key,
// and an add to "hits" has none. Programs write "fenced" under a hold.
var shared = []api.Claim{{Kind: api.Variable, Name: "keyed"}, {Kind: api.Variable, Name: "hits"}, {Kind: api.Variable, Name: "fenced"}}

// These are the names of the invariants of Variables, like the names in check.go. The violation
// "counted" is an acknowledged add that the sum of a Variable lacks, or an add that counts twice.
// The violation "fenced-off" is a write with the fence of a hold that no program of the writing pod
// has named.
const (
	Counted   = "counted"
	fencedOff = "fenced-off"
)

// ledger records the adds that programs have sent to one Variable, and the answers of the agents.
type ledger struct {
	w    *World
	name string
	// acked is the sum of the acknowledged adds. The field "open" is the sum of the adds that may
	// have taken effect: those that are under way, and those whose outcome is unknown.
	acked, open int64
	// sums has each acknowledged sum as a key, and the program that got this answer as its value.
	sums map[string]string
	// last is the last stored write, and "before" is the integer before this write.
	last   *apiserver.Variable
	before int64
	// holds has, for each pod, the fences of the holds that the programs of this pod have named.
	holds map[string][]apiserver.Fence
}

// KeepLedgers gives the API server the Variables, and the world a ledger of each Variable.
func KeepLedgers(w *World) {
	var names []string
	w.ledgers = map[string]*ledger{}
	for _, c := range shared {
		names = append(names, c.Name)
		w.ledgers[c.Name] = &ledger{w: w, name: c.Name, sums: map[string]string{}, holds: map[string][]apiserver.Fence{}}
	}
	w.API.Variables = apiserver.NewVariables(w.Engine, names, func(name string, v *apiserver.Variable) { w.ledgers[name].stored(v) })
}

// value returns the integer of the Variable.
func (l *ledger) value() int64 { return l.w.API.Variables.Integer(l.name) }

// stored checks the invariants when a write is stored.
func (l *ledger) stored(v *apiserver.Variable) {
	l.w.Note("API", "stores %s = %d of write %s", l.name, l.value(), v.Write)
	pod, _, _ := strings.Cut(v.Write, ".")
	l.excuse(pod, v)
	l.check()
	if v.Fence != nil && !slices.Contains(l.holds[pod], *v.Fence) {
		l.w.Violate(fencedOff, "%s writes %s with the fence %v, and its programs named no such hold", pod, l.name, *v.Fence)
	}
}

// excuse lets the adds of a repeated PUT count twice, if another pod writes next. The Variable then
// does not prove that the adds were stored. But an add with an idempotency key must count once.
func (l *ledger) excuse(pod string, next *apiserver.Variable) {
	sum := int64(0)
	if v := l.last; v != nil {
		sum = *v.Integer
		if v.Write == l.w.API.Variables.Repeated[l.name] && v.Keyed == 0 && !strings.HasPrefix(v.Write, pod+".") {
			l.open += sum - l.before
		}
	}
	if next.Integer != nil {
		l.last, l.before = next, sum
	}
}

// check demands that the sum contains each acknowledged add, and nothing but adds that programs
// have sent.
func (l *ledger) check() {
	switch n := l.value(); {
	case n < l.acked:
		l.w.Violate(Counted, "%s is %d, and %d are acknowledged", l.name, n, l.acked)
	case n > l.acked+l.open:
		l.w.Violate(Counted, "%s is %d, and only %d are acknowledged or unknown", l.name, n, l.acked+l.open)
	}
}

// acks records that the agent has acknowledged an add of n, with the sum as the answer.
func (l *ledger) acks(by string, n int64, sum string) {
	l.acked, l.open = l.acked+n, l.open-n
	if other, known := l.sums[sum]; known {
		l.w.Violate(Counted, "%s and %s both brought %s to %s", other, by, l.name, sum)
	}
	l.sums[sum] = by
	l.check()
}
