// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

const (
	// maxLabel bounds names that are one DNS label: containers, and the name
	// of a singleton.
	maxLabel = 63
	// maxName bounds the name of a Lease, as of every object.
	maxName = 253
	// maxLock leaves room for the prefix of the Lease's name.
	maxLock = maxName - len(lockPrefix)
	// maxListed bounds a list. The whole of a pod's annotations may be
	// 256 KiB; a pod with hundreds of slots is a mistake.
	maxListed = 32
	// mostMisnamed bounds how many unknown keys are told one by one. A person
	// mends fewer at a time; an object may have a hundred thousand.
	mostMisnamed = 10
)

// ambiguous: somebody may mean the value as a boolean. As the name of a
// singleton, "no" would claim.
func ambiguous(value string) bool {
	return slices.Contains([]string{"0", "1", "f", "false", "n", "no", "off", "on", "t", "true", "y", "yes"}, strings.ToLower(value))
}

// Parse reads the annotations of a pod (or of its template). Annotations of
// others are ignored. The error, if any, is [Mistakes]: all of them at once.
func Parse(annotations map[string]string) (Request, error) {
	p := parser{annotations: annotations}
	p.names()
	p.value(SingletonAnnotation, p.singleton)
	p.value(LockAnnotation, p.lock)
	p.value(ContainersAnnotation, p.containers)
	p.value(LeaseDurationAnnotation, p.leaseDuration)
	p.value(OnLossAnnotation, p.onLoss)
	p.value(ReadinessAnnotation, p.readiness)
	p.value(GateAnnotation, p.gate)
	p.value(InjectAnnotation, p.inject)
	p.together()
	if len(p.mistakes) > 0 {
		p.mistakes.sort()
		return Request{}, p.mistakes
	}
	return p.request, nil
}

type parser struct {
	annotations map[string]string
	request     Request
	mistakes    Mistakes
	// misnamed: there are keys that cannot be carried out.
	misnamed bool
}

func (p *parser) wrong(key, format string, args ...any) {
	p.mistakes = append(p.mistakes, Mistake{Key: key, Value: p.annotations[key], Problem: fmt.Sprintf(format, args...)})
}

// names judges the keys alone, in their order.
func (p *parser) names() {
	var wrong []string
	for key := range p.annotations {
		if misnamed(key) {
			wrong = append(wrong, key)
		}
	}
	slices.Sort(wrong)
	p.misnamed = len(wrong) > 0
	for i, key := range wrong[:min(len(wrong), mostMisnamed)] {
		switch more := len(wrong) - mostMisnamed; {
		case i == mostMisnamed-1 && more > 0:
			p.wrong(key, "is not known, and %d more are not: remove them", more)
		case slices.Contains(planned, key):
			p.wrong(key, "is not supported by this version: remove it")
		default:
			p.wrong(key, "%s", unknown(key))
		}
	}
}

// misnamed: the key is meant for us, and this version does not carry it out.
func misnamed(key string) bool { return Carried(key) && !Known(key) }

// value hands the value of an annotation that is there to its parser, which
// returns what is wrong with it.
func (p *parser) value(key string, parse func(value string) string) {
	value, ok := p.annotations[key]
	if !ok {
		return
	}
	if problem := parse(value); problem != "" {
		p.wrong(key, "is %q: %s", brief(value), problem)
	}
}

func (p *parser) singleton(value string) string {
	switch {
	case value == "true":
		p.request.Singleton = true
	case value == "false":
	case len(value) <= maxLabel && ambiguous(value):
		return `write "true" or "false"`
	case !isSingletonName(value):
		return `write "true", "false" or a name: at most 63 lower-case letters, digits and dashes, with a letter or digit at both ends`
	default:
		p.request.Singleton, p.request.SingletonName = true, value
	}
	return ""
}

func (p *parser) lock(value string) string {
	names, problem := list(value, "lock", func(name string) string {
		if !isLock(name) {
			return fmt.Sprintf("a lock's name is at most %d lower-case letters, digits, dashes and dots, with a letter or digit at both ends", maxLock)
		}
		return ""
	})
	p.request.Locks = names
	return problem
}

func (p *parser) containers(value string) string {
	names, problem := list(value, "container", func(name string) string {
		switch {
		case slices.Contains(Injected, name):
			return fmt.Sprintf("%s is injected and cannot wait for itself", name)
		case len(name) > maxLabel || !isLabel(name):
			return fmt.Sprintf("%q cannot be a container's name", brief(name))
		}
		return ""
	})
	p.request.Containers = names
	return problem
}

// list splits a comma-separated list, sorts it, drops doubles, and says what
// is wrong with the first element that is.
func list(value, noun string, problem func(string) string) ([]string, string) {
	var names []string
	for name := range strings.SplitSeq(value, ",") {
		name = strings.TrimSpace(name)
		if name == "" {
			return nil, fmt.Sprintf("name at least one %s, and none empty, separated by commas", noun)
		}
		if wrong := problem(name); wrong != "" {
			return nil, wrong
		}
		if slices.Contains(names, name) {
			continue
		}
		if len(names) == maxListed {
			return nil, fmt.Sprintf("name at most %d", maxListed)
		}
		names = append(names, name)
	}
	slices.Sort(names)
	return names, ""
}

func (p *parser) leaseDuration(value string) string {
	d, err := time.ParseDuration(value)
	switch {
	case err != nil && digits(value):
		return fmt.Sprintf("write %ss", value)
	case err != nil:
		return `write a duration like "30s" or "2m"`
	}
	if _, err := NewBudget(d); err != nil {
		return err.Error()
	}
	p.request.LeaseDuration = d
	return ""
}

// digits: a number that lacks nothing but its unit. A number too long to be
// seconds is better answered with an example.
func digits(s string) bool {
	return s != "" && len(s) <= 6 && strings.Trim(s, "0123456789") == ""
}

func (p *parser) onLoss(value string) string {
	switch v := OnLoss(value); v {
	case OnLossStandby, OnLossRestart:
		p.request.OnLoss = v
		return ""
	}
	return fmt.Sprintf("write %q or %q", OnLossStandby, OnLossRestart)
}

func (p *parser) readiness(value string) string {
	switch v := Readiness(value); v {
	case ReadinessForward, ReadinessHolder:
		p.request.Readiness = v
		return ""
	}
	return fmt.Sprintf("write %q or %q", ReadinessForward, ReadinessHolder)
}

func (p *parser) gate(value string) string {
	switch v := Gate(value); v {
	case GateContainer, GatePod, GateReadiness:
		p.request.Gate = v
		return ""
	}
	return fmt.Sprintf("write %q, %q or %q", GateContainer, GatePod, GateReadiness)
}

func (p *parser) inject(value string) string {
	switch value {
	case "false":
		p.request.OptOut = true
	case "true":
	default:
		return `write "true" or "false"`
	}
	return ""
}

// together judges annotations that contradict or need each other. Whoever
// switched claims off in so many words (singleton: "false", inject: "false")
// may leave the modifiers of the claim where they are; and a key that is
// misspelt may be the claim that is missing.
func (p *parser) together() {
	_, singleton := p.annotations[SingletonAnnotation]
	_, lock := p.annotations[LockAnnotation]
	if p.request.OptOut && p.request.Claims() {
		p.wrong(InjectAnnotation, `is "false", but %s claims a slot: remove one of the two`, p.claimed())
	}
	if !p.request.Shims() {
		p.withoutShims()
	}
	if singleton || lock || p.request.OptOut || p.misnamed {
		return
	}
	for _, key := range []string{ContainersAnnotation, LeaseDurationAnnotation, OnLossAnnotation, ReadinessAnnotation, GateAnnotation} {
		if _, ok := p.annotations[key]; ok {
			p.wrong(key, `has no effect without a claim: add %s: "true" or %s, or remove it`, SingletonAnnotation, LockAnnotation)
		}
	}
}

// withoutShims judges what only a gate inside of the containers can carry out.
func (p *parser) withoutShims() {
	gate := p.request.Gate
	if len(p.request.Containers) > 0 {
		p.wrong(ContainersAnnotation, "has no effect with %s: %s, which is about the whole pod: remove one of the two", GateAnnotation, gate)
	}
	switch {
	case gate == GateReadiness && p.request.OnLoss != "":
		p.wrong(OnLossAnnotation, "has no effect with %s: %s, which stops nothing: remove one of the two", GateAnnotation, gate)
	case p.request.OnLoss == OnLossStandby:
		p.wrong(OnLossAnnotation, "is %q, but with %s: %s a lost slot restarts all containers: remove one of the two", OnLossStandby, GateAnnotation, gate)
	}
	if p.request.Readiness == ReadinessForward {
		p.wrong(ReadinessAnnotation, "is %q, but with %s: %s the holder alone is Ready: remove one of the two", ReadinessForward, GateAnnotation, gate)
	}
}

func (p *parser) claimed() string {
	if p.request.Singleton {
		return SingletonAnnotation
	}
	return LockAnnotation
}

// isLabel: a DNS label (RFC 1123), of any length. Without package regexp, which the agent
// would carry next to every pod for this alone.
func isLabel(s string) bool {
	for _, c := range []byte(s) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return s != "" && s[0] != '-' && s[len(s)-1] != '-'
}

// isSubdomain: DNS labels, joined by dots (RFC 1123).
func isSubdomain(s string) bool {
	for part := range strings.SplitSeq(s, ".") {
		if !isLabel(part) {
			return false
		}
	}
	return true
}
