// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package gate

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// For each kind of report, the table states whether that report proves that the hold "h" is over.
func TestReportsOfShimsDecideWhetherHoldIsProven(t *testing.T) {
	up := func(shim ShimID, phase Phase, hold string) Report {
		return Report{Shim: shim, Container: "app", Phase: phase, Hold: hold, Connected: true}
	}
	with := func(r Report, f func(r *Report)) Report { f(&r); return r }
	const hold = "h"
	for name, c := range map[string]struct {
		begun   bool
		granted []ShimID
		reports []Report
		proven  bool
	}{
		"begun here, granted to nobody":       {begun: true, proven: true},
		"begun by another, nobody has spoken": {},
		"granted, no word":                    {begun: true, granted: []ShimID{"1"}},
		"granted, and still waits":            {begun: true, granted: []ShimID{"1"}, reports: []Report{up("1", Waiting, "")}},
		"granted, waits after another hold":   {begun: true, granted: []ShimID{"1"}, reports: []Report{up("1", Waiting, "g")}},
		"waits, naming the hold":              {begun: true, granted: []ShimID{"1"}, reports: []Report{up("1", Waiting, hold)}, proven: true},
		"ended, never having started":         {begun: true, granted: []ShimID{"1"}, reports: []Report{up("1", Ended, "")}, proven: true},
		"runs":                                {begun: true, reports: []Report{up("1", Running, hold)}},
		"drains":                              {begun: true, reports: []Report{up("1", Draining, hold)}},
		"ran, connection ended": {begun: true, reports: []Report{up("1", Running, hold),
			with(up("1", Running, hold), func(r *Report) { r.Connected = false })}},
		"ran, silent": {begun: true, reports: []Report{
			with(up("1", Running, hold), func(r *Report) { r.Silent = true })}},
		"ran, dead": {begun: true, reports: []Report{up("1", Running, hold),
			with(up("1", Running, hold), func(r *Report) { r.Connected, r.Dead = false, true })}, proven: true},
		"one of two is dead": {begun: true, reports: []Report{up("1", Running, hold), up("2", Running, hold),
			with(up("1", Running, hold), func(r *Report) { r.Dead = true })}},
		"another's: a fresh shim speaks for it": {reports: []Report{up("2", Waiting, "")}, proven: true},
		"another's: a fresh shim doubts": {reports: []Report{
			with(up("2", Waiting, ""), func(r *Report) { r.Unproven = hold })}},
		"another's: it doubts what it cannot read": {reports: []Report{
			with(up("2", Waiting, ""), func(r *Report) { r.Unproven = Unreadable })}},
		"begun here, after what cannot be read": {begun: true, reports: []Report{
			with(up("2", Waiting, ""), func(r *Report) { r.Unproven = Unreadable })}, proven: true},
		"another's: it doubts another hold": {reports: []Report{
			with(up("2", Waiting, ""), func(r *Report) { r.Unproven = "g" })}, proven: true},
		"another's: the doubt outlives the shim": {reports: []Report{
			with(up("2", Waiting, ""), func(r *Report) { r.Unproven = hold }),
			with(up("2", Waiting, ""), func(r *Report) { r.Connected, r.Dead, r.Unproven = false, true, "" })}},
		"another's: the doubt is taken back": {reports: []Report{
			with(up("2", Waiting, ""), func(r *Report) { r.Unproven = hold }), up("2", Waiting, "")}, proven: true},
	} {
		t.Run(name, func(t *testing.T) {
			s := NewProof(ProofConfig{Containers: []string{"app"}})
			if c.begun {
				s.of.Began = func(of string) bool { return of == hold }
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
	waits := func(shim ShimID, container, unproven string) Report {
		return Report{Shim: shim, Container: container, Phase: Waiting, Connected: true, Unproven: unproven}
	}
	for name, c := range map[string]struct {
		reports []Report
		owed    ShimID
		want    int
	}{
		"no doubt":                          {reports: []Report{waits("1", "app", "")}, want: 1},
		"a doubt of another hold":           {reports: []Report{waits("1", "app", "g")}, want: 1},
		"its own container's":               {reports: []Report{waits("1", "app", "h")}},
		"another container's":               {reports: []Report{waits("1", "app", ""), waits("2", "helper", "h")}},
		"two of one container: the fresher": {reports: []Report{waits("1", "app", ""), waits("2", "app", "")}, want: 1},
		"one that was granted already":      {reports: []Report{waits("1", "app", "")}, owed: "1", want: 1},
		"its container's earlier one lives": {reports: []Report{waits("1", "app", ""), waits("2", "app", "h")}, owed: "1"},
	} {
		t.Run(name, func(t *testing.T) {
			s := NewProof(ProofConfig{Containers: []string{"app", "helper"}})
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
	s := NewProof(ProofConfig{Containers: []string{"app", "helper"}})
	s.Learn(Report{Shim: "1", Container: "app", Phase: Waiting, Connected: true})
	assert.False(t, s.Proven("h"))
	s.Learn(Report{Shim: "2", Container: "helper", Phase: Waiting, Connected: true})
	assert.True(t, s.Proven("h"))
	assert.False(t, NewProof(ProofConfig{}).Proven("h"), "an agent that knows no containers has no proof")
}

// Two shims of a container may connect to a new agent process. The shim that connects last may
// have started first, in an older container that the kubelet has forgotten.
func TestShimThatStartedLastSupersedesEarlierShims(t *testing.T) {
	left := Report{Shim: "left", Container: "app", Phase: Running, Hold: "h", Began: 1, Connected: true}
	current := Report{Shim: "current", Container: "app", Phase: Running, Hold: "h", Began: 2, Connected: true}
	for name, reports := range map[string][]Report{
		"heard first": {current, left},
		"heard last":  {left, current},
	} {
		t.Run(name, func(t *testing.T) {
			s := NewProof(ProofConfig{Containers: []string{"app"}})
			for _, r := range reports {
				s.Learn(r)
			}
			require.Len(t, s.Superseded(), 1)
			assert.Equal(t, ShimID("left"), s.Superseded()[0].Shim)

			s = NewProof(ProofConfig{Containers: []string{"app"}})
			for _, r := range reports {
				r.Phase, r.Hold = Waiting, ""
				s.Learn(r)
			}
			require.Len(t, s.Waiting(), 1)
			assert.Equal(t, ShimID("current"), s.Waiting()[0].Shim)
		})
	}
}

func TestReportByReplacedShimNeverClearsADoubt(t *testing.T) {
	s := NewProof(ProofConfig{Containers: []string{"app"}})
	s.Learn(Report{Shim: "current", Container: "app", Phase: Waiting, Began: 2, Connected: true, Unproven: "h"})
	s.Learn(Report{Shim: "left", Container: "app", Phase: Waiting, Began: 1, Connected: true})
	assert.True(t, s.Doubted("h"))
}

func TestInitContainerSuccessIsIgnoredAfterApplicationsGrant(t *testing.T) {
	s := NewProof(ProofConfig{Containers: []string{"app"}, InitContainers: []string{"migrate"}})
	ended := Report{Shim: "1", Container: "migrate", Phase: Ended, Hold: "h", Completed: true, Connected: true}
	s.Learn(ended)
	assert.True(t, s.Succeeded("h"))
	s.Grant("h", "2")
	s.Learn(Report{Shim: "2", Container: "app", Phase: Ended, Hold: "h", Connected: true})
	ended.Dead = true
	s.Learn(ended)
	assert.False(t, s.Succeeded("h"))
}

func TestInitContainersSuccessIsIgnoredWhileApplicationRuns(t *testing.T) {
	s := NewProof(ProofConfig{Containers: []string{"app"}, InitContainers: []string{"migrate"}})
	s.Learn(Report{Shim: "1", Container: "app", Phase: Running, Hold: "h", Connected: true})
	s.Learn(Report{Shim: "2", Container: "migrate", Phase: Ended, Hold: "h", Completed: true, Connected: true})
	assert.False(t, s.Succeeded("h"))
}

// The kubelet starts a further container only after the success of an init container.
func TestSuccessOfMainContainerSupportsNoHold(t *testing.T) {
	s := NewProof(ProofConfig{Containers: []string{"app"}, InitContainers: []string{"migrate"}})
	s.Learn(Report{Shim: "1", Container: "app", Phase: Ended, Hold: "h", Completed: true, Connected: true})
	completed, failed := s.Outcome("h")
	assert.True(t, completed)
	assert.False(t, failed)
	assert.False(t, s.Succeeded("h"))
	assert.False(t, s.Supported("h"))
}

// A client may delete the annotation with the hold from a Lease that names this pod.
func TestUnnamedHoldIsNeverProven(t *testing.T) {
	s := NewProof(ProofConfig{Containers: []string{"app"}})
	s.Learn(Report{Shim: "1", Container: "app", Phase: Waiting, Connected: true})
	assert.True(t, s.Proven("h"))
	assert.False(t, s.Proven(""))
	assert.False(t, s.Succeeded(""))
}

func TestMissingNoteProvesNothingForMainContainers(t *testing.T) {
	noted := func(hold string) bool { return hold == "noted" }
	s := NewProof(ProofConfig{
		Containers: []string{"app"}, InitContainers: []string{"migrate"}, Granted: func(_, hold string) bool { return noted(hold) },
	})
	assert.False(t, s.Proven("h"), "no shim of the main container has reported")
	s.Learn(Report{Shim: "1", Container: "app", Phase: Waiting, Connected: true})
	assert.True(t, s.Proven("h"), "the note is the proof for the init container")
	assert.False(t, s.Proven("noted"))
	s = NewProof(ProofConfig{InitContainers: []string{"migrate"}})
	assert.False(t, s.Proven("h"), "without notes, the init container must report")
}

// A container has succeeded under the hold. Then the agent sends a further grant of that hold.
func TestHoldHasNoOutcomeWhileChildMayLive(t *testing.T) {
	s := NewProof(ProofConfig{Containers: []string{"app", "helper"}})
	s.Learn(Report{Shim: "1", Container: "app", Phase: Ended, Hold: "h", Completed: true, Connected: true})
	s.Learn(Report{Shim: "2", Container: "helper", Phase: Ended, Hold: "h", Failed: true, Connected: true})
	completed, failed := s.Outcome("h")
	assert.True(t, completed && failed)
	s.Grant("h", "3")
	completed, failed = s.Outcome("h")
	assert.False(t, completed || failed)

	completed, failed = NewProof(ProofConfig{Containers: []string{"app"}}).Outcome("")
	assert.False(t, completed || failed)
}

func TestShimWaitingAfterItsChildHasDrained(t *testing.T) {
	drained := Report{Shim: "1", Container: "app", Phase: Waiting, Hold: "h", Connected: true}
	for name, c := range map[string]struct {
		unbounded bool
		change    func(r *Report)
		want      bool
	}{
		"waits":         {change: func(*Report) {}, want: true},
		"start lock":    {change: func(*Report) {}, unbounded: true},
		"another hold":  {change: func(r *Report) { r.Hold = "g" }},
		"runs":          {change: func(r *Report) { r.Phase = Running }},
		"not connected": {change: func(r *Report) { r.Connected = false }},
	} {
		t.Run(name, func(t *testing.T) {
			s := NewProof(ProofConfig{Containers: []string{"app"}, Unbounded: c.unbounded})
			r := drained
			c.change(&r)
			s.Learn(r)
			assert.Equal(t, c.want, s.Drained("h"))
		})
	}
}

func TestOnlyShimThatCanUseGrantIsGrantable(t *testing.T) {
	waits := Report{Shim: "1", Container: "app", Phase: Waiting, Connected: true}
	for name, change := range map[string]func(r *Report){
		"not connected":                func(r *Report) { r.Connected = false },
		"silent":                       func(r *Report) { r.Silent = true },
		"its child had the same hold":  func(r *Report) { r.Hold = "h" },
		"its child has another hold":   func(r *Report) { r.Phase, r.Hold = Running, "g" },
		"an earlier shim has the hold": func(r *Report) { r.Unproven = "h" },
	} {
		t.Run(name, func(t *testing.T) {
			s := NewProof(ProofConfig{Containers: []string{"app"}})
			s.Learn(waits)
			require.Len(t, s.Grantable("h"), 1)
			r := waits
			change(&r)
			s.Learn(r)
			assert.Empty(t, s.Grantable("h"))
			assert.False(t, s.Running("h"))
		})
	}
	t.Run("start lock", func(t *testing.T) {
		s := NewProof(ProofConfig{Containers: []string{"app"}, Unbounded: true})
		r := waits
		r.Unproven = "h"
		s.Learn(r)
		assert.Len(t, s.Grantable("h"), 1, "an earlier shim causes no doubt")
	})
}

func TestDisconnectedShimSupersedesNoShim(t *testing.T) {
	s := NewProof(ProofConfig{Containers: []string{"app"}})
	s.Learn(Report{Shim: "1", Container: "app", Phase: Running, Hold: "h", Began: 1, Connected: true})
	s.Learn(Report{Shim: "2", Container: "app", Phase: Waiting, Began: 2})
	assert.Empty(t, s.Superseded())
	s.Learn(Report{Shim: "2", Container: "app", Phase: Waiting, Began: 2, Connected: true})
	assert.Len(t, s.Superseded(), 1)
}

// Two shims of one container may report the same start time, and their reports arrive at a new
// agent process in any order. Until the first shim is dead, its hold is not proven to be over,
// and no other shim gets a grant of that hold.
func TestShimNeverSupersedesShimWithEqualStartTime(t *testing.T) {
	for seed := range uint64(5000) {
		random := rand.New(rand.NewPCG(seed, 1))
		s := NewProof(ProofConfig{Containers: []string{"app"}})
		// The server has a note of the first shim's grant, so the second shim's report names the
		// hold of that grant as unproven.
		first := Report{Shim: "1", Container: "app", Phase: Running, Hold: "h", Began: time.Hour, Connected: true}
		second := Report{Shim: "2", Container: "app", Phase: Waiting, Began: time.Hour, Connected: true, Unproven: "h"}
		heard := false
		for range 12 {
			switch random.IntN(6) {
			case 0, 1:
				s.Learn(first)
				heard = true
			case 2, 3:
				s.Learn(second)
			case 4:
				first.Connected = !first.Connected
				if heard {
					s.Learn(first)
				}
			case 5:
				if first.Phase == Running {
					first.Phase = Draining
				}
			}
			require.False(t, s.Proven("h"), "seed %d", seed)
			for _, r := range s.Grantable("h") {
				require.Failf(t, "granted", "seed %d: %v", seed, r)
			}
		}
		dead := first
		dead.Connected, dead.Dead = false, true
		s.Learn(dead)
		second.Unproven = ""
		s.Learn(second)
		require.True(t, s.Proven("h"), "seed %d", seed)
		require.Len(t, s.Waiting(), 1)
	}
}

// Any program of a gated container can send messages as a shim.
func TestFalseShimsNeverFillTheAgentsMemory(t *testing.T) {
	s := NewProof(ProofConfig{Containers: []string{"app"}})
	s.Grant("h", "false")
	for i := range 1000 {
		hold := fmt.Sprint("hold-", i)
		for range 3 {
			s.Learn(Report{Shim: "false", Container: "app", Phase: Running, Hold: hold, Connected: true})
		}
		assert.True(t, s.Outstanding(hold))
		if i%2 == 0 {
			s.Learn(Report{Shim: "false", Container: "app", Phase: Waiting, Connected: true})
			assert.False(t, s.Outstanding(hold))
		}
	}
	assert.Equal(t, 2, len(s.outstanding), "the granted hold, and the hold of the last report") //nolint:testifylint // Len prints the map
	assert.True(t, s.Outstanding("h"), "a grant may still be on its way")
	for i := range 1000 {
		r := Report{Shim: ShimID(fmt.Sprint(i)), Container: fmt.Sprint("c-", i), Phase: Running, Hold: "x", Connected: true}
		s.Learn(r)
		r.Dead = true
		s.Learn(r)
	}
	assert.False(t, s.Outstanding("x"))
	assert.Equal(t, 1, len(s.heard), "only gated containers count") //nolint:testifylint // Len prints the map
	assert.Equal(t, 1, len(s.claimed))                              //nolint:testifylint // Len prints the map
}

// A new agent process learns of a child by a report, and then sends the next grant of the same hold.
func TestGrantAfterAReportStaysOutstanding(t *testing.T) {
	s := NewProof(ProofConfig{Containers: []string{"app"}})
	s.Learn(Report{Shim: "1", Container: "app", Phase: Running, Hold: "h", Connected: true})
	s.Grant("h", "1")
	s.Learn(Report{Shim: "1", Container: "app", Phase: Running, Hold: "h", Connected: true})
	s.Learn(Report{Shim: "1", Container: "app", Phase: Waiting, Hold: "g", Connected: true})
	assert.True(t, s.Outstanding("h"))
	s.Learn(Report{Shim: "1", Container: "app", Phase: Waiting, Hold: "h", Connected: true})
	assert.False(t, s.Outstanding("h"))
}
