// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package view

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/diagnosis"
	"github.com/metaparticle-io/metaparticle/mutate/reason"
)

// These are the reasons of slots.
const (
	Ungated      reason.Reason = "Ungated"
	NotCarried   reason.Reason = "NotCarried"
	Refused      reason.Reason = "Refused"
	NoLease      reason.Reason = diagnosis.NoLease
	Paused       reason.Reason = "Paused"
	HolderSilent reason.Reason = "HolderSilent"
	HolderGone   reason.Reason = "HolderGone"
	NotServing   reason.Reason = "NotServing"
	Vacant       reason.Reason = "Vacant"
	WorkFailed   reason.Reason = "WorkFailed"
)

// mostFindings bounds the findings of one slot. A tenant can make thousands of pods that claim one lock.
const mostFindings = 32

// diagnose stores what is wrong with the slot and its pods. A slot that nobody wants is no problem.
func (s *Slot) diagnose() {
	first, wanting := s.wanting()
	for _, g := range s.Gaps {
		s.Findings = append(s.Findings, s.gap(g)...)
	}
	h, status := s.Holder, []string{"metaparticle", "status"}
	if s.Missing && (wanting > 0 || len(s.Gaps) > 0) {
		s.find(NoLease, diagnosis.Warning, s.Slot, status, "%s has no Lease yet: enroll has not made it", s.Slot)
	}
	if s.Paused != "" {
		s.find(Paused, diagnosis.Note, s.Slot, []string{"metaparticle", "resume"}, "%s is paused by hand (%s)", s.Slot, s.Paused)
	}
	if h != nil && h.SilentSince != nil {
		s.find(HolderSilent, diagnosis.Warning, "pod/"+h.Pod, explain, "the holder %s of %s does not renew: the slot is free once its lease expires", h.Pod, s.Slot)
	}
	for _, key := range slices.Sorted(maps.Keys(s.Failures)) {
		s.find(WorkFailed, diagnosis.Warning, s.Slot, status, "the work %s failed %s", key, api.TimesInARow(s.Failures[key]))
	}
	switch healthy := s.Healthy() || s.Missing; {
	case healthy:
	case h == nil && wanting > 0:
		s.find(Vacant, diagnosis.Critical, "pod/"+first.Pod, explain, "nobody holds %s, and %s", s.Slot, waits(wanting))
	case h == nil:
	case h.Gone:
		s.find(HolderGone, diagnosis.Warning, s.Slot, status, "the holder %s of %s is gone: the slot is free once its lease expires", h.Pod, s.Slot)
	case h.SilentSince == nil && h.ServingSince == nil && !h.Starting && s.serves():
		s.find(NotServing, diagnosis.Critical, "pod/"+h.Pod, explain, "the holder %s of %s does not serve", h.Pod, s.Slot)
	}
	if h != nil && h.finding != nil {
		s.Findings = append(s.Findings, *h.finding)
	}
	for _, p := range s.Standbys {
		if p.wants() && p.finding != nil && len(s.Findings) < mostFindings {
			s.Findings = append(s.Findings, *p.finding)
		}
	}
}

var explain = []string{"metaparticle", "explain"}

// find adds a finding about the slot. The command is about the target.
func (s *Slot) find(of reason.Reason, how diagnosis.Severity, target string, command []string, format string, args ...any) {
	s.Findings = append(s.Findings, diagnosis.Finding{
		Reason: of, About: s.Slot, Says: fmt.Sprintf(format, args...), Severity: how, Run: diagnosis.Command(s.Namespace, target, command...),
	})
}

// gap returns what is wrong with a workload that claims the slot.
func (s *Slot) gap(g Gap) (all []diagnosis.Finding) {
	of := strings.ToLower(g.Workload)
	find := func(why reason.Reason, how diagnosis.Severity, run []string, format string, args ...any) {
		all = append(all, diagnosis.Finding{
			Reason: why, About: of, Says: fmt.Sprintf(format, args...), Severity: how, Run: diagnosis.Command(s.Namespace, of, run...), Blocks: true,
		})
	}
	if g.Ungated > 0 {
		kind, _, _ := strings.Cut(g.Workload, "/")
		command, run := explain, "run"
		// Without a Lease the namespace has not opted in, and new pods would get no gate either.
		if !s.Missing && api.BuiltinOwner(kind).Restarts {
			command = []string{"rollout", "restart"}
		}
		if g.Ungated == 1 {
			run = "runs"
		}
		find(Ungated, diagnosis.Critical, command, "%s of %s %s the application without a gate, whoever holds %s", plural(g.Ungated, "pod"), g.Workload, run, s.Slot)
	}
	if g.NotCarried {
		find(NotCarried, diagnosis.Critical, explain, "the pod template of %s lacks the claim, so each new pod runs the application without a gate", g.Workload)
	}
	if g.Refused != "" {
		find(Refused, diagnosis.Warning, explain, "pods of %s are refused: %s", g.Workload, diagnosis.Brief(g.Refused))
	}
	return all
}

// wanting returns the first standby that would take the slot, and the number of all these.
func (s *Slot) wanting() (first *Standby, n int) {
	for _, p := range s.Standbys {
		if p.wants() {
			if n++; first == nil {
				first = p
			}
		}
	}
	return first, n
}

// wants reports whether the standby would take the slot. A program that asks by itself may want none.
func (p *Standby) wants() bool { return !p.Program && !p.Deleted }

func waits(n int) string {
	if n == 1 {
		return "1 pod waits"
	}
	return fmt.Sprintf("%d pods wait", n)
}

func plural(n int, word string) string {
	if n == 1 {
		return "1 " + word
	}
	return fmt.Sprintf("%d %ss", n, word)
}
