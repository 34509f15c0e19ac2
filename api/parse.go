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

// mostMisnamed bounds the number of unknown keys that the error of [Parse] names, because an object
// can have a hundred thousand unknown keys.
const mostMisnamed = 10

// Parse reads the annotations of a pod, or of its template, and ignores all annotations
// without our prefix. The error, if any, is of the type [Mistakes], and has all
// mistakes at once.
func Parse(annotations map[string]string) (Request, error) { return Annotations.parse(annotations) }

func (all table) parse(annotations map[string]string) (Request, error) {
	p := parser{table: all, annotations: annotations}
	p.names()
	p.values()
	p.together()
	if len(p.mistakes) > 0 {
		p.mistakes.sort()
		return Request{}, p.mistakes
	}
	return p.request, nil
}

type parser struct {
	table       table
	annotations map[string]string
	request     Request
	mistakes    Mistakes
	// claiming are the keys of the annotations that claim.
	claiming []string
	// misnamed is set if this version of Metaparticle does not know a key with our prefix.
	misnamed bool
}

func (p *parser) wrong(key, format string, args ...any) {
	p.mistakes = append(p.mistakes, Mistake{Key: key, Value: p.annotations[key], Problem: fmt.Sprintf(format, args...)})
}

// The method "names" checks the keys of the annotations, in alphabetical order, and ignores the
// values.
func (p *parser) names() {
	var wrong []string
	for key := range p.annotations {
		if Carried(key) && !p.table.known(key) {
			wrong = append(wrong, key)
		}
	}
	slices.Sort(wrong)
	p.misnamed = len(wrong) > 0
	for i, key := range wrong[:min(len(wrong), mostMisnamed)] {
		switch more := len(wrong) - mostMisnamed; {
		case i == mostMisnamed-1 && more > 0:
			p.wrong(key, "is not known, and %d more are not: remove them", more)
		default:
			p.wrong(key, "%s", p.table.unknown(key))
		}
	}
}

// The method "values" reads each value into the request, and judges each value by itself.
func (p *parser) values() {
	for _, a := range p.table {
		value, ok := p.annotations[a.Key]
		if !ok {
			continue
		}
		var problem string
		if a.Kind == nil {
			problem = a.set(&p.request, value)
		} else {
			var claims []Claim
			claims, problem = a.claims(value)
			p.request.Claimed = append(p.request.Claimed, claims...)
			if len(claims) > 0 {
				p.claiming = append(p.claiming, a.Key)
			}
		}
		if problem != "" {
			p.wrong(a.Key, "is %q: %s", brief(value), problem)
		}
	}
}

// The method "together" refuses annotations that contradict each other, and settings without a
// claim. Such settings are accepted beside an explicit opt-out (singleton: "false", inject:
// "false"). Such settings are also accepted beside a misspelt key, because a person may have meant
// that key as the claim.
func (p *parser) together() {
	if p.request.OptOut && p.request.Claims() {
		p.wrong(InjectAnnotation, `is "false", but %s claims a slot: remove one of the two`, p.claiming[0])
	}
	if p.request.OptOut && len(p.request.After) > 0 {
		p.wrong(InjectAnnotation, `is "false", but %s needs an injected container: remove one of the two`, AfterAnnotation)
	}
	if p.request.OptOut && p.request.Barrier.Size > 0 {
		p.wrong(InjectAnnotation, `is "false", but %s needs an injected container: remove one of the two`, BarrierAnnotation)
	}
	if p.has(LocalAnnotation) {
		p.program()
	} else {
		p.gated()
	}
	if p.request.OptOut || p.misnamed || p.hasClaimKey() {
		return
	}
	for _, a := range p.table {
		if p.has(a.Key) && !a.Alone && !p.ofBarrier(a.Key) {
			p.wrong(a.Key, "has no effect without a claim: add %s, or remove it", p.table.asks())
		}
	}
}

func (p *parser) has(key string) bool {
	_, ok := p.annotations[key]
	return ok
}

// ofBarrier reports whether the setting has an effect on the wait at the pod's barrier.
func (p *parser) ofBarrier(key string) bool {
	return p.has(BarrierAnnotation) && (key == LeaseDurationAnnotation || key == WaitAtMostAnnotation)
}

// The method "program" judges a pod with [LocalAnnotation], whose program asks for slots by the
// local API. Any other claim is refused, and so are the settings of gates that hold the application
// back. A barrier of the local API is refused if an init container of the pod already waits there.
func (p *parser) program() {
	p.request.Gate = GateProgram
	for _, key := range p.claiming {
		if key != LocalAnnotation {
			p.wrong(LocalAnnotation, "cannot be in one pod with %s: remove one of the two", key)
		}
	}
	for _, b := range BarriersOf(p.request.Claimed) {
		if b.Name == p.request.Barrier.Name {
			p.wrong(LocalAnnotation, "names %s, at which the pod waits by %s already: remove one of the two", localBarrier(b), BarrierAnnotation)
		}
	}
	for _, a := range p.table {
		if a.Kind == nil && !a.Alone && a.Key != LeaseDurationAnnotation && !a.Local && p.has(a.Key) && !p.ofBarrier(a.Key) {
			p.wrong(a.Key, "has no effect with %s, because the program itself asks for its slots: remove it", LocalAnnotation)
		}
	}
}

// The method "gated" judges the settings and claims of a pod whose gate holds the application back.
func (p *parser) gated() {
	if !p.request.Shims() {
		p.withoutShims()
	}
	p.sole()
	if p.request.StartsInTurn() {
		p.startsInTurn()
	}
	for _, key := range []string{YieldAfterAnnotation, PreferAnnotation} {
		if p.has(key) && p.request.Claims() {
			p.handsOver(key)
		}
	}
	if p.request.Failsafe != (Failsafe{}) && p.request.Claims() {
		p.ridesOut()
	}
	for _, a := range p.table {
		if a.Local && p.has(a.Key) && p.request.Claims() {
			p.wrong(a.Key, "has no effect without %s: add that annotation, or remove this one", LocalAnnotation)
		}
	}
	for _, key := range []string{PortsAnnotation, EndpointDelayAnnotation} {
		if p.has(key) && p.request.Standbys() != ReadinessForward {
			p.wrong(key, "has no effect here, because standbys that are never Ready forward nothing: remove it")
		}
	}
}

// The method "sole" judges a pod with a claim that must be the only claim of the pod. The setting
// that makes standbys forward is refused, too, because such a claim has no standby that forwards.
func (p *parser) sole() {
	i := slices.IndexFunc(p.request.Claimed, func(c Claim) bool { return c.Kind.Sole })
	if i < 0 {
		return
	}
	sole := p.request.Claimed[i].Kind
	for _, c := range p.request.Claimed {
		if c.Kind != sole && (!sole.StartsInTurn || !c.Kind.UntilReady) {
			p.wrong(sole.Key, "cannot be in one pod with %s: remove one of the two", c.Kind.Key)
			break
		}
	}
	if sole.UntilSuccess {
		p.untilSuccess()
		return
	}
	if sole == Shards && !p.request.Shims() {
		p.wrong(GateAnnotation, "is %q, but with %s a shim must tell the application its shard: remove one of the two", p.request.Gate, ShardsAnnotation)
	}
	if p.request.Shims() && p.request.Readiness == ReadinessForward {
		p.wrong(ReadinessAnnotation, "is %q, but with %s only the holders are Ready, because several pods can hold: remove it", ReadinessForward, sole.Key)
	}
}

// startsInTurn refuses the settings that have no meaning with a start lock.
func (p *parser) startsInTurn() {
	if !p.request.Shims() {
		p.wrong(GateAnnotation, "is %q, but with %s a shim must start the application: remove one of the two", p.request.Gate, StartLockAnnotation)
	}
	if !p.request.StartsOnly() {
		return
	}
	for _, key := range []string{OnLossAnnotation, OnBusyAnnotation, ReadinessAnnotation} {
		if p.has(key) {
			p.wrong(key, "has no effect with %s alone, under which the application runs without a slot: remove it", StartLockAnnotation)
		}
	}
}

// untilSuccess refuses the settings that have no meaning beside a once claim.
func (p *parser) untilSuccess() {
	if !p.request.Shims() {
		p.wrong(GateAnnotation, "is %q, but with %s a shim must see the success: remove one of the two", p.request.Gate, OnceAnnotation)
	}
	if p.request.Readiness != "" {
		p.wrong(ReadinessAnnotation, "has no effect with %s, which leaves the pod's readiness as it was: remove it", OnceAnnotation)
	}
	if p.request.OnBusy == OnBusySkip {
		p.wrong(OnBusyAnnotation, "is %q, but with %s a pod waits until the work is done: remove one of the two", OnBusySkip, OnceAnnotation)
	}
}

// handsOver judges a setting about handovers. The pods of a slot agree on a handover in the next Lease
// of the slot, which only a slot whose pods take turns has ([HasNextLease]). A pod of several slots has
// no single holder to ask.
func (p *parser) handsOver(key string) {
	const only = "only the holder of one singleton or one lock hands over"
	switch {
	case !p.solely(key, only, func(k *Kind) bool { return k.TakesTurns }):
	case len(p.request.Claimed) > 1:
		p.wrong(key, "has no effect in a pod of %d slots, because %s: leave one claim, or remove it", len(p.request.Claimed), only)
	case key == PreferAnnotation && p.request.Readiness == ReadinessHolder:
		p.wrong(key, "has no effect with %s: %s, because only a Ready standby is preferred: remove one of the two", ReadinessAnnotation, ReadinessHolder)
	}
}

// solely refuses a setting that is only for shims and for some kinds of claims, and not beside a barrier. The
// argument "only" says which claims these are. The result is true if the setting is not refused.
func (p *parser) solely(key, only string, fits func(*Kind) bool) bool {
	other := ""
	if i := slices.IndexFunc(p.request.Claimed, func(c Claim) bool { return !fits(c.Kind) }); i >= 0 {
		other = p.request.Claimed[i].Kind.Key
	} else if p.request.Barrier.Size > 0 {
		other = BarrierAnnotation
	}
	switch {
	case !p.request.Shims():
		p.wrong(key, "has no effect with %s: %s, under which no shim stops the application: remove one of the two", GateAnnotation, p.request.Gate)
	case other != "":
		p.wrong(key, "has no effect with %s, because %s: remove one of the two", other, only)
	default:
		return true
	}
	return false
}

// ridesOut judges [FailsafeAnnotation]. Its long duration binds everybody who waits for the Lease. So the
// slot must belong to one workload alone, and no other wait may depend on it.
func (p *parser) ridesOut() {
	const only = "only a singleton, without another claim, survives an outage of the API server"
	key, r := FailsafeAnnotation, p.request
	budget, err := r.Failsafe.Budget(r.Duration())
	switch {
	case !p.solely(key, only, func(k *Kind) bool { return k == Singleton }):
	case r.OnBusy == OnBusySkip:
		p.wrong(key, "has no effect with %s: %s, because a pod that skips would take a dead holder for a living one: remove one of the two", OnBusyAnnotation, OnBusySkip)
	case err != nil:
		p.wrong(key, "%v: write a shorter outage, or a shorter %s", err, LeaseDurationAnnotation)
	case budget.Longest() == r.Duration():
		p.wrong(key, "has no effect, because %s: %v covers an outage of %v: remove it", LeaseDurationAnnotation, r.Duration(), budget.Outage())
	}
}

// hasClaimKey reports whether the pod has an annotation that can claim, whatever the value.
func (p *parser) hasClaimKey() bool {
	return slices.ContainsFunc(p.table, func(a Annotation) bool {
		return a.Kind != nil && p.has(a.Key)
	})
}

// asks returns the text that names all annotations that claim, joined by "or".
func (all table) asks() string {
	var ways []string
	for _, a := range all {
		if a.Kind != nil {
			ways = append(ways, a.Kind.Ask)
		}
	}
	return strings.Join(ways, " or ")
}

// withoutShims refuses settings that a gate outside of the containers cannot carry out.
func (p *parser) withoutShims() {
	gate := p.request.Gate
	if len(p.request.Containers) > 0 {
		p.wrong(ContainersAnnotation, "has no effect with %s: %s, which gates the whole pod: remove one of the two", GateAnnotation, gate)
	}
	switch {
	case gate == GateReadiness && p.request.OnLoss != "":
		p.wrong(OnLossAnnotation, "has no effect with %s: %s, which stops nothing: remove one of the two", GateAnnotation, gate)
	case p.request.OnLoss == OnLossStandby:
		p.wrong(OnLossAnnotation, "is %q, but with %s: %s a lost slot restarts all containers: remove one of the two", OnLossStandby, GateAnnotation, gate)
	}
	for _, key := range []string{OnBusyAnnotation, WaitAtMostAnnotation} {
		if _, ok := p.annotations[key]; ok {
			p.wrong(key, "has no effect with %s: %s, under which no shim waits: remove one of the two", GateAnnotation, gate)
		}
	}
	if p.request.Readiness == ReadinessForward {
		p.wrong(ReadinessAnnotation, "is %q, but with %s: %s the holder alone is Ready: remove one of the two", ReadinessForward, GateAnnotation, gate)
	}
}

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
