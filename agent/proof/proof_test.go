// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package proof

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/agent/gate"
)

// For each kind of report, the table states whether that report proves that the hold "h" is over.
func TestReportsOfShimsDecideWhetherHoldIsProven(t *testing.T) {
	up := func(shim gate.ShimID, phase gate.Phase, hold string) gate.Report {
		return gate.Report{Shim: shim, Container: "app", Phase: phase, Hold: hold, Connected: true}
	}
	with := func(r gate.Report, f func(r *gate.Report)) gate.Report { f(&r); return r }
	const hold = "h"
	for name, c := range map[string]struct {
		begun   bool
		granted []gate.ShimID
		reports []gate.Report
		proven  bool
	}{
		"begun here, granted to nobody":       {begun: true, proven: true},
		"begun by another, nobody has spoken": {},
		"granted, no word":                    {begun: true, granted: []gate.ShimID{"1"}},
		"granted, and still waits":            {begun: true, granted: []gate.ShimID{"1"}, reports: []gate.Report{up("1", gate.Waiting, "")}},
		"granted, waits after another hold":   {begun: true, granted: []gate.ShimID{"1"}, reports: []gate.Report{up("1", gate.Waiting, "g")}},
		"waits, naming the hold":              {begun: true, granted: []gate.ShimID{"1"}, reports: []gate.Report{up("1", gate.Waiting, hold)}, proven: true},
		"ended, never having started":         {begun: true, granted: []gate.ShimID{"1"}, reports: []gate.Report{up("1", gate.Ended, "")}, proven: true},
		"runs":                                {begun: true, reports: []gate.Report{up("1", gate.Running, hold)}},
		"drains":                              {begun: true, reports: []gate.Report{up("1", gate.Draining, hold)}},
		"ran, connection ended": {begun: true, reports: []gate.Report{up("1", gate.Running, hold),
			with(up("1", gate.Running, hold), func(r *gate.Report) { r.Connected = false })}},
		"ran, silent": {begun: true, reports: []gate.Report{
			with(up("1", gate.Running, hold), func(r *gate.Report) { r.Silent = true })}},
		"ran, dead": {begun: true, reports: []gate.Report{up("1", gate.Running, hold),
			with(up("1", gate.Running, hold), func(r *gate.Report) { r.Connected, r.Dead = false, true })}, proven: true},
		"one of two is dead": {begun: true, reports: []gate.Report{up("1", gate.Running, hold), up("2", gate.Running, hold),
			with(up("1", gate.Running, hold), func(r *gate.Report) { r.Dead = true })}},
		"another's: a fresh shim speaks for it": {reports: []gate.Report{up("2", gate.Waiting, "")}, proven: true},
		"another's: a fresh shim doubts": {reports: []gate.Report{
			with(up("2", gate.Waiting, ""), func(r *gate.Report) { r.Unproven = hold })}},
		"another's: it doubts what it cannot read": {reports: []gate.Report{
			with(up("2", gate.Waiting, ""), func(r *gate.Report) { r.Unproven = gate.Unreadable })}},
		"begun here, after what cannot be read": {begun: true, reports: []gate.Report{
			with(up("2", gate.Waiting, ""), func(r *gate.Report) { r.Unproven = gate.Unreadable })}, proven: true},
		"another's: it doubts another hold": {reports: []gate.Report{
			with(up("2", gate.Waiting, ""), func(r *gate.Report) { r.Unproven = "g" })}, proven: true},
		"another's: the doubt outlives the shim": {reports: []gate.Report{
			with(up("2", gate.Waiting, ""), func(r *gate.Report) { r.Unproven = hold }),
			with(up("2", gate.Waiting, ""), func(r *gate.Report) { r.Connected, r.Dead, r.Unproven = false, true, "" })}},
		"another's: the doubt is taken back": {reports: []gate.Report{
			with(up("2", gate.Waiting, ""), func(r *gate.Report) { r.Unproven = hold }), up("2", gate.Waiting, "")}, proven: true},
	} {
		t.Run(name, func(t *testing.T) {
			s := New(Config{Containers: []string{"app"}})
			if c.begun {
				s.Begin(hold)
			}
			for _, id := range c.granted {
				s.Grant(hold, id)
			}
			for _, r := range c.reports {
				s.Learn(r)
			}
			assert.Equal(t, c.proven, s.Proven(hold))
		})
	}
}

func TestDoubtedHoldIsNeverGrantedToAnyShim(t *testing.T) {
	waits := func(shim gate.ShimID, container, unproven string) gate.Report {
		return gate.Report{Shim: shim, Container: container, Phase: gate.Waiting, Connected: true, Unproven: unproven}
	}
	for name, c := range map[string]struct {
		reports []gate.Report
		owed    gate.ShimID
		want    int
	}{
		"no doubt":                          {reports: []gate.Report{waits("1", "app", "")}, want: 1},
		"a doubt of another hold":           {reports: []gate.Report{waits("1", "app", "g")}, want: 1},
		"its own container's":               {reports: []gate.Report{waits("1", "app", "h")}},
		"another container's":               {reports: []gate.Report{waits("1", "app", ""), waits("2", "helper", "h")}},
		"two of one container: the fresher": {reports: []gate.Report{waits("1", "app", ""), waits("2", "app", "")}, want: 1},
		"one that was granted already":      {reports: []gate.Report{waits("1", "app", "")}, owed: "1", want: 1},
		"its container's earlier one lives": {reports: []gate.Report{waits("1", "app", ""), waits("2", "app", "h")}, owed: "1"},
	} {
		t.Run(name, func(t *testing.T) {
			s := New(Config{Containers: []string{"app", "helper"}})
			for _, r := range c.reports {
				s.Learn(r)
			}
			if c.owed != "" {
				s.Grant("h", c.owed)
			}
			assert.Len(t, s.Grantable("h"), c.want)
		})
	}
}

func TestProofOfDeathNeedsEveryContainersReport(t *testing.T) {
	s := New(Config{Containers: []string{"app", "helper"}})
	s.Learn(gate.Report{Shim: "1", Container: "app", Phase: gate.Waiting, Connected: true})
	assert.False(t, s.Proven("h"))
	s.Learn(gate.Report{Shim: "2", Container: "helper", Phase: gate.Waiting, Connected: true})
	assert.True(t, s.Proven("h"))
	assert.False(t, New(Config{}).Proven("h"), "an agent that knows no containers has no proof")
}

// Two shims of a container may connect to a new agent process. The shim that connects last may
// have started first, in an older container that the kubelet has forgotten.
func TestShimThatStartedLastSupersedesEarlierShims(t *testing.T) {
	left := gate.Report{Shim: "left", Container: "app", Phase: gate.Running, Hold: "h", Began: 1, Connected: true}
	current := gate.Report{Shim: "current", Container: "app", Phase: gate.Running, Hold: "h", Began: 2, Connected: true}
	for name, reports := range map[string][]gate.Report{
		"heard first": {current, left},
		"heard last":  {left, current},
	} {
		t.Run(name, func(t *testing.T) {
			s := New(Config{Containers: []string{"app"}})
			for _, r := range reports {
				s.Learn(r)
			}
			require.Len(t, s.Superseded(), 1)
			assert.Equal(t, gate.ShimID("left"), s.Superseded()[0].Shim)

			s = New(Config{Containers: []string{"app"}})
			for _, r := range reports {
				r.Phase, r.Hold = gate.Waiting, ""
				s.Learn(r)
			}
			require.Len(t, s.Waiting(), 1)
			assert.Equal(t, gate.ShimID("current"), s.Waiting()[0].Shim)
		})
	}
}

func TestReportByReplacedShimNeverClearsADoubt(t *testing.T) {
	s := New(Config{Containers: []string{"app"}})
	s.Learn(gate.Report{Shim: "current", Container: "app", Phase: gate.Waiting, Began: 2, Connected: true, Unproven: "h"})
	s.Learn(gate.Report{Shim: "left", Container: "app", Phase: gate.Waiting, Began: 1, Connected: true})
	assert.True(t, s.Doubted("h"))
}

func TestInitContainerSuccessIsIgnoredAfterApplicationsGrant(t *testing.T) {
	s := New(Config{Containers: []string{"app"}, InitContainers: []string{"migrate"}})
	ended := gate.Report{Shim: "1", Container: "migrate", Phase: gate.Ended, Hold: "h", Completed: true, Connected: true}
	s.Learn(ended)
	assert.True(t, s.Succeeded("h"))
	s.Grant("h", "2")
	s.Learn(gate.Report{Shim: "2", Container: "app", Phase: gate.Ended, Hold: "h", Connected: true})
	ended.Dead = true
	s.Learn(ended)
	assert.False(t, s.Succeeded("h"))
}

func TestInitContainersSuccessIsIgnoredWhileApplicationRuns(t *testing.T) {
	s := New(Config{Containers: []string{"app"}, InitContainers: []string{"migrate"}})
	s.Learn(gate.Report{Shim: "1", Container: "app", Phase: gate.Running, Hold: "h", Connected: true})
	s.Learn(gate.Report{Shim: "2", Container: "migrate", Phase: gate.Ended, Hold: "h", Completed: true, Connected: true})
	assert.False(t, s.Succeeded("h"))
}

// The kubelet starts a further container only after the success of an init container.
func TestSuccessOfMainContainerSupportsNoHold(t *testing.T) {
	s := New(Config{Containers: []string{"app"}, InitContainers: []string{"migrate"}})
	s.Learn(gate.Report{Shim: "1", Container: "app", Phase: gate.Ended, Hold: "h", Completed: true, Connected: true})
	completed, failed := s.Outcome("h")
	assert.True(t, completed)
	assert.False(t, failed)
	assert.False(t, s.Succeeded("h"))
	assert.False(t, s.Supported("h"))
}

// A client may delete the annotation with the hold from a Lease that names this pod.
func TestUnnamedHoldIsNeverProven(t *testing.T) {
	s := New(Config{Containers: []string{"app"}})
	s.Learn(gate.Report{Shim: "1", Container: "app", Phase: gate.Waiting, Connected: true})
	assert.True(t, s.Proven("h"))
	assert.False(t, s.Proven(""))
	assert.False(t, s.Succeeded(""))
}

func TestMissingNoteProvesNothingForMainContainers(t *testing.T) {
	noted := func(hold string) bool { return hold == "noted" }
	s := New(Config{
		Containers: []string{"app"}, InitContainers: []string{"migrate"}, Granted: func(_, hold string) bool { return noted(hold) },
	})
	assert.False(t, s.Proven("h"), "no shim of the main container has reported")
	s.Learn(gate.Report{Shim: "1", Container: "app", Phase: gate.Waiting, Connected: true})
	assert.True(t, s.Proven("h"), "the note is the proof for the init container")
	assert.False(t, s.Proven("noted"))
	s = New(Config{InitContainers: []string{"migrate"}})
	assert.False(t, s.Proven("h"), "without notes, the init container must report")
}
