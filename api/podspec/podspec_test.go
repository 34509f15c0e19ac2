// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package podspec

import (
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/metaparticle-io/metaparticle/api"
)

type row struct {
	Name string
	Gate bool
	Spec corev1.PodSpec
}

func rows(t *testing.T) []row {
	t.Helper()
	text, err := os.ReadFile("testdata/pods.yaml")
	require.NoError(t, err)
	var all []row
	require.NoError(t, yaml.UnmarshalStrict(text, &all))
	require.NotEmpty(t, all)
	return all
}

func TestHasGateAnswersForOddPods(t *testing.T) {
	for _, r := range rows(t) {
		t.Run(r.Name, func(t *testing.T) {
			assert.Equal(t, r.Gate, HasGate(&r.Spec))
			outline := Outline(&r.Spec)
			assert.Equal(t, r.Gate, HasGate(&outline), "as the cache keeps the pod")
		})
	}
}

// Between the webhook and HasGate are the arguments alone.
func TestHasGateKnowsArgumentsOfEveryGate(t *testing.T) {
	always := corev1.ContainerRestartPolicyAlways
	for gate, want := range map[api.Gate]bool{api.GateContainer: false, api.GatePod: false, api.GateReadiness: true} {
		args := api.DefaultRunArgs()
		args.Gate = gate
		assert.Equal(t, want, HasGate(&corev1.PodSpec{
			InitContainers: []corev1.Container{{Name: api.AgentContainer, RestartPolicy: &always, Args: args.Args()}},
			ReadinessGates: []corev1.PodReadinessGate{{ConditionType: api.ReadyCondition}},
		}), gate)
	}
	assert.True(t, HasGate(&corev1.PodSpec{
		InitContainers: []corev1.Container{{Name: api.AgentContainer, RestartPolicy: &always}},
		Containers:     []corev1.Container{{Command: append([]string{api.AgentBinary}, api.DefaultExecArgs().Args()...)}},
	}))
}

// mixed draws a spec from the parts that a gate has, and from parts like them.
func mixed(r *rand.Rand) *corev1.PodSpec {
	always, never := corev1.ContainerRestartPolicyAlways, corev1.ContainerRestartPolicyNever
	containers := func() []corev1.Container {
		var all []corev1.Container
		for range r.IntN(3) {
			all = append(all, corev1.Container{
				Name:          []string{api.AgentContainer, api.WaitContainer, api.TurnContainer, "app"}[r.IntN(4)],
				Image:         "x",
				RestartPolicy: []*corev1.ContainerRestartPolicy{nil, &always, &never}[r.IntN(3)],
				Command:       [][]string{nil, {api.AgentBinary}, {api.AgentBinary, api.ExecRole, "--"}, {"sh", api.AgentBinary, api.ExecRole}}[r.IntN(4)],
				Args:          [][]string{nil, {api.RunRole, api.ReadinessGateArg}, {"-" + api.ReadinessGateArg}}[r.IntN(3)],
			})
		}
		return all
	}
	spec := &corev1.PodSpec{ServiceAccountName: "till", NodeName: "n", InitContainers: containers(), Containers: containers()}
	for range r.IntN(3) {
		spec.ReadinessGates = append(spec.ReadinessGates, corev1.PodReadinessGate{
			ConditionType: []corev1.PodConditionType{api.ReadyCondition, "example.com/ready"}[r.IntN(2)],
		})
	}
	return spec
}

func FuzzOutline(f *testing.F) {
	for seed := range uint64(500) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, seed uint64) {
		spec := mixed(rand.New(rand.NewPCG(seed, 0)))
		before := spec.DeepCopy()
		outline := Outline(spec)
		require.Equal(t, before, spec, "the pod itself stays as it is")
		require.Equal(t, HasGate(spec), HasGate(&outline))
		require.Equal(t, outline, Outline(&outline))
		require.Equal(t, "till", outline.ServiceAccountName)
		require.Empty(t, outline.NodeName)
	})
}

// The policies on marks and gates compare words, because CEL can parse no arguments.
func TestPoliciesLookForTheSameWords(t *testing.T) {
	const shim = "c.?command[?0].orValue('') == '" + api.AgentBinary + "' && c.?command[?1].orValue('') == '" + api.ExecRole + "'"
	marks := `[request.operation == 'CREATE' ? object : oldObject].all(o,
		o.spec.?initContainers.orValue([]).exists(c, c.name == '` + api.AgentContainer + `' && c.?restartPolicy.orValue('') == '` + string(corev1.ContainerRestartPolicyAlways) + `') &&
		(o.spec.containers.exists(c, ` + shim + `) ||
		o.spec.initContainers.exists(c, c.name == '` + api.WaitContainer + `') ||
		o.spec.initContainers.exists(c, c.name == '` + api.AgentContainer + `' && '` + api.ReadinessGateArg + `' in c.?args.orValue([])) &&
		o.spec.?readinessGates.orValue([]).exists(g, g.conditionType == '` + api.ReadyCondition + `')))`
	assert.Contains(t, words(t, "marks"), strings.Join(strings.Fields(marks), " "))
	gate := words(t, "gate")
	for _, part := range []string{
		"variables.inits.filter(c, c.name == '" + api.AgentContainer + "' && c.?restartPolicy.orValue('') == '" + string(corev1.ContainerRestartPolicyAlways) + "')",
		"!(" + shim + ")", "object.spec.containers.exists(c, " + shim + ")",
		"variables.agents.exists(c, '" + api.ReadinessGateArg + "' in c.?args.orValue([]))",
	} {
		assert.Contains(t, gate, part)
	}
}

// words returns a policy with one blank between words.
func words(t *testing.T, policy string) string {
	t.Helper()
	text, err := os.ReadFile("../../manifests/policies/" + policy + ".yaml")
	require.NoError(t, err)
	return strings.Join(strings.Fields(string(text)), " ")
}
