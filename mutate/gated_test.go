// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package mutate_test

import (
	"encoding/json"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/api/podspec"
	"github.com/metaparticle-io/metaparticle/mutate"
	"github.com/metaparticle-io/metaparticle/mutate/feature"
	"github.com/metaparticle-io/metaparticle/mutate/mutatetest"
)

// words has valid and slightly wrong words for the commands and arguments of a gate.
var words = []any{
	api.ShimProgram, api.ShimProgram, api.ShimProgram, "exec", "exec", "exec", "--", "--", "run", "exec ", "Exec", "", "$", "$$", "$$$", "$(X)",
	"-container=c0", "-container=$$(X)", "-on-loss=end", "-on-loss=odd", "-on-loss", "--on-loss=restart", "-grace=-1s", "-grace=9999999h", "-grace=x",
	"-stop-signal=QUIT", "-stop-signal=$(X)", "-stop-signal=$$$X", "-stop-signal=CHLD", "-stop-signal=", "-socket=/x",
	`-platforms={"amd64":{"command":["$(a)","$$"]}}`, "-platforms={}", "-platforms=null", "-platforms=", "-platforms=[",
	`-post-start={"exec":{"command":["$$(X)","$"]}}`, "-post-start={}", "-post-start=null", "-post-start=", `-post-start={"odd":1}`,
	`-pre-stop={"sleep":{"seconds":-1}}`, `-pre-stop={"httpGet":{"port":0},"exec":{}}`, "-pre-stop=1", "a\x00b", "\u2028<&>", "\U0001F600", "x",
	"-slots=lock.other", "-slots=lock.a", "-slots", "-gate=readiness", "-gate=container", "-containers=c1", "-install=/x", "-ports=0", "-ports=80",
	`-probes={"c0":{"startup":null,"liveness":{}}}`, `-probes={"c0":null}`, `-probes={"c0":{"startup":{"periodSeconds":-5,"exec":{}}}}`, "-probes=", "-probes={",
}

func (r randomPod) words() []any {
	all := make([]any, r.IntN(9))
	for i := range all {
		all[i] = words[r.IntN(len(words))]
	}
	if r.chance(40) {
		all = append([]any{api.ShimProgram, "exec"}, all...)
	}
	return all
}

// oddPod returns a random pod with parts of a gate, some valid and some slightly wrong.
func (r randomPod) oddPod() map[string]any {
	pod := r.pod()
	spec := pod["spec"].(map[string]any)
	inits, _ := spec["initContainers"].([]any)
	if r.chance(40) {
		pod["metadata"].(map[string]any)["annotations"].(map[string]any)[api.SlotsAnnotation] = "lock.a"
		agent := map[string]any{"name": r.one(api.AgentContainer, api.AgentContainer, api.TurnContainer, api.WaitContainer), "image": "a:1"}
		if r.chance(50) {
			agent["restartPolicy"] = r.one("Always", "Never", "odd", nil)
		}
		// The API server refuses two containers of one name.
		inits = slices.DeleteFunc(inits, func(c any) bool { return c.(map[string]any)["name"] == agent["name"] })
		inits = append(inits, agent)
		spec["initContainers"] = inits
	}
	main, _ := spec["containers"].([]any)
	for _, c := range slices.Concat(inits, main) {
		of := c.(map[string]any)
		for _, field := range []string{"command", "args"} {
			if r.chance(50) {
				of[field] = r.words()
			}
		}
		if r.chance(10) {
			of["env"] = []any{map[string]any{"name": "X", "value": "$(X)"}}
		}
	}
	return pod
}

func TestClaimingPodIsGatedCompletelyOrRefused(t *testing.T) {
	gated := 0
	for seed := range uint64(3000) {
		if checkGate(t, seed) {
			gated++
		}
	}
	checkGate(t, 101607) // this seed makes a shim with malformed platforms and no command
	assert.Greater(t, gated, 100)
}

// If the period of the probe is not positive, or overflows, the agent's ticker panics at
// each start of the application.
func TestInvalidStartupProbeInAgentsArgumentsIsRefused(t *testing.T) {
	for numbers, want := range map[string]bool{
		`"timeoutSeconds":1,"periodSeconds":10,"successThreshold":1,"failureThreshold":3`:            true,
		`"timeoutSeconds":1,"periodSeconds":-5,"successThreshold":1,"failureThreshold":3`:            false,
		`"timeoutSeconds":1,"successThreshold":1,"failureThreshold":3`:                               false,
		`"timeoutSeconds":1,"periodSeconds":9223372036854,"successThreshold":1,"failureThreshold":3`: false,
	} {
		probes, err := json.Marshal(`-probes={"app":{"startup":{"exec":{"command":["x"]},` + numbers + `}}}`)
		require.NoError(t, err)
		raw := `{"metadata":{"name":"p","annotations":{"metaparticle.io/lock":"a","metaparticle.io/slots":"lock.a"}},"spec":{
			"initContainers":[{"name":"metaparticle-agent","image":"a","restartPolicy":"Always","args":["run",` + string(probes) + `]}],
			"containers":[{"name":"app","image":"a","command":["/metaparticle/bin/agent","exec","-container=app","--"],"args":["app"]}]}}`
		_, _, err = mutate.Inject(t.Context(), mutate.Subject{Raw: []byte(raw), Origin: feature.Origin{Workload: api.Workload{Kind: "Pod", Name: "p"}}}, mutatetest.AgentImage, mutatetest.Facts{})
		assert.Equal(t, want, err == nil, "%s: %v", numbers, err)
	}
}

// checkGate requires that an admitted pod with a claim has the gate that the policies
// require. A second pass must change nothing. The agent and the shims must be able to parse
// their arguments.
func checkGate(t *testing.T, seed uint64) bool {
	t.Helper()
	_, once, said := injected(t, seed, randomPod{rand.New(rand.NewPCG(seed, 1))}.oddPod())
	if once == nil {
		return false
	}
	var pod corev1.Pod
	require.NoError(t, json.Unmarshal(once, &pod))
	request, err := api.Parse(pod.Annotations)
	require.NoError(t, err)
	if !request.Claims() {
		return false
	}
	require.True(t, podspec.HasGate(&pod.Spec), said)
	i := slices.IndexFunc(pod.Spec.InitContainers, func(c corev1.Container) bool { return c.Name == api.AgentContainer })
	args := pod.Spec.InitContainers[i].Args
	if request.Gate == api.GateProgram {
		require.Equal(t, api.LocalRole, args[0], said)
		local, err := api.ParseLocalArgs(expanded(args[1:]))
		require.NoError(t, err, said)
		require.Equal(t, request.Claimed, local.Claims, said)
		require.Equal(t, strings.Join(request.Slots(randomWorkload), ","), pod.Annotations[api.SlotsAnnotation], said)
		return true
	}
	run, err := api.ParseRunArgs(expanded(args[1:]))
	require.NoError(t, err, said)
	require.Equal(t, request.Slots(randomWorkload), run.Slots, said)
	require.Equal(t, strings.Join(run.Slots, ","), pod.Annotations[api.SlotsAnnotation], said)
	for _, probes := range run.Probes {
		// The webhook has moved the startup probe into the agent's arguments, which the API server does not
		// validate. So the test validates the probe.
		if p := probes.Startup; p != nil {
			require.Positive(t, p.Period(), said)
			require.Positive(t, p.Timeout(), said)
			require.GreaterOrEqual(t, p.InitialDelay(), time.Duration(0), said)
		}
	}
	if !request.Shims() {
		require.Equal(t, request.Gate, run.Gate, said)
		return true
	}
	for _, c := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
		if !slices.Contains(slices.Concat(run.Containers, run.InitContainers), c.Name) {
			continue
		}
		require.True(t, api.IsShim(c.Command), said)
		exec, _, err := api.ParseExecArgs(expanded(slices.Concat(c.Command, c.Args)[2:]))
		require.NoError(t, err, said)
		require.Equal(t, c.Name, exec.Container, said)
		require.Equal(t, api.Socket, exec.Socket, said)
	}
	return true
}

// expanded returns words as the kubelet gives them to a container without environment variables.
func expanded(words []string) []string {
	var all []string
	for _, word := range words {
		all = append(all, strings.ReplaceAll(word, "$$", "$"))
	}
	return all
}
