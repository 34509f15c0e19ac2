// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package mutate_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/api/podspec"
	"github.com/metaparticle-io/metaparticle/mutate"
	"github.com/metaparticle-io/metaparticle/mutate/feature"
	"github.com/metaparticle-io/metaparticle/mutate/image"
	"github.com/metaparticle-io/metaparticle/mutate/mutatetest"
	"github.com/metaparticle-io/metaparticle/mutate/reason"
)

// randomPod makes random pods, of which many are valid. Many JSON objects in such a pod have
// a field that no version of Kubernetes knows.
type randomPod struct{ *rand.Rand }

func (r randomPod) chance(percent int) bool { return r.IntN(100) < percent }

func (r randomPod) one(values ...any) any { return values[r.IntN(len(values))] }

func (r randomPod) quantities() map[string]any {
	list := map[string]any{}
	for _, name := range []string{"cpu", "memory", "ephemeral-storage"} {
		if r.chance(50) {
			list[name] = r.one("0", "1", "1", "2", "100m")
		}
	}
	return list
}

func (r randomPod) container(name string) map[string]any {
	c := map[string]any{"name": name, "image": r.one("a:1", "a:1", "b:1", "c:1"), "unknown" + name: r.one(1.5, "x", []any{}, nil)}
	if r.chance(60) {
		c["command"] = []any{"run", name}
	}
	if r.chance(10) {
		c["command"] = []any{api.ShimProgram, "exec", "-container=" + name, "--"}
	}
	if r.chance(50) {
		c["args"] = []any{r.one("$(X)", "y")}
	}
	if r.chance(50) {
		limits := r.quantities()
		c["resources"] = map[string]any{"limits": limits, "requests": r.one(limits, r.quantities()), "unknown": 1.0}
	}
	if r.chance(50) {
		mount := r.one("data", "data", "data", "data", "data", "data", "data", api.Volume)
		c["volumeMounts"] = r.one([]any{}, nil, []any{map[string]any{"name": mount, "mountPath": r.one("/data", "/data", "/data", api.MountPath), "unknown": true}})
	}
	if r.chance(30) {
		c["ports"] = []any{map[string]any{"containerPort": 80.0, "unknown": 1.0}}
	}
	if r.chance(3) {
		c["readinessProbe"] = map[string]any{}
	}
	if r.chance(10) {
		c["lifecycle"] = map[string]any{"stopSignal": "SIGUSR1"}
	}
	if r.chance(20) {
		c["lifecycle"] = map[string]any{r.one("preStop", "postStart").(string): r.action(true), "unknown": 1.0}
	}
	for _, probe := range []string{"livenessProbe", "readinessProbe", "startupProbe"} {
		if r.chance(20) {
			c[probe] = r.action(false)
		}
	}
	if r.chance(5) {
		c["securityContext"] = map[string]any{"unknown": 1.0}
	}
	return c
}

// action returns the action of a hook or a probe.
func (r randomPod) action(hook bool) map[string]any {
	all := []any{
		map[string]any{"exec": map[string]any{"command": []any{"$(X)", "$$", "--"}}},
		map[string]any{"httpGet": map[string]any{"path": "/$x?a=b", "port": r.one(80.0, 80.0, 80.0, 0.0)}},
		map[string]any{"tcpSocket": map[string]any{"port": 81.0}},
	}
	if hook {
		return r.one(append(all, map[string]any{"sleep": map[string]any{"seconds": 1.0}})...).(map[string]any)
	}
	probe := r.one(append(all, map[string]any{"grpc": map[string]any{"port": 82.0}})...).(map[string]any)
	if r.chance(50) {
		probe["periodSeconds"] = 3.0
	}
	return probe
}

func (r randomPod) pod() map[string]any {
	annotations := map[string]any{}
	if r.chance(80) {
		annotations[api.SingletonAnnotation] = r.one("true", "true", "false", "name", "bad_name")
	}
	if r.chance(40) {
		annotations[api.LockAnnotation] = r.one("a", "b,a")
	}
	if r.chance(25) {
		annotations[api.ContainersAnnotation] = r.one("c0", "c1", "c0,c1", "c0,i0", "c0,i1", "i0,i1,c0,c1")
	}
	if r.chance(10) {
		annotations = map[string]any{
			api.OnceAnnotation:       r.one("true", "true", "a=7", "false", "odd"),
			api.ContainersAnnotation: r.one("c0", "i0", "i1"),
		}
	}
	if r.chance(10) {
		annotations = map[string]any{api.LocalAnnotation: r.one("lock/a", "semaphore/p=2, lock/b,election/m", "lock/a,election/a", "rwlock/c=2,lock/a", "once/a")}
		if r.chance(40) {
			annotations[api.OnAPILossAnnotation] = r.one("tell", "kill")
		}
	} else if r.chance(20) {
		annotations[api.GateAnnotation] = r.one("container", "pod", "readiness")
	}
	if r.chance(10) {
		annotations[api.SlotsAnnotation] = "forged"
	}
	if _, local := annotations[api.LocalAnnotation]; !local && r.chance(10) {
		annotations[api.OnLossAnnotation] = "restart"
	}
	if r.chance(15) {
		annotations[api.AfterAnnotation] = r.one("lock.z", "once.a=7", "singleton.deployment.e, lock.a")
	}
	spec := map[string]any{"unknown": []any{map[string]any{"a": 1.0}}}
	var containers []any
	for i := range r.IntN(4) + 1 {
		containers = append(containers, r.container(fmt.Sprint("c", i)))
	}
	spec["containers"] = containers
	if r.chance(50) {
		var inits []any
		for i := range r.IntN(3) {
			inits = append(inits, r.container(fmt.Sprint("i", i)))
		}
		if len(inits) > 0 && r.chance(20) {
			inits[0].(map[string]any)["restartPolicy"] = "Always"
		}
		if r.chance(10) {
			inits = append(inits, r.container(r.one(api.AgentContainer, api.TurnContainer, api.AfterContainer).(string)))
		}
		spec["initContainers"] = r.one(inits, inits, inits, nil)
	}
	if r.chance(50) {
		spec["volumes"] = r.one(nil, []any{}, []any{map[string]any{"name": "data", "unknown": 1.0}})
	}
	if r.chance(30) {
		spec["readinessGates"] = []any{map[string]any{"conditionType": r.one("x", api.ReadyCondition), "unknown": 1.0}}
	}
	if r.chance(3) {
		spec["hostNetwork"] = true
	}
	if _, local := annotations[api.LocalAnnotation]; local && r.chance(40) {
		socket := map[string]any{"name": api.LocalVolume, "emptyDir": map[string]any{}}
		if r.chance(10) {
			socket = map[string]any{"name": api.LocalVolume, "hostPath": map[string]any{"path": "/run"}}
		}
		spec["volumes"] = []any{socket}
		spec["hostNetwork"] = r.chance(50)
	}
	if r.chance(20) {
		spec["restartPolicy"] = r.one("Never", "Always", "OnFailure")
	}
	if r.chance(20) {
		spec["securityContext"] = map[string]any{"runAsUser": r.one(0.0, 7.0), "unknown": 1.0}
	}
	metadata := map[string]any{"annotations": annotations, "unknown": 1.0, "name": "p"}
	if r.chance(20) {
		metadata["labels"] = r.one(nil, map[string]any{}, map[string]any{"a/b~c": "d", api.RoleLabel: "holder"}, map[string]any{api.GatedLabel: api.GatedAfter})
	}
	return map[string]any{"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec, "unknown": 1.0}
}

// The webhook gates each pod, or refuses the pod for a reason. A second pass changes
// nothing, unknown fields survive in their places, and the QoS class stays.
func TestRandomPodsAreGatedOrRefused(t *testing.T) {
	gated := 0
	for seed := range uint64(600) {
		if checkRandomPod(t, seed) {
			gated++
		}
	}
	assert.Greater(t, gated, 100, "too few pods were gated to mean anything")
}

// injected returns the text of a random pod before and after its injection, and of what failed. For a refused
// pod the second text is nil. A second pass must change nothing.
func injected(t *testing.T, seed uint64, pod map[string]any) (raw, once []byte, said string) {
	t.Helper()
	raw, err := json.Marshal(pod)
	require.NoError(t, err)
	said = fmt.Sprintf("seed %d: %s", seed, raw)
	subject := mutate.Subject{Raw: raw, Namespace: "shop", Origin: feature.Origin{
		Workload: randomWorkload, Revision: api.Revision{Workload: "5b7e0a11-1", Number: 1, Hash: "6d4b"},
	}, Kubernetes: feature.RestartsAll}
	images := mutatetest.Facts{Images: map[string]mutatetest.Image{
		"a:1": {Command: image.Command{Entrypoint: []string{"e"}, Cmd: []string{"$(c)"}, StopSignal: "SIGQUIT"}},
		"b:1": {},
		"c:1": {Command: image.Command{Platforms: map[string]image.Command{"amd64": {Entrypoint: []string{"$x"}}, "arm64": {Cmd: []string{"y"}}}}},
	}}
	ops, _, err := mutate.Inject(t.Context(), subject, mutatetest.AgentImage, images)
	if err != nil {
		if !errors.Is(err, mutate.ErrMalformed) {
			require.ErrorAs(t, err, new(reason.Refusals), said)
		}
		require.Empty(t, ops, said)
		return raw, nil, said
	}
	once = mutatetest.Apply(t, raw, ops)
	subject.Raw = once
	again, _, err := mutate.Inject(t.Context(), subject, mutatetest.AgentImage, images)
	require.NoError(t, err, said)
	require.Empty(t, again, said)
	return raw, once, said
}

// randomWorkload is the workload of each random pod.
var randomWorkload = api.Workload{Group: "apps", Kind: "Deployment", Name: "d"}

func checkRandomPod(t *testing.T, seed uint64) (gated bool) {
	t.Helper()
	random := randomPod{rand.New(rand.NewPCG(seed, 0))}
	raw, once, said := injected(t, seed, random.pod())
	if once == nil {
		return false
	}
	checkSurvival(t, raw, once, said)
	var before, after corev1.Pod
	require.NoError(t, json.Unmarshal(raw, &before))
	require.NoError(t, json.Unmarshal(once, &after))
	if _, asks := before.Annotations[api.LocalAnnotation]; asks {
		checkLocal(t, &before, &after, said)
	} else if !strings.Contains(string(once), api.ShimProgram) && !strings.Contains(string(once), api.AfterContainer) {
		return false
	}
	order := func(name string) int {
		return slices.IndexFunc(after.Spec.InitContainers, func(c corev1.Container) bool { return c.Name == name })
	}
	if turn := order(api.TurnContainer); turn >= 0 {
		require.Less(t, turn, order(api.AgentContainer), said)
	}
	if first := order(api.AfterContainer); first >= 0 {
		for _, behind := range []string{api.TurnContainer, api.AgentContainer} {
			require.True(t, order(behind) < 0 || first < order(behind), said)
		}
		require.NotEmpty(t, podspec.ConditionsOf(&after.Spec), said)
	}
	// The webhook takes a pod with marks for a pod that an earlier pass has gated, and replaces
	// the injected containers. This can change the QoS class, so the comparison excludes such a
	// pod.
	if _, came := before.Annotations[api.SlotsAnnotation]; !came && before.Labels[api.GatedLabel] == "" {
		require.Equal(t, classOf(&before), classOf(&after), said)
	}
	return true
}

// checkLocal requires that a pod with the local API gets the agent, and keeps its containers.
func checkLocal(t *testing.T, before, after *corev1.Pod, said string) {
	t.Helper()
	if before.Annotations[api.OnAPILossAnnotation] != string(api.OnAPILossKill) {
		require.Equal(t, before.Spec.Containers, after.Spec.Containers, said)
	}
	for i, was := range before.Spec.Containers {
		is := after.Spec.Containers[i]
		require.Equal(t, was.Lifecycle, is.Lifecycle, said)
		require.Equal(t, []*corev1.Probe{was.ReadinessProbe, was.LivenessProbe, was.StartupProbe}, []*corev1.Probe{is.ReadinessProbe, is.LivenessProbe, is.StartupProbe}, said)
	}
	require.Equal(t, before.Spec.ReadinessGates, after.Spec.ReadinessGates, said)
	require.Equal(t, before.Spec.SecurityContext, after.Spec.SecurityContext, said)
	require.True(t, podspec.ServesLocal(&after.Spec), said)
	i := slices.IndexFunc(after.Spec.InitContainers, func(c corev1.Container) bool { return c.Name == api.AgentContainer })
	request, err := api.Parse(before.Annotations)
	require.NoError(t, err, said)
	args := api.RecallLocalArgs(after.Spec.InitContainers[i].Args)
	require.Equal(t, request.Claimed, args.Claims, said)
	require.Equal(t, before.Spec.HostNetwork, args.Port == 0, said)
	var shims []string
	for _, c := range after.Spec.Containers {
		if api.IsShim(c.Command) {
			shims = append(shims, c.Name)
		}
	}
	require.Equal(t, api.Leashed(request), len(shims) > 0, said)
	require.Equal(t, shims, args.Containers, said)
	socket := slices.IndexFunc(after.Spec.Volumes, func(v corev1.Volume) bool { return v.Name == api.LocalVolume && v.EmptyDir != nil })
	require.Equal(t, socket >= 0, args.Socket != "", said)
	require.True(t, args.Socket != "" || !before.Spec.HostNetwork, said)
	require.Equal(t, strings.Join(request.Slots(api.Workload{}), ","), after.Annotations[api.SlotsAnnotation], said)
}

// checkSurvival requires that the pod's own JSON members keep their values and places.
func checkSurvival(t *testing.T, raw, patched []byte, said string) {
	t.Helper()
	var before, after map[string]any
	require.NoError(t, json.Unmarshal(raw, &before))
	require.NoError(t, json.Unmarshal(patched, &after))
	same := func(a, b map[string]any, but ...string) {
		for _, key := range but {
			delete(a, key)
			delete(b, key)
		}
		require.Equal(t, a, b, said)
	}
	specBefore, specAfter := before["spec"].(map[string]any), after["spec"].(map[string]any)
	for list, changed := range map[string][]string{
		"containers":     {"command", "args", "volumeMounts", "lifecycle", "livenessProbe", "readinessProbe", "startupProbe"},
		"initContainers": {"command", "args", "volumeMounts"},
		"volumes":        nil,
		"readinessGates": nil,
	} {
		was, _ := specBefore[list].([]any)
		is, _ := specAfter[list].([]any)
		was, is = withoutOurs(was), withoutOurs(is)
		require.GreaterOrEqual(t, len(is), len(was), said)
		for i := range was {
			a, b := was[i].(map[string]any), is[i].(map[string]any)
			if !strings.Contains(fmt.Sprint(b["command"]), api.ShimProgram) {
				require.Equal(t, a, b, said)
			}
			mountsBefore, _ := a["volumeMounts"].([]any)
			mountsAfter, _ := b["volumeMounts"].([]any)
			for j := range mountsBefore {
				require.Equal(t, mountsBefore[j], mountsAfter[j], said)
			}
			same(a, b, changed...)
		}
	}
	metaBefore, metaAfter := before["metadata"].(map[string]any), after["metadata"].(map[string]any)
	same(metaBefore, metaAfter, "annotations", "labels")
	withoutOurSysctl(specBefore, specAfter)
	same(specBefore, specAfter, "containers", "initContainers", "volumes", "readinessGates")
	same(before, after, "metadata", "spec")
}

// withoutOurs returns a list of containers without the injected containers.
func withoutOurs(list []any) []any {
	return slices.DeleteFunc(slices.Clone(list), func(element any) bool {
		name, _ := element.(map[string]any)["name"].(string)
		return slices.Contains(api.Injected, name)
	})
}

// withoutOurSysctl removes the injected sysctl from the patched spec. The function also removes
// the JSON objects that the patch made only to contain the sysctl.
func withoutOurSysctl(before, after map[string]any) {
	security, _ := after["securityContext"].(map[string]any)
	list, _ := security["sysctls"].([]any)
	ours := map[string]any{"name": "net.ipv4.ip_unprivileged_port_start", "value": "0"}
	was, _ := before["securityContext"].(map[string]any)
	wasList, _ := was["sysctls"].([]any)
	if len(list) != len(wasList)+1 || !reflect.DeepEqual(list[len(list)-1], any(ours)) {
		return
	}
	security["sysctls"] = list[:len(list)-1]
	if wasList == nil {
		delete(security, "sysctls")
	}
	if len(security) == 0 && was == nil {
		delete(after, "securityContext")
	}
}

// classOf returns the QoS class by the rules in Kubernetes' documentation, independently of
// resources.go.
func classOf(pod *corev1.Pod) corev1.PodQOSClass {
	all := append(append([]corev1.Container{}, pod.Spec.Containers...), pod.Spec.InitContainers...)
	value := func(list corev1.ResourceList, name corev1.ResourceName) resource.Quantity { return list[name] }
	guaranteed, bestEffort := true, true
	for _, c := range all {
		for _, name := range []corev1.ResourceName{"cpu", "memory"} {
			limit := value(c.Resources.Limits, name)
			request, stated := c.Resources.Requests[name]
			if !stated {
				request = limit
			}
			if limit.Sign() > 0 || request.Sign() > 0 {
				bestEffort = false
			}
			if limit.Sign() == 0 || limit.Cmp(request) != 0 {
				guaranteed = false
			}
		}
	}
	switch {
	case bestEffort:
		return corev1.PodQOSBestEffort
	case guaranteed:
		return corev1.PodQOSGuaranteed
	}
	return corev1.PodQOSBurstable
}

// A malformed pod causes no panic. If Inject patches the pod, a second call for the patched pod
// changes nothing.
func FuzzInjectNeverPanics(f *testing.F) {
	for seed := range uint64(20) {
		raw, err := json.Marshal(randomPod{rand.New(rand.NewPCG(seed, 0))}.pod())
		require.NoError(f, err)
		f.Add(raw)
	}
	f.Add([]byte(`{"metadata":{"annotations":{"metaparticle.io/lock":"a"}},"spec":{"containers":[null]}}`))
	f.Add([]byte(`{"metadata":{"annotations":{"metaparticle.io/lock":"a"}},"spec":{"containers":[{"name":"a","command":["x"]}],"initContainers":[null],"volumes":[null]}}`))
	f.Add([]byte(`{"metadata":{"annotations":{"metaparticle.io/lock":"a"},"labels":null},"spec":null}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		subject := mutate.Subject{Raw: raw, Namespace: "shop", Origin: feature.Origin{Workload: api.Workload{Kind: "Pod", Name: "p"}}}
		ops, _, err := mutate.Inject(t.Context(), subject, mutatetest.AgentImage, mutatetest.Facts{})
		if err != nil || len(ops) == 0 {
			return
		}
		subject.Raw = mutatetest.Apply(t, raw, ops)
		again, _, err := mutate.Inject(t.Context(), subject, mutatetest.AgentImage, mutatetest.Facts{})
		require.NoError(t, err)
		require.Empty(t, again)
	})
}

// Malformed workloads cause no panic. If Carry patches the workload, a second call for the
// patched workload changes nothing.
func FuzzMalformedWorkloadsCauseNoPanic(f *testing.F) {
	f.Add("Deployment",
		[]byte(`{"metadata":{"annotations":{"metaparticle.io/lock":"a"}},"spec":{"template":{"spec":{"containers":[{"name":"a"}]}}}}`),
		[]byte(`{"metadata":{"annotations":{"metaparticle.io/lock":"b"}}}`))
	f.Add("CronJob", []byte(`{"metadata":{"annotations":{"metaparticle.io/lock":"a"}},"spec":null}`), []byte(nil))
	f.Add("Job", []byte(`{"metadata":{"annotations":{"metaparticle.io/lock":"a"}},"spec":{"template":{"metadata":null}}}`), []byte(`{}`))
	f.Fuzz(func(t *testing.T, kind string, raw, old []byte) {
		ops, _, err := mutate.Carry(t.Context(), mutate.Workload{Kind: kind, Raw: raw, Old: old, Kubernetes: feature.RestartsAll})
		if err != nil || len(ops) == 0 {
			return
		}
		again, _, err := mutate.Carry(t.Context(), mutate.Workload{Kind: kind, Raw: mutatetest.Apply(t, raw, ops), Old: old, Kubernetes: feature.RestartsAll})
		require.NoError(t, err)
		require.Empty(t, again)
	})
}
