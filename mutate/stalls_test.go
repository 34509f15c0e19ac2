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

// The rows are the boundaries that a model of each controller's steps has found.
func TestWarningReadsStrategyOfStatefulSetsAndDaemonSets(t *testing.T) {
	const fewExist, notReplaced, atMost = "ever exist", "replaces no pod until all", "and a StatefulSet replaces one pod after the other"
	for _, c := range []struct {
		kind              string
		minor, slots      int // zero slots: an init container of a singleton that takes turns
		replicas          int
		limit, spec, want string
		fitting           string // the limit that the warning names, or the pods from which a DaemonSet stalls
	}{
		{"StatefulSet", 37, 1, 1, "1", `"podManagementPolicy":"OrderedReady"`, "", ""},
		{"StatefulSet", 37, 1, 2, "1", `"podManagementPolicy":"OrderedReady"`, notReplaced, ""},
		{"StatefulSet", 37, 1, 3, "1", `"podManagementPolicy":"OrderedReady"`, fewExist, ""},
		{"StatefulSet", 37, 3, 3, "1", `"podManagementPolicy":"OrderedReady"`, "", ""},
		{"StatefulSet", 36, 2, 4, "1", `"podManagementPolicy":"OrderedReady"`, fewExist, ""},
		{"StatefulSet", 36, 1, 2, "1", `"podManagementPolicy":"Parallel"`, atMost, ""},
		{"StatefulSet", 36, 1, 2, "2", `"podManagementPolicy":"Parallel"`, atMost, ""},
		{"StatefulSet", 36, 2, 2, "1", `"podManagementPolicy":"Parallel"`, "", ""},
		{"StatefulSet", 36, 0, 2, "1", `"podManagementPolicy":"Parallel"`, neverReady, ""},
		{"StatefulSet", 37, 1, 3, "2", `"podManagementPolicy":"Parallel"`, forEver, "at least 3 "},
		{"StatefulSet", 37, 1, 3, "3", `"podManagementPolicy":"Parallel"`, neverReady, ""},
		{"StatefulSet", 37, 0, 3, "1", `"podManagementPolicy":"Parallel"`, forEver, "at least 2 "},
		{"StatefulSet", 37, 0, 3, "2", `"podManagementPolicy":"Parallel"`, neverReady, ""},
		{"DaemonSet", 37, 1, 1, "1", "", forEver, "more pods than 1."},
		{"DaemonSet", 37, 2, 1, "3", "", forEver, "more pods than 4."},
		{"DaemonSet", 37, 1, 1, `"1%"`, "", forEver, "more pods than 1."},
		{"DaemonSet", 37, 1, 1, `"67%"`, "", forEver, "more pods than 3."},
		{"DaemonSet", 37, 1, 1, `"99%"`, "", forEver, "more pods than 99."},
		{"DaemonSet", 37, 1, 1, `"100%"`, "", neverReady, ""},
		{"DaemonSet", 37, 1, 1, `"x%"`, "", forEver, ""},
		{"DaemonSet", 37, 5, 1, `0,"maxSurge":1`, "", "with maxSurge", ""},
	} {
		text := fmt.Sprintf(`{"replicas":%d,"updateStrategy":{"rollingUpdate":{"maxUnavailable":%s}}`, c.replicas, c.limit)
		if c.spec != "" {
			text += "," + c.spec
		}
		spec := map[string]any{}
		require.NoError(t, json.Unmarshal([]byte(text+"}"), &spec))
		said := carried(t, c.minor, c.kind, c.slots, spec)
		assert.Equal(t, c.want != "", said != "", "%+v: %s", c, said)
		assert.Contains(t, said, c.want, "%+v", c)
		assert.Contains(t, said, c.fitting, "%+v", c)
	}
}

func TestWarningComputesTheShortestDeadlineOfProgress(t *testing.T) {
	const ready = `"readinessProbe":{"httpGet":{"port":80}}`
	for name, c := range map[string]struct {
		annotations, spec, pod, container string
		needs                             int // zero for a kind of workload without a warning at any deadline
	}{
		"without probes":             {needs: 60 + 4 + 30 + 10},
		"its grace":                  {pod: `"terminationGracePeriodSeconds":0`, needs: 60 + 4 + 10},
		"its readiness probe":        {container: ready, needs: 60 + 4 + 30 + 40 + 10},
		"its startup probe, too":     {container: ready + `,"startupProbe":{"initialDelaySeconds":5,"periodSeconds":1,"failureThreshold":15}`, needs: 60 + 4 + 30 + 40 + 20 + 10},
		"probes that give hours":     {container: `"startupProbe":{"failureThreshold":9000}`, needs: 60 + 4 + 30 + 3600 + 10},
		"its endpoint delay":         {annotations: `,"metaparticle.io/endpoint-delay":"5500ms","metaparticle.io/ports":"80"`, needs: 60 + 8 + 30 + 10},
		"with Recreate":              {spec: `,"strategy":{"type":"Recreate"}`},
		"without pods":               {spec: `,"replicas":0`},
		"pods of two slots":          {annotations: `,"metaparticle.io/lock":"x"`},
		"a semaphore, without turns": {annotations: `,"metaparticle.io/lock":"x:2"`},
		"only the holder is Ready":   {annotations: `,"metaparticle.io/readiness":"holder"`},
	} {
		for _, deadline := range []int{1, c.needs - 1, c.needs} {
			_, warnings, err := Carry(t.Context(), Workload{Kind: "Deployment", Namespace: "shop", Kubernetes: 37, Raw: fmt.Appendf(nil,
				`{"metadata":{"name":"x","annotations":{"metaparticle.io/singleton":"true"%s}},"spec":{"progressDeadlineSeconds":%d%s,"template":{"spec":{%s"containers":[{"name":"app","image":"app:1","command":["x"]%s}]}}}}`,
				c.annotations, deadline, c.spec, after(c.pod), before(c.container))})
			require.NoError(t, err)
			said := ""
			for _, w := range warnings {
				if w.Reason == reason.HurriedRollout {
					said += w.Error()
				}
			}
			if c.needs == 0 || deadline >= c.needs {
				assert.Empty(t, said, "%s, %d", name, deadline)
				continue
			}
			assert.Contains(t, said, fmt.Sprintf("progressDeadlineSeconds is %d, and a healthy version can need %d s:", deadline, c.needs), name)
		}
	}
}

// after and before separate a field of JSON from the others; empty for no field.
func after(field string) string {
	if field == "" {
		return ""
	}
	return field + ","
}

func before(field string) string {
	if field == "" {
		return ""
	}
	return "," + field
}
