// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package mutate

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/mutate/reason"
)

// In these models a rollout stalls if some order of events leads to a state in which neither the
// controller nor the slots change anything, and an old pod is left. The orders differ in who takes a
// free slot, and in when the controller looks.

// ends returns the states that have no next state.
func ends[S comparable](next func(S) []S, starts ...S) []S {
	seen, found := map[S]bool{}, []S{}
	for len(starts) > 0 {
		s := starts[0]
		starts = starts[1:]
		if seen[s] {
			continue
		}
		seen[s] = true
		more := next(s)
		if len(more) == 0 {
			found = append(found, s)
		}
		starts = append(starts, more...)
	}
	return found
}

// deployment has a Deployment's limits, and the number of slots. With turns, a new pod can take the
// slot from an old pod, once.
type deployment struct {
	replicas, surge, unavailable, slots int
	turns                               bool
}

// replicaSets has the numbers of all pods and of the available ones, in the old and in the new
// ReplicaSet.
type replicaSets struct {
	old, oldReady, new, newReady int
	turned                       bool
}

// next has the changes that can come next. Package deployment of Kubernetes has the steps of the
// controller: reconcileNewReplicaSet, then reconcileOldReplicaSets.
func (d deployment) next(s replicaSets) []replicaSets {
	var all []replicaSets
	add := func(change func(s *replicaSets)) {
		changed := s
		if change(&changed); changed != s {
			all = append(all, changed)
		}
	}
	if s.oldReady+s.newReady < d.slots {
		add(func(s *replicaSets) { s.oldReady = min(s.old, s.oldReady+1) })
		add(func(s *replicaSets) { s.newReady = min(s.new, s.newReady+1) })
	}
	if d.turns && !s.turned && s.new > 0 && s.newReady == 0 && s.oldReady > 0 {
		add(func(s *replicaSets) { s.newReady, s.turned = 1, true })
		add(func(s *replicaSets) { s.newReady, s.oldReady, s.turned = 1, s.oldReady-1, true })
	}
	add(d.sync)
	return all
}

func (d deployment) sync(s *replicaSets) {
	total, least := s.old+s.new, d.replicas-d.unavailable
	if up := min(d.replicas+d.surge-total, d.replicas-s.new); up > 0 {
		s.new += up
		return
	}
	if down := total - least - (s.new - s.newReady); down > 0 {
		available := s.oldReady + s.newReady
		s.old -= min(down, s.old-s.oldReady)
		if available > least {
			s.old -= min(s.old, available-least)
		}
		s.oldReady = min(s.oldReady, s.old)
	}
}

// stalls reports whether the rollout can stall, and requires that it then always does.
func (d deployment) stalls(t *testing.T) bool {
	t.Helper()
	finished, stalled := 0, 0
	for _, end := range ends(d.next, replicaSets{old: d.replicas, oldReady: min(d.replicas, d.slots)}) {
		if end.old == 0 && end.new == d.replicas {
			finished++
		} else {
			stalled++
		}
	}
	require.True(t, finished == 0 || stalled == 0, "%+v", d)
	return stalled > 0
}

// carried returns the warnings about the rollout of a workload. The number of slots zero means a
// gated init container of a singleton, which takes turns.
func carried(t *testing.T, kubernetes int, kind string, slots int, spec map[string]any) string {
	t.Helper()
	annotations := map[string]string{"metaparticle.io/semaphore": fmt.Sprintf("pool=%d", slots)}
	template := map[string]any{"containers": []any{map[string]any{"name": "app", "command": []string{"app"}}}}
	switch slots {
	case 0:
		annotations = map[string]string{"metaparticle.io/singleton": "true", "metaparticle.io/containers": "first,app"}
		template["initContainers"] = []any{map[string]any{"name": "first", "command": []string{"first"}}}
	case 1:
		annotations = map[string]string{"metaparticle.io/singleton": "true", "metaparticle.io/readiness": "holder"}
	}
	spec["template"] = map[string]any{"spec": template}
	raw, err := json.Marshal(map[string]any{"metadata": map[string]any{"name": "d", "annotations": annotations}, "spec": spec})
	require.NoError(t, err)
	_, warnings, err := Carry(t.Context(), Workload{Kind: kind, Raw: raw, Kubernetes: kubernetes})
	require.NoError(t, err)
	for _, w := range warnings {
		require.Equal(t, reason.RolloutStalls, w.Reason)
	}
	require.LessOrEqual(t, len(warnings), 1)
	return strings.Join(warnings.Lines(), "")
}

// forEver and neverReady are in the warnings of rollouts that keep old pods, and of rollouts whose
// end no command reports.
const (
	forEver    = "keeps old pods for ever"
	neverReady = "replaces all pods, but"
)

var least = regexp.MustCompile(`maxUnavailable of at least (\d+)`)

func TestWarningPredictsTheDeploymentController(t *testing.T) {
	for replicas := 1; replicas <= 6; replicas++ {
		for surge := range 3 {
			for unavailable := range replicas + 1 {
				for slots := range 8 {
					if surge+unavailable == 0 {
						continue // the API server refuses it
					}
					d := deployment{replicas, surge, unavailable, max(1, slots), slots == 0}
					said := carried(t, 37, "Deployment", slots, map[string]any{
						"replicas": replicas, "strategy": map[string]any{"rollingUpdate": map[string]any{"maxSurge": surge, "maxUnavailable": unavailable}},
					})
					stalls := d.stalls(t)
					require.Equal(t, stalls, strings.Contains(said, forEver), "%+v: %s", d, said)
					require.Equal(t, !stalls && d.slots < replicas, strings.Contains(said, neverReady), "%+v: %s", d, said)
					if stalls {
						remedy, err := strconv.Atoi(least.FindStringSubmatch(said)[1])
						require.NoError(t, err)
						d.unavailable = remedy
						require.False(t, d.stalls(t), "the remedy: %+v", d)
						d.unavailable--
						require.True(t, d.stalls(t) || surge+d.unavailable == 0, "a smaller remedy: %+v", d)
					}
				}
			}
		}
	}
}

// Percentages and absent fields count as the controller reads them.
func TestWarningReadsLimitsOfADeployment(t *testing.T) {
	for limits, want := range map[string]string{
		`{"replicas": 4}`: forEver, // a quarter
		`{"replicas": 2, "strategy": {"rollingUpdate": {"maxUnavailable": 1}}}`:                    forEver, // readiness-holder-maxunavailable-1.yaml
		`{"replicas": 2, "strategy": {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": "25%"}}}`: forEver,
		`{"replicas": 1, "strategy": {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": "25%"}}}`: "",
		`{"replicas": 3, "strategy": {"rollingUpdate": {"maxUnavailable": "100%"}}}`:               neverReady,
		`{"replicas": 3, "strategy": {"type": "Recreate"}}`:                                        neverReady,
		`{"replicas": 1, "strategy": {"type": "Recreate"}}`:                                        "",
		`{"replicas": 3, "strategy": {"type": "Recreate", "rollingUpdate": null}}`:                 neverReady,
		`{"replicas": 0}`: "",
		`{}`:              forEver,
		`{"replicas": 4, "minReadySeconds": 30, "strategy": {"rollingUpdate": {"maxUnavailable": 3}}}`: forEver,
		`{"replicas": 4, "strategy": {"rollingUpdate": {"maxUnavailable": "x%"}}}`:                     neverReady, // the API server refuses it
	} {
		spec := map[string]any{}
		require.NoError(t, json.Unmarshal([]byte(limits), &spec))
		said := carried(t, 37, "Deployment", 1, spec)
		assert.Equal(t, want != "", said != "", limits)
		assert.Contains(t, said, want, limits)
	}
}

// statefulSet has the settings of a StatefulSet. With counts, the cluster counts unavailable pods,
// as by default since Kubernetes 1.37. The field revision is the revision of pods that are made: o
// or n.
type statefulSet struct {
	replicas, unavailable, slots    int
	parallel, counts, turns, update bool
}

// next has the changes that can come next. A state has a letter for each pod: o for an old pod, n
// for a new one, a capital for a Ready one, and a dot for none. A last T means that a new pod
// has had its turn.
func (set statefulSet) next(state string) []string {
	var all []string
	with := func(state string, i int, letter string) string { return state[:i] + letter + state[i+1:] }
	ready := strings.Count(state, "O") + strings.Count(state, "N")
	for i := range set.replicas {
		one := state[i : i+1]
		if ready < set.slots && strings.Contains("on", one) {
			all = append(all, with(state, i, strings.ToUpper(one)))
		}
		if set.turns && one == "n" && !strings.ContainsAny(state, "NT") && strings.Contains(state, "O") {
			taken := with(state, i, "N") + "T"
			all = append(all, taken, strings.Replace(taken, "O", "o", 1))
		}
	}
	if synced := set.sync(state); synced != state {
		all = append(all, synced)
	}
	return all
}

func (set statefulSet) sync(state string) string {
	pods, made := []byte(state), byte('o')
	if set.update {
		made = 'n'
	}
	available := func(i int) bool { return pods[i] == 'O' || pods[i] == 'N' }
	old := func(i int) bool { return pods[i] == 'O' || pods[i] == 'o' }
	for i := range set.replicas {
		if pods[i] == '.' {
			pods[i] = made
			if !set.parallel {
				return string(pods)
			}
		}
		if !available(i) && !set.parallel {
			return string(pods)
		}
	}
	if !set.update || string(pods) != state {
		return string(pods)
	}
	if !set.counts {
		for i := set.replicas - 1; i >= 0; i-- {
			switch {
			case old(i):
				pods[i] = '.'
				return string(pods)
			case !available(i):
				return string(pods)
			}
		}
		return string(pods)
	}
	left := set.unavailable
	for i := range set.replicas {
		if !available(i) {
			left--
		}
	}
	for i := set.replicas - 1; i >= 0; i-- {
		if old(i) && !available(i) {
			pods[i] = '.'
		}
	}
	for i := set.replicas - 1; i >= 0 && left > 0; i-- {
		if old(i) && available(i) {
			pods[i] = '.'
			left--
		}
	}
	return string(pods)
}

func TestWarningPredictsTheStatefulSetController(t *testing.T) {
	for replicas := 1; replicas <= 4; replicas++ {
		for unavailable := 1; unavailable <= replicas; unavailable++ {
			for slots := range 6 {
				for bits := range 4 {
					set := statefulSet{replicas, unavailable, max(1, slots), bits&1 > 0, bits&2 > 0, slots == 0, false}
					policy, minor := "OrderedReady", 36
					if set.parallel {
						policy = "Parallel"
					}
					if set.counts {
						minor = 37
					}
					said := carried(t, minor, "StatefulSet", slots, map[string]any{
						"replicas": replicas, "podManagementPolicy": policy,
						"updateStrategy": map[string]any{"rollingUpdate": map[string]any{"maxUnavailable": unavailable}},
					})
					made := ends(set.next, strings.Repeat(".", replicas))
					missing := false
					for _, end := range made {
						missing = missing || strings.Contains(end, ".") || strings.Count(end, "o")+strings.Count(end, "O") < replicas
					}
					require.Equal(t, missing, strings.Contains(said, "ever exist"), "%+v: %s", set, said)
					set.update = true
					stalls := false
					for _, end := range ends(set.next, made...) {
						stalls = stalls || strings.ContainsAny(end, ".oO")
					}
					require.Equal(t, stalls, said != "" && !strings.Contains(said, neverReady), "%+v: %s", set, said)
					if found := least.FindStringSubmatch(said); found != nil {
						var err error
						set.unavailable, err = strconv.Atoi(found[1])
						require.NoError(t, err)
						for _, end := range ends(set.next, made...) {
							require.NotContains(t, strings.ToLower(end), "o", "the remedy: %+v: %s", set, said)
						}
					}
				}
			}
		}
	}
}

// daemonSet has a DaemonSet's limits, and its number of nodes.
type daemonSet struct {
	nodes, surge, unavailable, slots int
}

// next has the changes that can come next. A state has two letters for each node, for the old pod
// and for the new one.
func (set daemonSet) next(state string) []string {
	var all []string
	ready := strings.Count(state, "O") + strings.Count(state, "N")
	for i, one := range state {
		if ready < set.slots && one != '.' {
			if taken := state[:i] + strings.ToUpper(state[i:i+1]) + state[i+1:]; taken != state {
				all = append(all, taken)
			}
		}
	}
	if synced := set.sync(state); synced != state {
		all = append(all, synced)
	}
	return all
}

func (set daemonSet) sync(state string) string {
	pods := []byte(state)
	for i := 0; i < len(pods); i += 2 {
		switch before, now := state[i], state[i+1]; {
		case before == '.' && now == '.':
			pods[i+1] = 'n'
		case before == 'o' && now != '.', before == 'O' && now == 'N':
			pods[i] = '.'
		}
	}
	if string(pods) != state {
		return string(pods)
	}
	left := set.unavailable + set.surge
	for i := 0; i < len(pods); i += 2 {
		switch nodes := state[i : i+2]; {
		case nodes == ".n" && set.surge == 0, nodes == "On":
			left--
		case nodes == "o." && set.surge == 0:
			pods[i] = '.'
			left--
		case nodes == "o.":
			pods[i+1] = 'n'
		}
	}
	for i := 0; i < len(pods) && left > 0; i += 2 {
		if state[i:i+2] == "O." {
			left--
			if set.surge > 0 {
				pods[i+1] = 'n'
			} else {
				pods[i] = '.'
			}
		}
	}
	return string(pods)
}

var mostNodes = regexp.MustCompile(`more pods than (\d+)`)

func TestWarningPredictsTheDaemonSetController(t *testing.T) {
	stalls := func(set daemonSet) bool {
		start := strings.Repeat("O.", min(set.slots, set.nodes)) + strings.Repeat("o.", max(0, set.nodes-set.slots))
		for _, end := range ends(set.next, start) {
			if strings.ContainsAny(end, "oO") {
				return true
			}
		}
		return false
	}
	for nodes := 1; nodes <= 4; nodes++ {
		for slots := 1; slots <= 6; slots++ {
			for limit := 1; limit <= 4; limit++ {
				surge := carried(t, 37, "DaemonSet", slots, map[string]any{"updateStrategy": map[string]any{"rollingUpdate": map[string]any{"maxSurge": limit, "maxUnavailable": 0}}})
				require.Contains(t, surge, "with maxSurge")
				require.Equal(t, nodes >= slots, stalls(daemonSet{nodes: nodes, surge: limit, slots: slots}), "%d nodes, %d slots", nodes, slots)

				said := carried(t, 37, "DaemonSet", slots, map[string]any{"updateStrategy": map[string]any{"rollingUpdate": map[string]any{"maxUnavailable": limit}}})
				most, err := strconv.Atoi(mostNodes.FindStringSubmatch(said)[1])
				require.NoError(t, err)
				require.Equal(t, nodes > most, stalls(daemonSet{nodes: nodes, unavailable: limit, slots: slots}), "%d nodes, %d slots: %s", nodes, slots, said)
				require.False(t, stalls(daemonSet{nodes: nodes, unavailable: nodes, slots: slots}), "the remedy")
			}
		}
	}
	for limit, want := range map[string]string{"1%": "more pods than 1", "67%": "more pods than 3", "99%": "more pods than 99", "100%": neverReady, "x%": forEver} {
		said := carried(t, 37, "DaemonSet", 1, map[string]any{"updateStrategy": map[string]any{"rollingUpdate": map[string]any{"maxUnavailable": limit}}})
		assert.Contains(t, said, want, limit)
	}
}
