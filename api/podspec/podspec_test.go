// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package podspec

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/txtar"
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

func TestOnlyACompleteGateIsRecognized(t *testing.T) {
	for _, r := range rows(t) {
		t.Run(r.Name, func(t *testing.T) {
			assert.Equal(t, r.Gate, HasGate(&r.Spec))
			stripped := Strip(&r.Spec)
			assert.Equal(t, r.Gate, HasGate(&stripped), "as the cache keeps the pod")
		})
	}
}

func TestGateIsRecognizedByItsContainersArguments(t *testing.T) {
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
		InitContainers: []corev1.Container{{Name: api.AgentContainer, RestartPolicy: &always, Args: api.DefaultLocalArgs().Args()}},
	}))
	assert.True(t, HasGate(&corev1.PodSpec{
		InitContainers: []corev1.Container{{Name: api.AgentContainer, RestartPolicy: &always}},
		Containers:     []corev1.Container{{Command: append([]string{api.ShimProgram}, api.DefaultExecArgs().Args()...)}},
	}))
}

// The golden files of package mutate contain pods that the webhook has gated.
func TestGatesInTheWebhooksGoldenFilesAreRecognized(t *testing.T) {
	files, err := filepath.Glob("../../mutate/testdata/*.txtar")
	require.NoError(t, err)
	gates, shims := 0, 0
	for _, file := range files {
		archive, err := txtar.ParseFile(file)
		require.NoError(t, err)
		i := slices.IndexFunc(archive.Files, func(f txtar.File) bool { return f.Name == "patched.yaml" })
		if i < 0 || strings.HasSuffix(file, "/marks-kept.txtar") { // a person wrote the gate in this file
			continue
		}
		var pod corev1.Pod
		require.NoError(t, yaml.Unmarshal(archive.Files[i].Data, &pod))
		if pod.Kind != "Pod" || pod.Labels[api.GatedLabel] == "" {
			continue
		}
		if _, waits := pod.Annotations[api.AfterAnnotation]; waits {
			assert.NotEmpty(t, ConditionsOf(&pod.Spec), file)
		}
		if pod.Labels[api.GatedLabel] == api.GatedAfter {
			continue
		}
		gates++
		assert.True(t, HasGate(&pod.Spec), file)
		for _, c := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
			switch {
			case isLocal(c):
				assert.Equal(t, c.Args, api.RecallLocalArgs(c.Args).Args(), file)
			case isAgent(c):
				assert.Equal(t, c.Args, api.RecallRunArgs(c.Args).Args(), file)
			}
			if isShim(c) {
				shims++
				assert.Equal(t, c.Command[1:], api.RecallExecArgs(c.Command).Args(), file)
			}
		}
	}
	assert.Greater(t, gates, 40)
	assert.Greater(t, shims, 40)
}

// mixed draws a random spec from the parts of a gate, and from similar parts.
func mixed(r *rand.Rand) *corev1.PodSpec {
	always, never := corev1.ContainerRestartPolicyAlways, corev1.ContainerRestartPolicyNever
	containers := func() []corev1.Container {
		var all []corev1.Container
		for range r.IntN(3) {
			all = append(all, corev1.Container{
				Name:          []string{api.AgentContainer, api.WaitContainer, api.TurnContainer, api.AfterContainer, api.BarrierContainer, "app"}[r.IntN(6)],
				Image:         "x",
				RestartPolicy: []*corev1.ContainerRestartPolicy{nil, &always, &never}[r.IntN(3)],
				Command:       [][]string{nil, {api.ShimProgram}, {api.ShimProgram, api.ExecRole, "--"}, {"sh", api.ShimProgram, api.ExecRole}}[r.IntN(4)],
				Args:          [][]string{nil, {api.RunRole, api.ReadinessGateArg}, {"-" + api.ReadinessGateArg}, {api.AfterRole, "-conditions=lock.a"}, {api.BarrierRole, "-barrier=warm=2", "-run=a", "-lease-duration=30s"}, {api.LocalRole, "-claims=lock/a"}, {api.RunRole, api.LocalRole}, {api.LocalRole, "-claims=barrier/a.b=2,lock/a,barrier/c=1", "-run=a", "-lease-duration=1m"}, {api.LocalRole, "-claims=barrier/a=2", "-lease-duration=1m"}}[r.IntN(9)],
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

// arrivalsOf maps each Lease of the pod's barriers to the lease duration.
func arrivalsOf(spec *corev1.PodSpec) map[string]time.Duration {
	all := map[string]time.Duration{}
	for _, b := range BarriersOf(spec) {
		for _, lease := range b.Leases() {
			all[lease] = b.LeaseDuration
		}
	}
	return all
}

func FuzzStrippedPodSpecKeepsConditionsBarriersAndGate(f *testing.F) {
	for seed := range uint64(500) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, seed uint64) {
		spec := mixed(rand.New(rand.NewPCG(seed, 0)))
		before := spec.DeepCopy()
		stripped := Strip(spec)
		require.Equal(t, before, spec, "the pod itself stays as it is")
		require.Equal(t, HasGate(spec), HasGate(&stripped))
		require.Equal(t, ServesLocal(spec), ServesLocal(&stripped))
		require.Equal(t, ConditionsOf(spec), ConditionsOf(&stripped))
		require.Equal(t, BarrierOf(spec).Leases(), BarrierOf(&stripped).Leases())
		require.Equal(t, arrivalsOf(spec), arrivalsOf(&stripped))
		require.Equal(t, stripped, Strip(&stripped))
		require.Equal(t, "till", stripped.ServiceAccountName)
		require.Empty(t, stripped.NodeName)
	})
}

// The author of a pod may write a megabyte of arguments, and enroll keeps each pod in memory.
func TestStrippedPodSpecOmitsHugeArgumentsOfAgent(t *testing.T) {
	always := corev1.ContainerRestartPolicyAlways
	stripped := Strip(&corev1.PodSpec{InitContainers: []corev1.Container{
		{Name: api.AgentContainer, RestartPolicy: &always, Args: []string{api.LocalRole, strings.Repeat("x", 1<<20)}},
		{Name: "app", RestartPolicy: &always, Args: []string{api.LocalRole, "-claims=lock/a"}},
	}})
	require.Len(t, stripped.InitContainers, 1)
	assert.Equal(t, []string{api.LocalRole}, stripped.InitContainers[0].Args)
}

// A request of 1.5 MB has room for 30,000 containers, and each takes a kilobyte in memory.
func TestStrippedPodSpecKeepsFewContainersAndGates(t *testing.T) {
	spec := &corev1.PodSpec{}
	for i := range 1000 {
		spec.Containers = append(spec.Containers, corev1.Container{Name: strconv.Itoa(i), Command: []string{api.ShimProgram, api.ExecRole}})
		spec.InitContainers = append(spec.InitContainers, corev1.Container{Name: strconv.Itoa(i)})
		spec.ReadinessGates = append(spec.ReadinessGates, corev1.PodReadinessGate{ConditionType: api.ReadyCondition})
	}
	stripped := Strip(spec)
	assert.Len(t, stripped.Containers, 1)
	assert.Equal(t, []string{api.ShimProgram, api.ExecRole}, stripped.Containers[0].Command)
	assert.Empty(t, stripped.InitContainers)
	assert.Equal(t, 1, cap(stripped.ReadinessGates))
}

// The author of a pod may write a megabyte of arguments, and enroll keeps each pod in memory.
func TestStrippedLocalAPIAgentKeepsOnlyBarrierArguments(t *testing.T) {
	always, huge := corev1.ContainerRestartPolicyAlways, strings.Repeat("x", 1<<20)
	agent := func(args ...string) *corev1.PodSpec {
		return &corev1.PodSpec{InitContainers: []corev1.Container{
			{Name: api.AgentContainer, RestartPolicy: &always, Args: append([]string{api.LocalRole}, args...)},
		}}
	}
	stripped := Strip(agent("-claims=lock/a,barrier/warm=2", "-run=a", "-lease-duration=1m0s", "-socket="+huge, huge))
	assert.Equal(t, agent("-claims=barrier/warm=2", "-run=a", "-lease-duration=1m0s").InitContainers[0].Args, stripped.InitContainers[0].Args)
	for _, run := range []string{"-run=" + huge, "-run=a.b", "-run=", huge} {
		assert.Empty(t, BarriersOf(agent("-claims=barrier/warm=2", run))[0].Leases())
		assert.Equal(t, []string{api.LocalRole}, Strip(agent("-claims=barrier/warm=2", run)).InitContainers[0].Args)
	}
	assert.Empty(t, BarriersOf(agent("-claims=lock/a", "-run=a")))
	spec := agent("-claims=barrier/warm=2", "-run=a")
	spec.InitContainers[0].RestartPolicy = nil
	assert.Empty(t, BarriersOf(spec), "an agent that is no sidecar serves nothing")
}

// The author of a pod may write a megabyte of arguments, and enroll keeps each pod in memory.
func TestStrippedConditionInitContainerKeepsOnlyConditions(t *testing.T) {
	huge := strings.Repeat("x", 1<<20)
	stripped := Strip(&corev1.PodSpec{InitContainers: []corev1.Container{
		{Name: api.AfterContainer, Args: []string{api.AfterRole, "-conditions=lock.a", huge}},
		{Name: api.AfterContainer, Args: []string{api.AfterRole, "-conditions=" + huge}},
	}})
	assert.Equal(t, []string{api.AfterRole, "-conditions=lock.a"}, stripped.InitContainers[0].Args)
	assert.Empty(t, stripped.InitContainers[1].Args)
}

// The author of a pod may write a megabyte of arguments, and enroll keeps each pod in memory.
func TestStrippedBarrierInitContainerKeepsOnlyBarrierArguments(t *testing.T) {
	huge := strings.Repeat("x", 1<<20)
	words := []string{api.BarrierRole, "-barrier=warm=2", "-run=a", "-lease-duration=30s"}
	stripped := Strip(&corev1.PodSpec{InitContainers: []corev1.Container{
		{Name: api.BarrierContainer, Args: append(slices.Clone(words), "-credentials="+huge, huge)},
		{Name: api.BarrierContainer, Args: []string{api.BarrierRole, "-barrier=warm=2", "-run=" + huge}},
	}})
	assert.Equal(t, words, stripped.InitContainers[0].Args)
	assert.Empty(t, stripped.InitContainers[1].Args)
	for what, change := range map[string]func(*corev1.Container){
		"another name": func(c *corev1.Container) { c.Name = "barrier" },
		"a shell":      func(c *corev1.Container) { c.Command = []string{"sh"} },
		"a sidecar":    func(c *corev1.Container) { c.RestartPolicy = new(corev1.ContainerRestartPolicyAlways) },
		"another role": func(c *corev1.Container) { c.Args = append([]string{api.RunRole}, words[1:]...) },
	} {
		c := corev1.Container{Name: api.BarrierContainer, Args: slices.Clone(words)}
		require.Len(t, BarrierOf(&corev1.PodSpec{InitContainers: []corev1.Container{c}}).Leases(), 2)
		change(&c)
		assert.Empty(t, BarrierOf(&corev1.PodSpec{InitContainers: []corev1.Container{c}}).Leases(), what)
	}
}

func TestConditionsOutsideTheirInjectedContainerAreIgnored(t *testing.T) {
	always := corev1.ContainerRestartPolicyAlways
	waits := corev1.Container{Name: api.AfterContainer, Args: []string{api.AfterRole, "-conditions=once.schema=7,lock.a"}}
	edited := func(edit func(*corev1.Container)) []corev1.Container {
		c := waits
		edit(&c)
		return []corev1.Container{{Name: "warm"}, c}
	}
	assert.Equal(t, []api.Condition{{Lease: "lock.a"}, {Lease: "once.schema", Key: "7"}},
		ConditionsOf(&corev1.PodSpec{InitContainers: edited(func(*corev1.Container) {})}))
	for what, containers := range map[string][]corev1.Container{
		"none":           nil,
		"another name":   edited(func(c *corev1.Container) { c.Name = "after" }),
		"a sidecar":      edited(func(c *corev1.Container) { c.RestartPolicy = &always }),
		"a shell":        edited(func(c *corev1.Container) { c.Command = []string{"sh"} }),
		"another role":   edited(func(c *corev1.Container) { c.Args = []string{"run", "-conditions=lock.a"} }),
		"no slot's name": edited(func(c *corev1.Container) { c.Args = []string{"after", "-conditions=kube-scheduler"} }),
	} {
		assert.Empty(t, ConditionsOf(&corev1.PodSpec{InitContainers: containers}), what)
	}
	assert.Empty(t, ConditionsOf(&corev1.PodSpec{Containers: []corev1.Container{waits}}))
}

// CEL cannot parse a command line as [HasGate] does. So the policies on marks and gates compare
// single words of a container's command and arguments.
func TestPoliciesRecognizeTheSameGatesAsGoCode(t *testing.T) {
	const shim = "c.?command[?0].orValue('') == '" + api.ShimProgram + "' && c.?command[?1].orValue('') == '" + api.ExecRole + "'"
	marks := `[request.operation == 'CREATE' ? object : oldObject].all(o,
		o.spec.?initContainers.orValue([]).exists(c, c.name == '` + api.AgentContainer + `' && c.?restartPolicy.orValue('') == '` + string(corev1.ContainerRestartPolicyAlways) + `') &&
		((o.spec.containers + o.spec.initContainers).exists(c, ` + shim + `) ||
		o.spec.initContainers.exists(c, c.name == '` + api.WaitContainer + `') ||
		o.spec.initContainers.exists(c, c.name == '` + api.AgentContainer + `' && c.?restartPolicy.orValue('') == '` + string(corev1.ContainerRestartPolicyAlways) + `' && c.?args[?0].orValue('') == '` + api.LocalRole + `') ||
		o.spec.initContainers.exists(c, c.name == '` + api.AgentContainer + `' && '` + api.ReadinessGateArg + `' in c.?args.orValue([])) &&
		o.spec.?readinessGates.orValue([]).exists(g, g.conditionType == '` + api.ReadyCondition + `')))`
	assert.Contains(t, words(t, "marks"), strings.Join(strings.Fields(marks), " "))
	gate := words(t, "gate")
	for _, part := range []string{
		"variables.inits.filter(c, c.name == '" + api.AgentContainer + "' && c.?restartPolicy.orValue('') == '" + string(corev1.ContainerRestartPolicyAlways) + "')",
		"!(" + shim + ")", "(object.spec.containers + (object.metadata.annotations[?'" + api.OnceAnnotation + "'].orValue('false') != 'false' ? variables.inits : [])).exists(c, " + shim + ")",
		"variables.agents.exists(c, '" + api.ReadinessGateArg + "' in c.?args.orValue([]))",
	} {
		assert.Contains(t, gate, part)
	}
}

// words returns the text of a policy, with one space between words.
func words(t *testing.T, policy string) string {
	t.Helper()
	text, err := os.ReadFile("../../manifests/policies/" + policy + ".yaml")
	require.NoError(t, err)
	return strings.Join(strings.Fields(string(text)), " ")
}
