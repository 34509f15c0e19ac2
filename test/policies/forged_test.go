// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package policies

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apiserver/pkg/authentication/user"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/mutate"
	"github.com/metaparticle-io/metaparticle/mutate/feature"
	"github.com/metaparticle-io/metaparticle/mutate/image"
	"github.com/metaparticle-io/metaparticle/mutate/mutatetest"
)

// bare returns a pod of the containers "app" and "helper" without a workload.
func bare(name string, annotations map[string]string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: shop, Name: name, Annotations: maps.Clone(annotations)},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: "app"}, {Name: "helper", Image: "app"}}},
	}
}

// gated returns a pod as the webhook patches it.
func gated(t *testing.T, pod *corev1.Pod) *corev1.Pod {
	t.Helper()
	raw, err := json.Marshal(pod)
	require.NoError(t, err)
	of := feature.Origin{Workload: api.Workload{Kind: "Pod", Name: pod.Name}}
	if owner := metav1.GetControllerOf(pod); owner != nil {
		of = feature.Origin{
			Workload: api.Workload{Group: batchv1.GroupName, Kind: owner.Kind, Name: owner.Name},
			Run:      feature.Run{UID: string(owner.UID), AtOnce: 3, Completions: new(int32(3))},
		}
	}
	images := mutatetest.Facts{Images: map[string]mutatetest.Image{"app": {Command: image.Command{Entrypoint: []string{"/app"}}}}}
	ops, _, err := mutate.Inject(t.Context(), mutate.Subject{Raw: raw, Namespace: shop, Origin: of, Kubernetes: feature.RestartsAll}, mutatetest.AgentImage, images)
	require.NoError(t, err)
	patched := new(corev1.Pod)
	require.NoError(t, json.Unmarshal(mutatetest.Apply(t, raw, ops), patched))
	return patched
}

// created returns the messages of the policies that refuse the creation of a pod by a person.
func created(t *testing.T, in *corev1.Namespace, pod *corev1.Pod) []string {
	t.Helper()
	pod = pod.DeepCopy()
	pod.Namespace = in.Name
	return refusals(t, request{by: &user.DefaultInfo{Name: "person"}, resource: podResource, in: in, object: pod})
}

// refusing returns the names of the policies in their refusals, without the common prefix.
func refusing(refusals []string) string {
	var names []string
	for _, r := range refusals {
		name, _, _ := strings.Cut(r, ": ")
		names = append(names, strings.TrimPrefix(name, "metaparticle-"))
	}
	return strings.Join(slices.Compact(names), " ")
}

// edit breaks the gate of a pod. Exactly the policies "by" refuse the pod, where its namespace has opted
// in. So the pod would be admitted without these policies.
type edit struct {
	take func(*corev1.Pod)
	by   string
}

// requireGate requires that the policies admit a pod of the webhook where its namespace has opted in,
// and refuse it after each edit. They also refuse each of these pods elsewhere.
func requireGate(t *testing.T, whole *corev1.Pod, edits map[string]edit) {
	t.Helper()
	here, elsewhere := namespace(shop, true), namespace("other", false)
	require.Empty(t, created(t, here, whole), "with all its parts")
	assert.Contains(t, strings.Join(created(t, elsewhere, whole), ""), "metaparticle-marks: MarksForged: ", "where nothing is injected")
	for what, e := range edits {
		t.Run(what, func(t *testing.T) {
			pod := whole.DeepCopy()
			e.take(pod)
			refused := created(t, here, pod)
			assert.Equal(t, e.by, refusing(refused), refused)
			for _, r := range append(refused, created(t, elsewhere, pod)...) {
				assert.Regexp(t, ": (NotInjected|NamespaceNotOptedIn|MarksForged|Leftover|OptedOut): ", r)
			}
			assert.NotEmpty(t, created(t, elsewhere, pod))
		})
	}
}

// initContainer returns a pod's init container by its name.
func initContainer(pod *corev1.Pod, name string) *corev1.Container {
	i := slices.IndexFunc(pod.Spec.InitContainers, func(c corev1.Container) bool { return c.Name == name })
	return &pod.Spec.InitContainers[i]
}

// without returns an edit that removes an init container.
func without(name string) func(*corev1.Pod) {
	return func(pod *corev1.Pod) {
		pod.Spec.InitContainers = slices.DeleteFunc(pod.Spec.InitContainers, func(c corev1.Container) bool { return c.Name == name })
	}
}

// ordinary makes the agent an ordinary init container instead of a sidecar.
func ordinary(pod *corev1.Pod) {
	c := initContainer(pod, api.AgentContainer)
	c.RestartPolicy, c.RestartPolicyRules, c.Lifecycle = nil, nil, nil
}

// sidecar returns an edit that makes an init container a sidecar.
func sidecar(name string) func(*corev1.Pod) {
	return func(pod *corev1.Pod) {
		initContainer(pod, name).RestartPolicy = new(corev1.ContainerRestartPolicyAlways)
	}
}

// args returns an edit that replaces the arguments of an init container.
func args(name string, args ...string) func(*corev1.Pod) {
	return func(pod *corev1.Pod) { initContainer(pod, name).Args = args }
}

// command returns an edit that gives an init container a command.
func command(name string, command ...string) func(*corev1.Pod) {
	return func(pod *corev1.Pod) { initContainer(pod, name).Command = command }
}

// annotated returns an edit that sets an annotation.
func annotated(key, value string) func(*corev1.Pod) {
	return func(pod *corev1.Pod) { pod.Annotations[key] = value }
}

// unannotated returns an edit that removes an annotation.
func unannotated(key string) func(*corev1.Pod) {
	return func(pod *corev1.Pod) { delete(pod.Annotations, key) }
}

// marked returns an edit that sets the label of gated pods, or removes the label if the value is empty.
func marked(value string) func(*corev1.Pod) {
	return func(pod *corev1.Pod) {
		pod.Labels[api.GatedLabel] = value
		if value == "" {
			delete(pod.Labels, api.GatedLabel)
		}
	}
}

// ownedBy returns an edit that replaces the owners of a pod.
func ownedBy(owners ...metav1.OwnerReference) func(*corev1.Pod) {
	return func(pod *corev1.Pod) { pod.OwnerReferences = owners }
}

// withoutVolume removes the gate's volume.
func withoutVolume(pod *corev1.Pod) {
	pod.Spec.Volumes = slices.DeleteFunc(pod.Spec.Volumes, func(v corev1.Volume) bool { return v.Name == api.Volume })
	for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range list {
			list[i].VolumeMounts = slices.DeleteFunc(list[i].VolumeMounts, func(m corev1.VolumeMount) bool { return m.Name == api.Volume })
		}
	}
}

// volumeOfNode replaces the gate's volume by a directory of the node.
func volumeOfNode(pod *corev1.Pod) {
	i := slices.IndexFunc(pod.Spec.Volumes, func(v corev1.Volume) bool { return v.Name == api.Volume })
	pod.Spec.Volumes[i].VolumeSource = corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/tmp"}}
}

// another maps each gate to a different gate.
var another = map[api.Gate]api.Gate{api.GateContainer: api.GatePod, api.GatePod: api.GateReadiness, api.GateReadiness: api.GateContainer}

// missing returns edits that break a pod's gate, whichever gate the pod has.
func missing(gate api.Gate) map[string]func(*corev1.Pod) {
	return map[string]func(*corev1.Pod){
		"no agent":               without(api.AgentContainer),
		"an agent that ends":     ordinary,
		"no slots":               unannotated(api.SlotsAnnotation),
		"slots that are none":    annotated(api.SlotsAnnotation, ""),
		"no label":               marked(""),
		"a label that says no":   marked("false"),
		"another gate asked for": annotated(api.GateAnnotation, string(another[gate])),
	}
}

// The map "missingOf" has, for each gate, further edits that break this gate.
var missingOf = map[api.Gate]map[string]func(*corev1.Pod){
	api.GateContainer: {
		"no volume":              withoutVolume,
		"a volume of the node":   volumeOfNode,
		"no shim":                func(pod *corev1.Pod) { pod.Spec.Containers[0].Command, pod.Spec.Containers[1].Command = nil, nil },
		"no shim in the second":  func(pod *corev1.Pod) { pod.Spec.Containers[1].Command = nil },
		"a shim that is no shim": func(pod *corev1.Pod) { pod.Spec.Containers[1].Command[1] = "handle" },
		"no shim where named": func(pod *corev1.Pod) {
			pod.Spec.Containers = append(pod.Spec.Containers, corev1.Container{Name: "third", Image: "app"})
			pod.Annotations[api.ContainersAnnotation] = "app, third"
		},
		"no shim in init container": func(pod *corev1.Pod) {
			pod.Spec.InitContainers = append(pod.Spec.InitContainers, corev1.Container{Name: "migrate", Image: "app"})
			agent := initContainer(pod, api.AgentContainer)
			agent.Args = append(agent.Args, "-init-containers=other,migrate")
		},
	},
	api.GatePod: {
		"no volume":               withoutVolume,
		"a volume of the node":    volumeOfNode,
		"no turn":                 without(api.TurnContainer),
		"a turn that is none":     args(api.TurnContainer, "wait"),
		"a turn that never ends":  sidecar(api.TurnContainer),
		"no wait":                 without(api.WaitContainer),
		"a wait that is none":     args(api.WaitContainer, "turn"),
		"a wait for nothing":      command(api.WaitContainer, "/app"),
		"a wait that nobody ends": sidecar(api.WaitContainer),
		"in another order":        func(pod *corev1.Pod) { slices.Reverse(pod.Spec.InitContainers) },
		"a loss restarts nothing": func(pod *corev1.Pod) { initContainer(pod, api.AgentContainer).RestartPolicyRules = nil },
		"another end restarts all": func(pod *corev1.Pod) {
			initContainer(pod, api.AgentContainer).RestartPolicyRules[0].ExitCodes.Values[0]++
		},
		"a loss restarts all but it": func(pod *corev1.Pod) {
			initContainer(pod, api.AgentContainer).RestartPolicyRules[0].ExitCodes.Operator = corev1.ContainerRestartRuleOnExitCodesOpNotIn
		},
	},
	api.GateReadiness: {
		"no readiness gate": func(pod *corev1.Pod) { pod.Spec.ReadinessGates = nil },
		"another condition": func(pod *corev1.Pod) { pod.Spec.ReadinessGates[0].ConditionType = "example.com/ready" },
		"no argument":       args(api.AgentContainer, "run"),
		"another argument":  args(api.AgentContainer, "run", "-gate=pod"),
	},
}

// locked returns a pod of the webhook with a lock.
func locked(t *testing.T, gate api.Gate) *corev1.Pod {
	t.Helper()
	return gated(t, bare("forged", map[string]string{api.LockAnnotation: "forged", api.GateAnnotation: string(gate)}))
}

// A person wrote or copied the pod, and no webhook has seen it. A pod that lacks one part of its gate
// would run beside the holder.
func TestClaimWithAnIncompleteGateIsRefused(t *testing.T) {
	here, elsewhere := namespace(shop, true), namespace("other", false)
	for gate, further := range missingOf {
		t.Run(string(gate), func(t *testing.T) {
			complete := locked(t, gate)
			requireGate(t, complete, nil)
			edits := missing(gate)
			maps.Copy(edits, further)
			for what, take := range edits {
				t.Run(what, func(t *testing.T) {
					pod := complete.DeepCopy()
					take(pod)
					assert.Contains(t, strings.Join(created(t, here, pod), ""),
						"metaparticle-gate: NotInjected: the pod has metaparticle.io/lock, but no gate was injected: ")
					assert.Contains(t, strings.Join(created(t, elsewhere, pod), ""), "metaparticle-gate: NamespaceNotOptedIn: ")
				})
			}
		})
	}
}

// A person wrote or copied the pod, and no webhook has seen it. The pod would start immediately, or
// would wait without the right to read the Leases of its conditions.
//
// docs/reference/compatibility.md: impossible/conditions-by-hand refused NotInjected
func TestPodWithForgedConditionsIsRefused(t *testing.T) {
	conditioned := map[string]string{api.AfterAnnotation: "once.schema=7, lock.a"}
	whole := gated(t, bare("later", conditioned))
	require.Equal(t, api.GatedAfter, whole.Labels[api.GatedLabel])
	requireGate(t, whole, map[string]edit{
		"no container":           {without(api.AfterContainer), "after marks"},
		"a container of a shell": {command(api.AfterContainer, "sh"), "after marks"},
		"a container beside":     {sidecar(api.AfterContainer), "after marks"},
		"another condition":      {args(api.AfterContainer, "after", "-conditions=once.schema=7"), "after"},
		"a longer name":          {args(api.AfterContainer, "after", "-conditions=lock.ab,once.schema=7"), "after"},
		"two lists":              {args(api.AfterContainer, "after", "-conditions=lock.a,once.schema=7", "-conditions=once.other=1"), "after"},
		"no argument":            {args(api.AfterContainer, "after"), "after marks"},
		"no label":               {marked(""), "after leftover"},
		"the label of a claim":   {marked(api.Gated), "leftover marks"},
		"slots":                  {annotated(api.SlotsAnnotation, "lock.a"), "marks"},
		"no annotation":          {unannotated(api.AfterAnnotation), "leftover"},
		"an opt-out":             {annotated(api.InjectAnnotation, "false"), "after"},
	})
	assert.Contains(t, strings.Join(created(t, namespace("other", false), bare("later", conditioned)), ""), "NamespaceNotOptedIn: the pod has metaparticle.io/after")
}

// jobs returns the owner references of the pods of two Jobs.
func jobs() (own, other metav1.OwnerReference) {
	job := func(name string, uid types.UID) metav1.OwnerReference {
		return metav1.OwnerReference{APIVersion: "batch/v1", Kind: "Job", Name: name, UID: uid, Controller: new(true)}
	}
	return job("own", "0b3b7a0e-1111-2222-3333-444455556666"), job("other", "9f1cdd6c-9e26-4c3f-9a39-0a2f6c1f1a0b")
}

// A pod that arrives at the barrier of another Job would open that barrier too early.
//
// docs/reference/compatibility.md: impossible/barrier-by-hand refused NotInjected
func TestPodWithAForgedBarrierIsRefused(t *testing.T) {
	own, other := jobs()
	pod := bare("train", map[string]string{api.BarrierAnnotation: "warm=3"})
	pod.Spec.RestartPolicy, pod.OwnerReferences = corev1.RestartPolicyNever, []metav1.OwnerReference{own}
	whole := gated(t, pod)
	require.Equal(t, api.GatedAfter, whole.Labels[api.GatedLabel])
	run, theirs := "-run="+string(own.UID), "-run="+string(other.UID)
	requireGate(t, whole, map[string]edit{
		"no container":           {without(api.BarrierContainer), "barrier marks"},
		"a container of a shell": {command(api.BarrierContainer, "sh"), "barrier marks"},
		"a container beside":     {sidecar(api.BarrierContainer), "barrier marks"},
		"another size":           {args(api.BarrierContainer, "barrier", "-barrier=warm=2", run, "-lease-duration=30s"), "barrier"},
		"another run":            {args(api.BarrierContainer, "barrier", "-barrier=warm=3", theirs, "-lease-duration=30s"), "barrier"},
		"two runs":               {args(api.BarrierContainer, "barrier", "-barrier=warm=3", run, "-lease-duration=30s", theirs), "barrier"},
		"another owner":          {ownedBy(other), "barrier"},
		"no owner":               {ownedBy(), "barrier"},
		"no label":               {marked(""), "barrier"},
		"slots":                  {annotated(api.SlotsAnnotation, string(own.UID)), "marks"},
		"no annotation":          {unannotated(api.BarrierAnnotation), "barrier"},
		"an opt-out":             {annotated(api.InjectAnnotation, "false"), "barrier"},
	})
}

// An agent that arrives at the barrier of another Job would open that barrier too early.
func TestLocalAPIPodWithForgedBarrierIsRefused(t *testing.T) {
	own, other := jobs()
	pod := bare("train", map[string]string{api.LocalAnnotation: "barrier/warm=3, lock/a"})
	pod.Spec.RestartPolicy, pod.OwnerReferences = corev1.RestartPolicyNever, []metav1.OwnerReference{own}
	whole := gated(t, pod)
	require.Equal(t, "barrier/warm=3,lock.a", whole.Annotations[api.SlotsAnnotation])
	const claims, lasts = "-claims=barrier/warm=3,lock/a", "-lease-duration=30s"
	run, theirs := "-run="+string(own.UID), "-run="+string(other.UID)
	requireGate(t, whole, map[string]edit{
		"another run":    {args(api.AgentContainer, "api", claims, theirs, lasts), "barrier"},
		"two runs":       {args(api.AgentContainer, "api", claims, run, lasts, theirs), "barrier gate"},
		"a run in front": {args(api.AgentContainer, "api", theirs, claims, lasts), "barrier gate"},
		"another size":   {args(api.AgentContainer, "api", "-claims=barrier/warm=2,lock/a", run, lasts), "gate"},
		"another owner":  {ownedBy(other), "barrier"},
		"no owner":       {ownedBy(), "barrier"},
		"no annotation": {func(pod *corev1.Pod) {
			unannotated(api.LocalAnnotation)(pod)
			args(api.AgentContainer, "api", claims, theirs, lasts)(pod)
		}, "barrier"},
	})
}

// A person wrote the gated pod by hand, or changed a copy of a gated pod: its agent is missing, or
// serves other claims than those in the pod's annotation.
//
// docs/reference/compatibility.md: impossible/local-api-by-hand refused NotInjected
func TestPodWithAForgedProgramGateIsRefused(t *testing.T) {
	asking := map[string]string{api.LocalAnnotation: "lock/a, semaphore/pool=3"}
	whole := gated(t, bare("asker", asking))
	require.Equal(t, "lock.a,semaphore.pool.0,semaphore.pool.1,semaphore.pool.2", whole.Annotations[api.SlotsAnnotation])
	require.Equal(t, api.Gated, whole.Labels[api.GatedLabel])
	const claims, lasts = "-claims=lock/a,semaphore/pool=3", "-lease-duration=30s"
	requireGate(t, whole, map[string]edit{
		"no agent":             {without(api.AgentContainer), "gate marks"},
		"a command of a shell": {command(api.AgentContainer, "sh"), "gate"},
		"an agent that ends":   {ordinary, "gate marks"},
		"a claim more":         {args(api.AgentContainer, "api", "-claims=election/b,lock/a,semaphore/pool=3", lasts), "gate"},
		"a claim less":         {args(api.AgentContainer, "api", "-claims=lock/a", lasts), "gate"},
		"another size":         {args(api.AgentContainer, "api", "-claims=lock/a,semaphore/pool=30", lasts), "gate"},
		"a longer name":        {args(api.AgentContainer, "api", "-claims=lock/ab,semaphore/pool=3", lasts), "gate"},
		"two lists":            {args(api.AgentContainer, "api", claims, "-claims=lock/b", lasts), "gate"},
		"other credentials":    {args(api.AgentContainer, "api", claims, lasts, "-credentials=/x"), "gate"},
		"the node's network":   {func(pod *corev1.Pod) { pod.Spec.HostNetwork = true }, "gate"},
		"a socket on the node": {func(pod *corev1.Pod) {
			pod.Spec.Volumes = append(pod.Spec.Volumes, corev1.Volume{Name: api.LocalVolume, VolumeSource: corev1.VolumeSource{
				HostPath: &corev1.HostPathVolumeSource{Path: "/run"},
			}})
			args(api.AgentContainer, "api", claims, lasts, "-socket="+api.LocalSocket)(pod)
		}, "gate"},
		"no argument":             {args(api.AgentContainer, "api"), "gate"},
		"no label":                {marked(""), "gate leftover marks"},
		"the label of conditions": {marked(api.GatedAfter), "gate leftover marks"},
		"no slots":                {unannotated(api.SlotsAnnotation), "gate leftover marks"},
		"a lock beside":           {annotated(api.LockAnnotation, "b"), "gate"},
		"an opt-out":              {annotated(api.InjectAnnotation, "false"), "gate"},
	})
	assert.Contains(t, strings.Join(created(t, namespace("other", false), bare("asker", asking)), ""), "NamespaceNotOptedIn: the pod has metaparticle.io/api")
}

// The annotation metaparticle.io/on-api-loss promises that a shim kills its program after the loss
// of a hold.
func TestLocalAPIPodWithIncompleteShimsIsRefused(t *testing.T) {
	const lasts = "-lease-duration=30s"
	requireGate(t, gated(t, bare("killed", map[string]string{api.LocalAnnotation: "lock/a", api.OnAPILossAnnotation: "kill"})), map[string]edit{
		"no shim":                 {func(pod *corev1.Pod) { pod.Spec.Containers[0].Command = []string{"/app"} }, "gate"},
		"an agent without them":   {args(api.AgentContainer, "api", "-claims=lock/a", lasts), "gate"},
		"another container":       {args(api.AgentContainer, "api", "-claims=lock/a", lasts, "-containers=app,x", "-port=80"), "gate"},
		"no container":            {args(api.AgentContainer, "api", "-claims=lock/a", lasts, "-containers=x"), "gate"},
		"shims without a promise": {unannotated(api.OnAPILossAnnotation), "gate"},
		"a volume of the node":    {volumeOfNode, "gate"},
	})
}
