// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package enroll

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/diagnosis"
)

// overQuota returns the API server's refusal of an object beyond a ResourceQuota.
func overQuota(resource string) error {
	return apierrors.NewForbidden(schema.GroupResource{Resource: resource}, "x", errors.New("exceeded quota: q"))
}

// try reconciles the namespace, of which some writes fail.
func try(t *testing.T, w *world, r *Reconciler) {
	t.Helper()
	_, err := r.Namespace(t.Context(), shop)
	require.Error(t, err)
}

func TestRefusedWriteCausesOneEventOnTheWorkload(t *testing.T) {
	w := newWorld(t, deployment(nil, map[string]string{api.SingletonAnnotation: "true"}), gated("biller-1", "", "singleton.deployment.biller"))
	r := w.process()
	w.before = func(int) error { return overQuota("leases") }
	try(t, w, r)
	assert.Empty(t, w.events, "a new quota refuses everything at first")
	w.now = w.now.Add(refusalNotice)
	try(t, w, r)
	w.now = w.now.Add(time.Hour)
	try(t, w, r)
	require.Len(t, w.events, 1)
	assert.Contains(t, w.events[0], "biller EnrollRefused: The API server refuses what the pods need to start, and they wait until it accepts this: create lease singleton.deployment.biller: ")
	assert.Contains(t, w.events[0], "exceeded quota: q")

	w.before = func(int) error { return overQuota("roles") }
	try(t, w, r)
	w.now = w.now.Add(refusalNotice)
	try(t, w, r)
	assert.Len(t, w.events, 2, "a quota of Roles is another fault")

	w.before = nil
	w.settle(r)
	w.vanish("singleton.deployment.biller")
	w.before = func(int) error { return overQuota("leases") }
	try(t, w, r)
	w.now = w.now.Add(refusalNotice)
	try(t, w, r)
	assert.Len(t, w.events, 3, "the first fault had ended")
}

func TestOnlyLastingRefusalsCauseEvents(t *testing.T) {
	terminating := apierrors.NewForbidden(schema.GroupResource{}, "x", errors.New("being terminated"))
	terminating.ErrStatus.Details.Causes = []metav1.StatusCause{{Type: corev1.NamespaceTerminatingCause}}
	for what, c := range map[string]struct {
		err   error
		event bool
	}{
		"a quota or a policy":               {overQuota("leases"), true},
		"an invalid object":                 {apierrors.NewInvalid(schema.GroupKind{}, "x", nil), true},
		"a webhook without a code":          {apierrors.NewBadRequest("admission webhook denied the request"), true},
		"an object of somebody else":        {ErrForeign, true},
		"a namespace that is being deleted": {terminating, false},
		"a lost race":                       {apierrors.NewConflict(schema.GroupResource{}, "x", nil), false},
		"too many requests":                 {apierrors.NewTooManyRequests("later", 1), false},
		"no connection":                     {errCrash, false},
	} {
		for kind, pod := range map[string]*corev1.Pod{
			"claim":     gated("a", "", "lock.a"),
			"condition": waiting("a", "", "lock.b"),
		} {
			w := newWorld(t, pod)
			r := w.process()
			w.before = func(int) error { return c.err }
			try(t, w, r)
			w.now = w.now.Add(refusalNotice)
			try(t, w, r)
			want := 0
			if c.event {
				want = 1
			}
			assert.Len(t, w.events, want, "%s: %s", kind, what)
		}
	}
}

// forwarder returns a pod whose standbys forward the port 8080.
func forwarder(name string) *corev1.Pod {
	pod := gated(name, "till", "lock.a")
	args := api.DefaultRunArgs()
	args.Ports = api.Ports{{Number: 8080}}
	pod.Labels["app"], pod.Spec.InitContainers[0].Args = "web", args.Args()
	return pod
}

func serviceOf(port int32) *corev1.Service {
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: shop, Name: "web"},
		Spec:       corev1.ServiceSpec{Selector: map[string]string{"app": "web"}, Ports: []corev1.ServicePort{{Port: port}}},
	}
}

func TestServiceWhoseConnectionsStandbysRefuseGetsOneEvent(t *testing.T) {
	w := newWorld(t, serviceOf(3000), forwarder("web-1"))
	r := w.process()
	w.settle(r)
	assert.Empty(t, w.events, "a pod that is alone has no standby")
	w.create(forwarder("web-2"))
	w.settle(r)
	w.settle(r)
	require.Len(t, w.events, 1)
	assert.Contains(t, w.events[0], "web ServiceNotForwarded: This Service sends connections to port 3000/TCP of pods such as web-")
}

func TestServiceOfAForwardedPortGetsNoEvent(t *testing.T) {
	w := newWorld(t, serviceOf(8080), forwarder("web-1"), forwarder("web-2"))
	w.settle(w.process())
	assert.Empty(t, w.events)
}

func TestCacheBoundsTheMemoryOfEachService(t *testing.T) {
	long := strings.Repeat("x", 1<<18)
	s := serviceOf(80)
	s.Annotations, s.Labels = map[string]string{"note": long}, map[string]string{"app": long}
	s.Spec.Selector["other"], s.Spec.ExternalName = long, long
	kept, err := strip(s)
	require.NoError(t, err)
	text, err := json.Marshal(kept)
	require.NoError(t, err)
	assert.Less(t, len(text), 1<<10)
	pod := forwarder("web-1")
	pod.Labels["note"] = long
	kept, err = strip(pod)
	require.NoError(t, err)
	assert.NotContains(t, kept.(*corev1.Pod).Labels, "note")
	assert.Equal(t, "web", kept.(*corev1.Pod).Labels["app"])
}

// operated returns a StatefulSet of an operator's object, and its pod.
func operated(name string) (*appsv1.StatefulSet, *corev1.Pod) {
	set := &appsv1.StatefulSet{ObjectMeta: metav1.ObjectMeta{Namespace: shop, Name: name}}
	set.OwnerReferences = []metav1.OwnerReference{{APIVersion: "monitoring.example/v1", Kind: "Prometheus", Name: "main", UID: "u", Controller: new(true)}}
	pod := gated(name+"-0", "", "singleton.statefulset."+name)
	pod.OwnerReferences = []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "StatefulSet", Name: name, UID: "u", Controller: new(true)}}
	return set, pod
}

func TestSeveralSingletonsOfOneOwnerCauseOneEventEach(t *testing.T) {
	first, firstPod := operated("main-a")
	w := newWorld(t, first, firstPod)
	r := w.process()
	w.settle(r)
	assert.Empty(t, w.events, "one StatefulSet of an operator is what most people have")
	second, secondPod := operated("main-b")
	w.create(second)
	w.create(secondPod)
	w.settle(r)
	w.settle(r)
	require.Len(t, w.events, 2)
	assert.Contains(t, w.events[0], "main-a OwnSlot: The pods of this StatefulSet have a singleton of their own, and so have those of StatefulSet/main-b, "+
		"which Prometheus.monitoring.example/main controls, too: one pod of each runs. If only one of all these pods may run, claim the same metaparticle.io/lock in all their templates.")
	assert.Contains(t, w.events[1], "main-b OwnSlot: ")
}

func TestBarePodWithASingletonGetsOneEvent(t *testing.T) {
	named, restored := gated("load-k3x9", "", "singleton-etl.pod.load-k3x9"), gated("biller-x", "", "singleton.deployment.biller")
	ended := gated("load-k3x8", "", "singleton.pod.load-k3x8")
	ended.Status.Phase = corev1.PodSucceeded
	w := newWorld(t, named, restored, ended, gated("load-k3x7", "", "lock.etl,singleton.pod.load-k3x7"))
	r := w.process()
	w.settle(r)
	w.settle(r)
	require.Len(t, w.events, 1)
	assert.Contains(t, w.events[0], "load-k3x9 OwnSlot: This pod has no controller, so its singleton excludes only a pod of the same name. "+
		"If pods of other runs must wait for it, claim the same metaparticle.io/lock in all of them.")
}

// started returns the pod after the start of its agent.
func started(pod *corev1.Pod) *corev1.Pod {
	pod.Status = corev1.PodStatus{Phase: corev1.PodRunning, InitContainerStatuses: []corev1.ContainerStatus{
		{Name: api.AgentContainer, State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}},
	}}
	return pod
}

// Only the patches of its condition are refused.
func TestHolderIsNotSilent(t *testing.T) {
	pod := started(gated("a", "till", "lock.a"))
	w := newWorld(t, pod)
	r := w.process()
	w.settle(r)
	w.holds("lock.a", "a_"+string(pod.UID))
	w.settle(r)
	w.now = w.now.Add(diagnosis.Lasts)
	w.settle(r)
	assert.Empty(t, w.events)
}

func TestSilentAgentCausesOneEventOnItsPod(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*corev1.Pod)
		silent bool
	}{
		"silent": {func(*corev1.Pod) {}, true},
		"has spoken": {func(p *corev1.Pod) {
			p.Status.Conditions = []corev1.PodCondition{{Type: api.ReadyCondition, Status: corev1.ConditionFalse}}
		}, false},
		"has ended":                      {func(p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded }, false},
		"does not run yet":               {func(p *corev1.Pod) { p.Status.InitContainerStatuses[0].State = corev1.ContainerState{} }, false},
		"gate pod, whose pod is pending": {func(p *corev1.Pod) { p.Status.Phase = corev1.PodPending }, true},
		"program that asks by itself":    {func(p *corev1.Pod) { p.Spec.InitContainers[0].Args = []string{api.LocalRole} }, false},
		"no gate":                        {func(p *corev1.Pod) { p.Spec.Containers[0].Command = nil }, false},
	} {
		t.Run(name, func(t *testing.T) {
			pod := started(gated("web-1", "till", "lock.a"))
			c.change(pod)
			w := newWorld(t, pod)
			r := w.process()
			w.settle(r)
			assert.Empty(t, w.events)
			w.now = w.now.Add(diagnosis.Lasts)
			w.settle(r)
			w.now = w.now.Add(time.Hour)
			w.settle(r)
			if !c.silent {
				assert.Empty(t, w.events)
				return
			}
			require.Len(t, w.events, 1)
			assert.Contains(t, w.events[0], "web-1 AgentSilent: The agent of a pod has run for 30 s without a word to the API server")
			assert.Contains(t, w.events[0], "kubectl -n shop logs web-1 -c metaparticle-agent")
			assert.Less(t, len(w.events[0]), 1024, "the longest note of an Event")
		})
	}
}

// No event tells enroll of the start of an agent.
func TestEnrollLooksAgainAtANewPodUntilItsAgentRuns(t *testing.T) {
	pod := gated("web-1", "till", "lock.a")
	w := newWorld(t, pod)
	pod.CreationTimestamp = metav1.NewTime(w.now)
	require.NoError(t, w.server.Update(t.Context(), pod))
	r := w.process()
	w.settle(r)
	require.Equal(t, diagnosis.Lasts, w.settle(r))
	require.NoError(t, w.server.Status().Update(t.Context(), started(pod)))
	w.now = w.now.Add(diagnosis.Lasts)
	require.Equal(t, diagnosis.Lasts, w.settle(r))
	w.now = w.now.Add(diagnosis.Lasts)
	require.Zero(t, w.settle(r))
	assert.Len(t, w.events, 1)
	w.now = w.now.Add(heardWithin)

	old := gated("web-2", "till", "lock.a")
	old.CreationTimestamp = metav1.NewTime(w.now.Add(-time.Hour))
	w.create(old)
	w.settle(r)
	require.Equal(t, heardWithin, w.settle(r), "a pod that never starts costs few looks")
	require.NoError(t, w.server.Status().Update(t.Context(), started(old)))
	w.now = w.now.Add(heardWithin)
	w.settle(r)
	w.now = w.now.Add(diagnosis.Lasts)
	w.settle(r)
	assert.Len(t, w.events, 2, "its image came late")
}
