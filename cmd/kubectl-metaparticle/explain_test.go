// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"io/fs"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/manifests"
	"github.com/metaparticle-io/metaparticle/mutate/feature"
)

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

var claim = map[string]string{api.SingletonAnnotation: "true"}

const slot = "singleton.deployment.biller"

func meta(name string, annotations map[string]string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: "shop", Name: name, UID: types.UID(name + "-uid"), Annotations: annotations}
}

func owned(m metav1.ObjectMeta, version, kind, by string) metav1.ObjectMeta {
	m.OwnerReferences = []metav1.OwnerReference{
		{APIVersion: version, Kind: kind, Name: by, UID: types.UID(by + "-uid"), Controller: new(true)},
	}
	return m
}

// deployment returns the Deployment biller and its ReplicaSet.
func deployment(on, onTemplate map[string]string) []client.Object {
	d := &appsv1.Deployment{ObjectMeta: meta("biller", on)}
	d.Spec.Template = corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Annotations: onTemplate},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: "app"}}},
	}
	return []client.Object{d, &appsv1.ReplicaSet{ObjectMeta: owned(meta("biller-1", nil), "apps/v1", "Deployment", "biller")}}
}

// plainPod returns a pod of the Deployment biller, without a gate.
func plainPod(name string, annotations map[string]string) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: owned(meta(name, annotations), "apps/v1", "ReplicaSet", "biller-1")}
	p.Status.Phase = corev1.PodRunning
	return p
}

// gatedPod returns a pod of the Deployment biller, with a gate.
func gatedPod(name string, ready corev1.ConditionStatus, reason, message string) *corev1.Pod {
	p := plainPod(name, map[string]string{api.SingletonAnnotation: "true", api.SlotsAnnotation: slot})
	p.Labels = map[string]string{api.GatedLabel: api.Gated}
	p.Spec.InitContainers = []corev1.Container{{Name: api.AgentContainer, RestartPolicy: new(corev1.ContainerRestartPolicyAlways)}}
	p.Spec.Containers = []corev1.Container{{Name: "app", Command: []string{api.ShimProgram, api.ExecRole}}}
	p.Status.Conditions = []corev1.PodCondition{
		{Type: api.ReadyCondition, Status: ready, Reason: reason, Message: message}, {Type: corev1.PodReady, Status: ready},
	}
	return p
}

func leaseOf(pod string) *coordinationv1.Lease {
	l := &coordinationv1.Lease{ObjectMeta: meta(slot, map[string]string{api.TokenAnnotation: "4711", api.ServingAnnotation: "x"})}
	l.Spec.LeaseDurationSeconds = new(int32(30))
	l.Spec.HolderIdentity = new("")
	if pod != "" {
		l.Spec.HolderIdentity = new(api.Identity(pod, pod+"-uid"))
		l.Spec.AcquireTime = &metav1.MicroTime{Time: noon.Add(-10 * time.Minute)}
		l.Spec.RenewTime = &metav1.MicroTime{Time: noon.Add(-3 * time.Second)}
	}
	return l
}

func event(kind, name, reason, message string) *corev1.Event {
	return &corev1.Event{
		ObjectMeta: meta(name+"."+reason, nil), Type: corev1.EventTypeWarning, Reason: reason, Message: message,
		InvolvedObject: corev1.ObjectReference{Kind: kind, Name: name, UID: types.UID(name + "-uid")},
		LastTimestamp:  metav1.Time{Time: noon.Add(-time.Minute)},
	}
}

func together(lists ...any) []client.Object {
	var all []client.Object
	for _, l := range lists {
		switch l := l.(type) {
		case client.Object:
			all = append(all, l)
		case []client.Object:
			all = append(all, l...)
		}
	}
	return all
}

// explainerOf returns an explainer of the namespace shop at noon.
func explainerOf(reader client.WithWatch) *explainer {
	return &explainer{cluster: cluster{WithWatch: reader, minor: feature.RestartsAll}, namespace: "shop", now: noon}
}

// answer returns the answer of the command "explain". The argument "optedIn" tells whether the
// namespace has opted in.
func answer(t *testing.T, optedIn bool, target string, there ...client.Object) string {
	t.Helper()
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop", Labels: map[string]string{}}}
	if optedIn {
		namespace.Labels[api.InjectionLabel] = api.InjectionEnabled
	}
	installed := &admissionregistrationv1.MutatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{Name: webhookName}}
	reader := fake.NewClientBuilder().WithReturnManagedFields().WithObjects(namespace, installed).WithObjects(there...).Build()
	kind, name, _ := strings.Cut(target, "/")
	var out strings.Builder
	_, err := explain(t.Context(), explainerOf(reader), &out, "", kind, name)
	require.NoError(t, err)
	return out.String()
}

func TestExplainCommandShowsHolderAndStandbys(t *testing.T) {
	there := together(deployment(claim, claim), leaseOf("a"),
		gatedPod("a", corev1.ConditionTrue, "Holding", "this pod holds it"),
		gatedPod("b", corev1.ConditionFalse, "HolderUnreachable", "nothing answers"))
	assert.Equal(t, `Deployment/biller in shop: gated, 2 pods
namespace:
  shop  opted in
annotations:
  metaparticle.io/singleton=true  on the workload and its template
slots:
  singleton.deployment.biller  held by a, token 4711, since 2026-01-02T11:50:00Z (10m), renewed 3s ago
pods:
  a  holds singleton.deployment.biller  Ready      Holding: this pod holds it
  b  stands by                          not Ready  HolderUnreachable: nothing answers
`, answer(t, true, "Deployment/biller", there...))

	// The answer about a pod shows only that pod.
	one := answer(t, true, "Pod/b", there...)
	assert.Contains(t, one, "Pod/b (of Deployment/biller) in shop: gated\n")
	assert.Contains(t, one, "held by a,")
	assert.Contains(t, one, "  b  stands by  not Ready  HolderUnreachable")
	assert.NotContains(t, one, "Holding")
}

func TestExplainCommandNamesServicesThatStandbysRefuse(t *testing.T) {
	pods := []*corev1.Pod{gatedPod("a", corev1.ConditionTrue, "Holding", "x"), gatedPod("b", corev1.ConditionTrue, "StandingBy", "x")}
	for _, p := range pods {
		p.Labels["app"], p.Spec.InitContainers[0].Args = "biller", api.DefaultRunArgs().Args()
	}
	service := &corev1.Service{ObjectMeta: meta("bills", nil)}
	service.Spec = corev1.ServiceSpec{Selector: map[string]string{"app": "biller"}, Ports: []corev1.ServicePort{{Port: 8080}}}
	said := answer(t, true, "Deployment/biller", together(deployment(claim, claim), leaseOf("a"), pods[0], pods[1], service)...)
	assert.Contains(t, said, "  - Service bills, port 8080/TCP: ServiceNotForwarded: a Service sends connections to a port that the standbys of its pods do not forward.")
}

// asked returns the Leases of a slot whose holder a has announced its end to c, and the pods of the slot.
func asked() []client.Object {
	held := leaseOf("a")
	held.Labels = map[string]string{api.ManagedLabel: "true"}
	held.Annotations[api.ServingAnnotation] = noon.Add(-9 * time.Minute).Format(time.RFC3339)
	held.Annotations[api.HoldAnnotation], held.Annotations[api.LeavingAnnotation] = "h1", "h1.7 soon:c_c-uid"
	held.Annotations[api.RolloutAnnotation] = `{"hold":"h1","yields":"now","moved":{"from":"z_z-uid","why":"Yielded","wish":"newer"}}`
	next := &coordinationv1.Lease{ObjectMeta: meta(api.NextLease(slot), map[string]string{api.WordsAnnotation: "takes:c_c-uid:h1.7"})}
	next.Labels = held.Labels
	return together(held, next, gatedPod("a", corev1.ConditionTrue, "Holding", "this pod holds it"),
		gatedPod("c", corev1.ConditionFalse, "AsksForItsTurn", "asks a for turn 1 of revision 5"))
}

func TestExplainCommandSaysWhySlotMovedAndWaits(t *testing.T) {
	there := together(deployment(claim, claim), asked())
	const why = `why:
  singleton.deployment.biller moved to a from z (Yielded to a newer revision).
  a leaves, and c follows. Answers: c (can take the slot). Its application has its pod's grace to stop, so there is nothing to do.
pods:
`
	assert.Contains(t, answer(t, true, "Deployment/biller", there...), why)
	assert.Contains(t, answer(t, true, "Pod/c", there...), why)

	back := asked()
	back[0].GetAnnotations()[api.RolloutAnnotation] = `{"hold":"h1","yields":"now","moved":{"from":"a_a-uid","why":"Yielded"}}`
	assert.Contains(t, answer(t, true, "Deployment/biller", together(deployment(claim, claim), back)...), "why:\n  singleton.deployment.biller came back to a (Yielded).\n")

	// Events tell why the slot of pods without turns moved.
	there = together(deployment(claim, claim), leaseOf("a"), gatedPod("a", corev1.ConditionTrue, "Holding", "x"),
		told(11*time.Minute, "z", api.ReasonAcquired, "this pod holds "+slot+" (token 1)"),
		told(10*time.Minute+time.Second, "z", api.ReasonReleased, slot+" is free again: exit code 1"), told(10*time.Minute, "a", api.ReasonAcquired, "this pod holds "+slot+" (token 2)"))
	there[2].SetLabels(map[string]string{api.ManagedLabel: "true"})
	delete(there[2].GetAnnotations(), api.ServingAnnotation)
	said := answer(t, true, "Deployment/biller", there...)
	assert.Contains(t, said, "why:\n  singleton.deployment.biller moved to a from z (exit code 1).\npods:\n")
	assert.Contains(t, said, "renewed 3s ago, its application does not serve\n")
}

// waitingPod returns a pod of the Deployment biller. The pod claims nothing, and has conditions.
func waitingPod(name, conditions string, met bool) *corev1.Pod {
	p := plainPod(name, map[string]string{api.AfterAnnotation: conditions})
	p.Labels = map[string]string{api.GatedLabel: api.GatedAfter}
	p.Spec.InitContainers = []corev1.Container{{Name: api.AfterContainer, Args: []string{api.AfterRole, "-conditions=" + conditions}}}
	p.Status.InitContainerStatuses = []corev1.ContainerStatus{{Name: api.AfterContainer}}
	if met {
		p.Status.InitContainerStatuses[0].State.Terminated = &corev1.ContainerStateTerminated{}
	}
	return p
}

func TestExplainCommandShowsPodsAtABarrier(t *testing.T) {
	barrier := map[string]string{api.BarrierAnnotation: "warm=2"}
	at := func(name string, open bool) *corev1.Pod {
		p := waitingPod(name, "lock.a", open)
		p.Annotations = barrier
		p.Spec.InitContainers = []corev1.Container{{Name: api.BarrierContainer, Args: []string{api.BarrierRole, "-barrier=warm=2", "-run=0b1c2d3e", "-lease-duration=30s"}}}
		p.Status.InitContainerStatuses[0].Name = api.BarrierContainer
		return p
	}
	shown := answer(t, false, "Deployment/biller", together(deployment(barrier, barrier), at("a", false), at("b", true))...)
	assert.Contains(t, shown, "a  waits at its barrier")
	assert.Contains(t, shown, "b  its barrier was open")
	assert.NotContains(t, shown, "not gated")
}

// localPod returns a pod of the Deployment biller. The program of the pod bids by the local API.
func localPod(name string, ready corev1.ConditionStatus, slots ...string) *corev1.Pod {
	p := plainPod(name, map[string]string{api.LocalAnnotation: "lock/a,election/main", api.SlotsAnnotation: strings.Join(slots, ",")})
	p.Labels = map[string]string{api.GatedLabel: api.Gated}
	p.Spec.InitContainers = []corev1.Container{{
		Name: api.AgentContainer, RestartPolicy: new(corev1.ContainerRestartPolicyAlways), Args: []string{api.LocalRole, "-claims=lock/a,election/main"},
	}}
	p.Spec.Containers = []corev1.Container{{Name: "app", Command: []string{"app"}}}
	p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: ready}}
	return p
}

func TestExplainCommandShowsPodsWithTheLocalAPI(t *testing.T) {
	asks := map[string]string{api.LocalAnnotation: "lock/a,election/main"}
	held := leaseOf("a")
	held.Name = "lock.a"
	shown := answer(t, true, "Deployment/biller", together(deployment(asks, asks), held,
		localPod("a", corev1.ConditionTrue, "election.main", "lock.a"), localPod("b", corev1.ConditionFalse, "election.main", "lock.a"))...)
	assert.Equal(t, `Deployment/biller in shop: gated, 2 pods
namespace:
  shop  opted in
annotations:
  metaparticle.io/api=lock/a,election/main  on the workload and its template
slots:
  election.main  has no Lease yet; enroll makes it where the namespace is opted in
  lock.a         held by a, token 4711, since 2026-01-02T11:50:00Z (10m), renewed 3s ago
pods:
  a  holds lock.a   Ready      the program asks by the local API
  b  holds nothing  not Ready  the program asks by the local API
`, shown)
}

func TestExplainCommandShowsIfLostHoldKillsProgram(t *testing.T) {
	asks := map[string]string{api.LocalAnnotation: "lock/a,election/main", api.OnAPILossAnnotation: "kill"}
	pod := localPod("a", corev1.ConditionTrue, "election.main", "lock.a")
	pod.Spec.InitContainers[0].Args = append(pod.Spec.InitContainers[0].Args, "-containers=app")
	shown := answer(t, true, "Deployment/biller", together(deployment(asks, asks), pod)...)
	assert.Contains(t, shown, "a  holds nothing  Ready  the program asks by the local API, and shims kill it after the loss of a hold")
}

// A pod that only uses a Variable holds nothing, because a Variable has no Lease.
func TestExplainCommandShowsPodsThatUseVariables(t *testing.T) {
	asks := map[string]string{api.LocalAnnotation: "variable/hits"}
	shown := answer(t, true, "Deployment/biller", together(deployment(asks, asks), localPod("a", corev1.ConditionTrue, "variable.hits"))...)
	assert.Equal(t, `Deployment/biller in shop: gated, 1 pod
namespace:
  shop  opted in
annotations:
  metaparticle.io/api=variable/hits  on the workload and its template
pods:
  a  holds nothing  Ready  the program asks by the local API
`, shown)
}

func TestExplainCommandShowsWhichConditionsAreMet(t *testing.T) {
	const conditions = "lock.a,lock.b,lock.c,lock.d,lock.e,once.schema=7,once.schema=8,once.seed=1"
	after := map[string]string{api.AfterAnnotation: conditions}
	lock := func(name, pod string, change func(*coordinationv1.Lease)) *coordinationv1.Lease {
		l := leaseOf(pod)
		l.Name = api.LockLease(name)
		l.Annotations = map[string]string{api.HoldAnnotation: "h", api.ServingAnnotation: noon.Add(-9 * time.Minute).Format(time.RFC3339)}
		change(l)
		return l
	}
	same := func(*coordinationv1.Lease) {}
	work := &coordinationv1.Lease{ObjectMeta: meta(api.OnceLease("schema"), map[string]string{api.DoneAnnotation: "6,7"})}
	full := &coordinationv1.Lease{ObjectMeta: meta(api.OnceLease("full"), map[string]string{api.DoneAnnotation: "2" + strings.Repeat(",2", api.MaxDone-1)})}
	claims := waitingPod("c", "lock.a", false)
	claims.Labels[api.GatedLabel] = api.Gated
	claims.Spec.InitContainers = append(claims.Spec.InitContainers,
		corev1.Container{Name: api.AgentContainer, RestartPolicy: new(corev1.ContainerRestartPolicyAlways)})
	claims.Spec.Containers = []corev1.Container{{Name: "app", Command: []string{api.ShimProgram, api.ExecRole}}}
	shown := answer(t, true, "Deployment/biller", together(deployment(after, after), work, full,
		lock("a", "a", func(l *coordinationv1.Lease) { // serving-since has whole seconds, unlike the acquire time
			l.Spec.AcquireTime = &metav1.MicroTime{Time: noon.Add(-9*time.Minute + 500*time.Millisecond)}
		}),
		lock("b", "a", func(l *coordinationv1.Lease) {
			l.Annotations[api.ServingAnnotation] = noon.Add(-time.Hour).Format(time.RFC3339)
		}),
		lock("c", "", same),
		lock("d", "db", same),
		lock("e", "a", func(l *coordinationv1.Lease) { delete(l.Annotations, api.HoldAnnotation) }),
		lock("f", "a", func(l *coordinationv1.Lease) { l.Spec.RenewTime = &metav1.MicroTime{Time: noon.Add(-5 * time.Minute)} }),
		waitingPod("a", "lock.f,once.full=1", true), waitingPod("b", "lock.a", false), claims)...)
	for _, line := range []string{
		"lock.a         met with the next renewal: a serves",
		"lock.b         not met: the application of a does not serve",
		"lock.c         not met: no pod holds",
		"lock.d         not met: the holder db is gone",
		"lock.e         not met: the holder a is no gated pod",
		"lock.f         not met: the holder a does not renew",
		"once.schema=7  met: the key is done",
		"once.schema=8  not met: the key is not done",
		"once.full=1    not met: the key is not among the last 50 done keys",
		"once.seed=1    not met: no Lease, so no pod has claimed it yet",
		"a  its conditions were met\n",
		"b  waits for its conditions\n",
		"c  waits for its conditions  not Ready",
	} {
		assert.Contains(t, shown, "  "+line)
	}
	assert.Contains(t, answer(t, false, "Deployment/biller", together(deployment(after, after))...), "NamespaceNotOptedIn")
}

func TestExplainCommandShowsWhyAPodIsUngated(t *testing.T) {
	misspelt := map[string]string{"metaparticle.io/singelton": "true"}
	job := &batchv1.Job{ObjectMeta: meta("once", claim)}
	for name, c := range map[string]struct {
		optedIn bool
		target  string
		there   []client.Object
		says    []string
		silent  []string
	}{
		"claims nothing": {
			true, "Deployment/biller", together(deployment(nil, nil), plainPod("a", nil)),
			[]string{"not gated, 1 pod\n", "claim nothing: annotate it"}, []string{"NotGated", "slots:"},
		},
		"opted out": {
			true, "Deployment/biller", together(deployment(nil, map[string]string{api.InjectAnnotation: "false"}), plainPod("a", nil)),
			[]string{"claim nothing, and opt out by metaparticle.io/inject"}, []string{"annotate it"},
		},
		"namespace not opted in": {
			false, "Deployment/biller", together(deployment(claim, nil), plainPod("a", nil)),
			[]string{"NamespaceNotOptedIn: ", "kubectl label namespace shop metaparticle.io/injection=enabled", "the template lacks metaparticle.io/singleton"},
			nil,
		},
		"annotated before the label": {
			true, "Deployment/biller", together(deployment(claim, nil), plainPod("a", nil)),
			[]string{"the template lacks metaparticle.io/singleton", "NotGated: ", "on the workload, not on its template", "has no Lease yet"},
			[]string{"NamespaceNotOptedIn"},
		},
		"rollout in progress": {
			true, "Deployment/biller",
			together(deployment(claim, claim), plainPod("a", nil), gatedPod("b", corev1.ConditionTrue, "Holding", ""), leaseOf("b")),
			[]string{"gated in part, 1 of 2 pods", "from before the annotation", "a  not gated"}, []string{"NotGated"},
		},
		"mistake in an annotation": {
			true, "Deployment/biller", together(deployment(misspelt, misspelt),
				event("ReplicaSet", "biller-1", "FailedCreate", `admission webhook "pods.metaparticle.io" denied the request: BadAnnotation: …`),
				event("ReplicaSet", "biller-1", "FailedMount", "of no concern")),
			[]string{
				": no pods\n", "- BadAnnotation: metaparticle.io/singelton is not known: did you mean metaparticle.io/singleton? (",
				`60s ago  ReplicaSet/biller-1: FailedCreate: admission webhook "pods.metaparticle.io" denied`,
			},
			[]string{"of no concern", "gated"},
		},
		"gated before the mistake": {
			true, "Deployment/biller",
			together(deployment(misspelt, misspelt), gatedPod("a", corev1.ConditionTrue, "Holding", ""), leaseOf("a")),
			[]string{"gated, 1 pod; for new pods:\n  - BadAnnotation: ", "held by a, "}, []string{"NotGated"},
		},
		"gated before the claim was removed": {
			true, "Deployment/biller",
			together(deployment(nil, nil), gatedPod("a", corev1.ConditionTrue, "Holding", ""), leaseOf("a")),
			[]string{"gated, 1 pod; for new pods:\n  - it and its template claim nothing", "held by a, "}, []string{"not gated"},
		},
		"template differs": {
			true, "Deployment/biller", together(deployment(claim, map[string]string{api.SingletonAnnotation: "false"}), plainPod("a", nil)),
			[]string{`TemplateDiffers: metaparticle.io/singleton is "true" here and "false" in the template`}, nil,
		},
		"Job annotated too late": {
			true, "Job/once", together(job), []string{"JobImmutable: metaparticle.io/singleton does not reach"}, []string{"the template lacks"},
		},
		"not injected": {
			true, "Pod/a", together(deployment(claim, claim), plainPod("a", claim)),
			[]string{"Pod/a (of Deployment/biller) in shop: not gated", "NotInjected: "}, nil,
		},
		"forged marks": {
			true, "Pod/a", together(deployment(claim, claim), plainPod("a", map[string]string{api.SlotsAnnotation: slot})),
			[]string{"not gated"}, []string{"stands by"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			got := answer(t, c.optedIn, c.target, c.there...)
			for _, text := range c.says {
				assert.Contains(t, got, text)
			}
			for _, text := range c.silent {
				assert.NotContains(t, got, text)
			}
		})
	}
}

// explain reads the claims that the webhook cannot know.
func TestExplainCommandReadsTheAccessModesOfClaims(t *testing.T) {
	for mode, says := range map[corev1.PersistentVolumeAccessMode]string{
		"":                      `VolumeOnOneNode: all pods mount PersistentVolumeClaim "data"`,
		corev1.ReadWriteOnce:    `VolumeOnOneNode: PersistentVolumeClaim "data" is ReadWriteOnce`,
		corev1.ReadWriteOncePod: `VolumeOnOneNode: PersistentVolumeClaim "data" is ReadWriteOncePod`,
		corev1.ReadWriteMany:    "",
	} {
		there := deployment(claim, claim)
		spec := &there[0].(*appsv1.Deployment).Spec
		spec.Replicas = new(int32(2))
		source := &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "data"}
		spec.Template.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: source}}}
		if mode != "" {
			data := &corev1.PersistentVolumeClaim{ObjectMeta: meta("data", nil)}
			data.Spec.AccessModes = []corev1.PersistentVolumeAccessMode{mode}
			there = append(there, data)
		}
		got := answer(t, true, "Deployment/biller", together(there)...)
		assert.Contains(t, got, says, mode)
		assert.Equal(t, says != "", strings.Contains(got, "VolumeOnOneNode"), mode)
	}
}

func TestExplainCommandReportsAVanishedHolder(t *testing.T) {
	standby := gatedPod("b", corev1.ConditionFalse, "NoHolder", "")
	there := together(deployment(claim, claim), standby)
	assert.Contains(t, answer(t, true, "Deployment/biller", append(there, leaseOf("a"))...),
		"held by a, token 4711, since 2026-01-02T11:50:00Z (10m), renewed 3s ago, a pod that is gone: free when it has not been renewed for 30 s")

	failsafe := leaseOf("b") // the pod of a dead node exists for minutes
	failsafe.Spec.LeaseDurationSeconds = new(int32(750))
	assert.Contains(t, answer(t, true, "Deployment/biller", append(there, failsafe)...),
		"held by b, token 4711, since 2026-01-02T11:50:00Z (10m), renewed 3s ago, without a renewal takeover in 12m30s\n")
	failsafe.Annotations[api.HoldAnnotation], failsafe.Labels = "h1", map[string]string{api.ManagedLabel: "true"}
	failsafe.Annotations[api.SupportersAnnotation] = api.Supporters{Wait: 30 * time.Second, Key: "key", IDs: []string{"c_c-uid/key"}}.Text("b_b-uid", "h1")
	assert.Contains(t, answer(t, true, "Deployment/biller", append(there, failsafe)...), ", without a renewal takeover by c in 30s; others in 12m30s\n")
	assert.Contains(t, answer(t, true, "Deployment/biller", append(deployment(claim, claim), failsafe)...), ", a pod that is gone: takeover by c in 30s; others in 12m30s\n")
	failsafe.Annotations[api.SupportersAnnotation] = api.Supporters{Wait: 30 * time.Second, Key: "key"}.Text("b_b-uid", "h1")
	assert.Contains(t, answer(t, true, "Deployment/biller", append(there, failsafe)...), "why:\n  No standby supports b, so an outage")

	unknown := leaseOf("")
	unknown.Spec.HolderIdentity = new("unknown")
	assert.Contains(t, answer(t, true, "Deployment/biller", append(there, unknown)...), "held by unknown, token 4711, which is no pod")
	assert.Contains(t, answer(t, true, "Deployment/biller", append(there, leaseOf(""))...), slot+"  free\n")
}

// A user without the right to read Leases or Events gets all other facts.
func TestExplainCommandListsUnreadableObjects(t *testing.T) {
	forbid := func(resource string) error {
		return apierrors.NewForbidden(schema.GroupResource{Resource: resource}, "", nil)
	}
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop"}}
	there := together(namespace, deployment(claim, claim), leaseOf("a"), gatedPod("a", corev1.ConditionTrue, "Holding", "it is"))
	reader := fake.NewClientBuilder().WithObjects(there...).WithInterceptorFuncs(interceptor.Funcs{
		Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, o client.Object, opts ...client.GetOption) error {
			switch o.(type) {
			case *coordinationv1.Lease:
				return forbid("leases")
			case *admissionregistrationv1.MutatingWebhookConfiguration:
				return forbid("mutatingwebhookconfigurations")
			}
			return c.Get(ctx, key, o, opts...)
		},
		List: func(ctx context.Context, c client.WithWatch, l client.ObjectList, opts ...client.ListOption) error {
			if _, ok := l.(*corev1.EventList); ok {
				return forbid("events")
			}
			return c.List(ctx, l, opts...)
		},
	}).Build()
	var out strings.Builder
	_, err := explain(t.Context(), explainerOf(reader), &out, "", "Deployment", "biller")
	require.NoError(t, err)
	assert.Contains(t, out.String(), "Ready  Holding: it is")
	assert.Contains(t, out.String(), "not readable:\n  read "+slot+": leases")
	assert.Contains(t, out.String(), "read events: events")
	assert.NotContains(t, out.String(), "no Lease yet")
	assert.NotContains(t, out.String(), "not installed")
}

func TestExplainCommandReportsAMissingInstallation(t *testing.T) {
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop"}}
	reader := fake.NewClientBuilder().WithObjects(append(deployment(claim, nil), namespace)...).Build()
	var out strings.Builder
	_, err := explain(t.Context(), explainerOf(reader), &out, "", "Deployment", "biller")
	require.NoError(t, err)
	assert.Contains(t, out.String(), "Metaparticle is not installed")
}

// A new pod can have the name of the holder, for example in a StatefulSet. That pod is not the
// holder.
func TestExplainCommandDistinguishesHolderFromSameNamedPod(t *testing.T) {
	again := gatedPod("a", corev1.ConditionFalse, "NoHolder", "")
	again.UID = "another"
	got := answer(t, true, "Deployment/biller", together(deployment(claim, claim), leaseOf("a"), again)...)
	assert.Contains(t, got, "a pod that is gone")
	assert.Contains(t, got, "  a  stands by  ")
}

func TestExplainCommandShowsWhyContainerDoesNotRun(t *testing.T) {
	p := gatedPod("a", corev1.ConditionFalse, "NoHolder", "nobody holds it")
	p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "app", State: corev1.ContainerState{
		Waiting: &corev1.ContainerStateWaiting{Reason: "ImagePullBackOff"},
	}}}
	shown := answer(t, true, "Deployment/biller", together(deployment(claim, claim), leaseOf(""), p)...)
	assert.Contains(t, shown, "a  does not run  not Ready  its container app does not run: ImagePullBackOff; NoHolder: nobody holds it")
}

func TestExplainCommandPromisesNoGateAfterRefusals(t *testing.T) {
	there := together(deployment(claim, claim), leaseOf(""))
	assert.Contains(t, answer(t, true, "Deployment/biller", there...), "biller in shop: no pods; the next are gated\n")
	refused := event("ReplicaSet", "biller-1", "FailedCreate", `admission webhook "pods.metaparticle.io" denied the request: ImageUnreadable`)
	shown := answer(t, true, "Deployment/biller", append(there, refused)...)
	assert.Contains(t, shown, "biller in shop: no pods, because new ones are refused\n  - new pods are refused: ImageUnreadable (60s ago)\n")
}

func TestExplainCommandShowsRefusalsOnlyWhileTheyConcernPodsToCome(t *testing.T) {
	const denied = `admission webhook "pods.metaparticle.io" denied the request: Probes`
	at := noon.Add(-time.Minute) // the time of each refusal
	part := func(name, revision string, made time.Duration) *appsv1.ReplicaSet {
		r := &appsv1.ReplicaSet{ObjectMeta: owned(meta(name, map[string]string{"deployment.kubernetes.io/revision": revision}), "apps/v1", "Deployment", "biller")}
		r.CreationTimestamp.Time = at.Add(made)
		return r
	}
	pod := func(of string, made time.Duration) *corev1.Pod {
		p := gatedPod("a", corev1.ConditionTrue, "Holding", "")
		p.OwnerReferences[0].Name, p.OwnerReferences[0].UID = of, types.UID(of+"-uid")
		p.CreationTimestamp.Time = at.Add(made)
		return p
	}
	set := func(subresource string, changed time.Duration) *appsv1.StatefulSet {
		s := &appsv1.StatefulSet{ObjectMeta: meta("biller", claim), Spec: appsv1.StatefulSetSpec{Template: deployment(claim, claim)[0].(*appsv1.Deployment).Spec.Template}}
		s.ManagedFields = []metav1.ManagedFieldsEntry{{Manager: "m", Operation: metav1.ManagedFieldsOperationUpdate, APIVersion: "apps/v1",
			Subresource: subresource, Time: &metav1.Time{Time: at.Add(changed)}, FieldsType: "FieldsV1", FieldsV1: metav1.NewFieldsV1("{}")}}
		return s
	}
	refused := func(name string) *corev1.Event { return event("ReplicaSet", name, "FailedCreate", denied) }
	reported := event("Deployment", "biller", "Probes", "A pod was refused: Probes")
	biller := deployment(claim, claim)[0]
	for name, c := range map[string]struct {
		target string
		there  []client.Object
		shown  bool
	}{
		"the rollout of the mend has not scaled the refused one down": {"Deployment/biller", together(biller, part("biller-1", "1", -time.Hour), part("biller-2", "2", -time.Second),
			pod("biller-2", -time.Second), refused("biller-1"), reported), false},
		"the mend has made no pod yet":         {"Deployment/biller", together(biller, part("biller-1", "1", -time.Hour), part("biller-2", "2", time.Second), refused("biller-1"), reported), false},
		"the present one is refused":           {"Deployment/biller", together(biller, part("biller-1", "1", -time.Hour), part("biller-2", "2", -time.Second), pod("biller-1", time.Second), refused("biller-2"), reported), true},
		"a rollback to the refused one":        {"Deployment/biller", together(biller, part("biller-1", "3", -time.Hour), part("biller-2", "2", -time.Second), refused("biller-1")), true},
		"only the webhook has reported it":     {"Deployment/biller", together(biller, part("biller-2", "2", -time.Second), reported), true},
		"the webhook reported an earlier one":  {"Deployment/biller", together(biller, part("biller-2", "2", time.Second), reported), false},
		"a pod in the same second":             {"Deployment/biller", together(biller, part("biller-2", "2", -time.Hour), pod("biller-2", 0), refused("biller-2")), false},
		"a pod before":                         {"Deployment/biller", together(biller, part("biller-2", "2", -time.Hour), pod("biller-2", -time.Second), refused("biller-2")), true},
		"a changed template, and no pod yet":   {"StatefulSet/biller", together(set("", time.Second), event("StatefulSet", "biller", "FailedCreate", denied)), false},
		"a template that was changed before":   {"StatefulSet/biller", together(set("", -time.Second), event("StatefulSet", "biller", "FailedCreate", denied)), true},
		"a status that the controller changed": {"StatefulSet/biller", together(set("status", time.Second), event("StatefulSet", "biller", "FailedCreate", denied)), true},
	} {
		t.Run(name, func(t *testing.T) {
			shown := answer(t, true, c.target, c.there...)
			assert.Equal(t, c.shown, strings.Contains(shown, "new pods are refused: Probes (60s ago)"), shown)
			assert.Contains(t, shown, "60s ago", "the Event is still listed with its age")
		})
	}
}

func TestExplainCommandNamesLabelInPlaceOfAnnotation(t *testing.T) {
	const want = "it and its template claim nothing: metaparticle.io/singleton is a label there, and only an annotation counts"
	for name, change := range map[string]func(*appsv1.Deployment){
		"workload": func(d *appsv1.Deployment) { d.Labels = claim },
		"template": func(d *appsv1.Deployment) { d.Spec.Template.Labels = claim },
	} {
		there := deployment(nil, nil)
		change(there[0].(*appsv1.Deployment))
		assert.Contains(t, answer(t, true, "Deployment/biller", there...), want, name)
	}
	marked := plainPod("a", nil)
	marked.Labels = map[string]string{api.GatedLabel: api.Gated}
	shown := answer(t, true, "Deployment/biller", together(deployment(nil, nil), marked)...)
	assert.NotContains(t, shown, "is a label there", "the webhook writes this label")
}

func TestExplainCommandShowsRepeatedRefusalOnce(t *testing.T) {
	there := together(deployment(claim, claim), leaseOf(""))
	for name, prefix := range map[string]string{"x": "", "y": "", "z": "(combined from similar events): "} {
		refused := event("ReplicaSet", "biller-1", "FailedCreate",
			prefix+`Error creating: pods "biller-1-`+name+`" is forbidden: ValidatingAdmissionPolicy 'metaparticle-gate' denied request: NotInjected`)
		refused.Name = name
		there = append(there, refused)
	}
	shown := answer(t, true, "Deployment/biller", there...)
	assert.Equal(t, 1, strings.Count(shown, "denied request: NotInjected"), shown)
	assert.Contains(t, shown, "ReplicaSet/biller-1: FailedCreate: Error creating: ValidatingAdmissionPolicy 'metaparticle-gate' denied")
}

func TestExplainCommandShowsAnnotationsOfTheJobTemplate(t *testing.T) {
	c := &batchv1.CronJob{ObjectMeta: meta("nightly", nil)}
	c.Spec.JobTemplate.Annotations = map[string]string{api.LockAnnotation: "nightly"}
	c.Spec.JobTemplate.Spec.Template.Spec.RestartPolicy = corev1.RestartPolicyNever
	shown := answer(t, true, "CronJob/nightly", c)
	assert.Contains(t, shown, "the template lacks metaparticle.io/lock:")
	assert.Contains(t, shown, "Any change of the CronJob carries it\n", "kubectl cannot restart a CronJob")
	assert.Contains(t, shown, "metaparticle.io/lock=nightly  on the workload, not on its template")
}

func TestExplainCommandNamesAnnotationWithMistypedPrefix(t *testing.T) {
	for _, key := range []string{
		"metaparticle.oi/singleton", "Metaparticle.io/Singleton", "metapartical.io/singleton", "metapraticle.io/singleton",
		"meta-particle.io/singleton", "metaparticles.io/singleton", "metaparticle/singleton",
	} {
		wrong := map[string]string{key: "true"}
		want := "claim nothing: " + key + " has another prefix, and has no effect: did you mean metaparticle.io/singleton?"
		assert.Contains(t, answer(t, true, "Deployment/biller", together(deployment(wrong, nil))...), want)
		assert.Contains(t, answer(t, true, "Deployment/biller", together(deployment(nil, wrong))...), want)
	}
	for _, key := range []string{"example.com/singleton", "meta.example.com/singleton", "metaparticle.oi/other"} {
		other := map[string]string{key: "true"}
		assert.NotContains(t, answer(t, true, "Deployment/biller", together(deployment(other, nil))...), "another prefix")
	}
	policy, err := fs.ReadFile(manifests.Policies, "policies/ineffective.yaml")
	require.NoError(t, err)
	assert.Contains(t, string(policy), "matches('"+nearPrefix.String()+"')", "the API server must warn of the same prefixes")
}

func TestExplainCommandAdvisesNoRestartBeforeOptIn(t *testing.T) {
	shown := answer(t, false, "Deployment/biller", together(deployment(claim, nil), plainPod("a", nil))...)
	assert.Contains(t, shown, "NamespaceNotOptedIn: ")
	assert.NotContains(t, shown, "NotGated: ", "the namespace has no opt-in to which the pods could be older")
}

func TestExplainCommandAdvisesNoClaimThatIsThere(t *testing.T) {
	off := map[string]string{api.SingletonAnnotation: "false"}
	shown := answer(t, true, "Deployment/biller", together(deployment(claim, off), plainPod("a", nil))...)
	assert.Contains(t, shown, "the value in its template counts, and claims nothing\n  - TemplateDiffers: ")
	assert.NotContains(t, shown, "annotate it")
}
