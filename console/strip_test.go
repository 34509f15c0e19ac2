// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package console

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/console/view"
)

var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// secret stands for each text that the page does not show.
const secret = "hunter2"

// whole returns objects with many fields: a holder, standbys with each part of a gate, and their
// Events.
func whole() view.State {
	always := corev1.ContainerRestartPolicyAlways
	at := metav1.Time{Time: noon}
	meta := func(name string) metav1.ObjectMeta {
		return metav1.ObjectMeta{
			Namespace: "shop", Name: name, UID: types.UID(name + "-uid"), ResourceVersion: "7", CreationTimestamp: at, DeletionTimestamp: &at,
			Labels:          map[string]string{api.ManagedLabel: "true", api.GatedLabel: api.Gated, "app": secret},
			Annotations:     map[string]string{"note": secret},
			OwnerReferences: []metav1.OwnerReference{{Name: secret}}, ManagedFields: []metav1.ManagedFieldsEntry{{Manager: secret}},
		}
	}
	l := &coordinationv1.Lease{ObjectMeta: meta("once.a")}
	for key := range view.Notes {
		l.Annotations[key] = "a=1"
	}
	l.Annotations[api.ServingAnnotation] = noon.Format(time.RFC3339)
	l.Spec = coordinationv1.LeaseSpec{
		HolderIdentity: new("holder_holder-uid"), LeaseDurationSeconds: new(int32(30)), LeaseTransitions: new(int32(4)),
		AcquireTime: &metav1.MicroTime{Time: noon}, RenewTime: &metav1.MicroTime{Time: noon},
	}
	talks, next := &coordinationv1.Lease{ObjectMeta: meta("lock.web"), Spec: l.Spec}, &coordinationv1.Lease{ObjectMeta: meta(api.NextLease("lock.web"))}
	talks.Annotations[api.HoldAnnotation] = "h"
	talks.Annotations[api.RolloutAnnotation] = `{"hold":"h","yields":"now","moved":{"from":"old_old-uid","why":"Yielded"}}`
	next.Annotations[api.WordsAnnotation] = "preferred:preferred_preferred-uid:h:u/7/x:1"
	talks.Spec.HolderIdentity = new("hangs_hangs-uid")
	s := view.State{Leases: []*coordinationv1.Lease{l, talks, next}, Seen: map[types.UID]time.Time{l.UID: noon}, Now: noon.Add(3 * time.Hour)}
	pod := func(name string, change func(*corev1.Pod)) {
		p := &corev1.Pod{ObjectMeta: meta(name)}
		p.Annotations[api.SlotsAnnotation] = "once.a,once.b"
		p.Spec.InitContainers = []corev1.Container{
			{Name: "init", Image: secret, Args: []string{secret}},
			{Name: api.AgentContainer, RestartPolicy: &always, Args: []string{"run", "--once=key", "--probe=" + secret}, Env: []corev1.EnvVar{{Name: "A", Value: secret}}},
		}
		p.Spec.Containers = []corev1.Container{{
			Name: "app", Image: secret, Command: []string{api.ShimProgram, "exec", "--", secret}, Args: []string{secret}, Env: []corev1.EnvVar{{Name: "A", Value: secret}},
		}}
		p.Spec.NodeName = "worker-1"
		p.Spec.Volumes = []corev1.Volume{{Name: secret}}
		p.Status = corev1.PodStatus{
			Phase: corev1.PodRunning, StartTime: &at, Message: secret,
			Conditions: []corev1.PodCondition{
				{Type: api.ReadyCondition, Status: corev1.ConditionTrue, Reason: "StandingBy", Message: "another pod holds"},
				{Type: corev1.PodReady, Status: corev1.ConditionTrue, Message: secret},
				{Type: corev1.PodInitialized, Status: corev1.ConditionTrue}, {Type: secret},
			},
			ContainerStatuses: []corev1.ContainerStatus{{
				Name: "app", Image: secret, State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: metav1.Time{Time: noon.Add(time.Minute)}}},
			}},
		}
		change(p)
		s.Pods = append(s.Pods, p)
	}
	claims := func(m metav1.ObjectMeta) metav1.ObjectMeta {
		m.Annotations[api.LockAnnotation] = m.Name
		return m
	}
	template := corev1.PodTemplateSpec{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: secret}}}}
	misspelt := meta("worker")
	misspelt.Annotations[api.Prefix+"singelton"] = "true"
	owned := meta("lone")
	owned.OwnerReferences = []metav1.OwnerReference{{APIVersion: "batch/v1", Kind: "CronJob", Name: "lone", Controller: new(true)}}
	inTemplate := template
	inTemplate.Annotations = map[string]string{api.SingletonAnnotation: "true", "note": secret}
	knative := meta("shop-00001")
	knative.Labels["serving.knative.dev/service"] = "shop"
	knative.OwnerReferences = []metav1.OwnerReference{{APIVersion: "serving.knative.dev/v1", Kind: "Revision", Name: "shop-00001", Controller: new(true)}}
	s.Workloads = []client.Object{
		&appsv1.Deployment{ObjectMeta: knative, Spec: appsv1.DeploymentSpec{Template: inTemplate}, Status: appsv1.DeploymentStatus{Replicas: 1}},
		&appsv1.Deployment{ObjectMeta: claims(meta("web")), Spec: appsv1.DeploymentSpec{Template: template}, Status: appsv1.DeploymentStatus{
			Replicas: 2, Conditions: []appsv1.DeploymentCondition{
				{Type: appsv1.DeploymentAvailable, Message: secret},
				{Type: appsv1.DeploymentReplicaFailure, Status: corev1.ConditionTrue, Reason: view.FailedCreate, Message: "exceeded quota"},
			},
		}},
		&appsv1.StatefulSet{ObjectMeta: claims(meta("db")), Spec: appsv1.StatefulSetSpec{Template: template}, Status: appsv1.StatefulSetStatus{Replicas: 1}},
		&appsv1.StatefulSet{ObjectMeta: misspelt, Spec: appsv1.StatefulSetSpec{Template: template}, Status: appsv1.StatefulSetStatus{Replicas: 1}},
		&appsv1.DaemonSet{ObjectMeta: claims(meta("node")), Spec: appsv1.DaemonSetSpec{Template: template}, Status: appsv1.DaemonSetStatus{CurrentNumberScheduled: 3}},
		&batchv1.Job{ObjectMeta: owned, Spec: batchv1.JobSpec{Template: inTemplate}, Status: batchv1.JobStatus{Active: 1}},
	}
	pod("holder", func(*corev1.Pod) {})
	pod("standby", func(*corev1.Pod) {})
	moves := api.RunArgs{Settings: api.Settings{YieldAfter: time.Minute, Prefer: api.Preference{Key: "zone", Value: "a"}}}
	pod("hangs", func(p *corev1.Pod) {
		p.Annotations[api.SlotsAnnotation], p.Spec.InitContainers[1].Args = "lock.web", moves.Args()
		p.Status.Conditions[0] = corev1.PodCondition{Type: api.ReadyCondition, Status: corev1.ConditionFalse, Reason: "ApplicationNotReady", LastTransitionTime: at}
	})
	pod("preferred", func(p *corev1.Pod) {
		p.Annotations[api.SlotsAnnotation], p.Spec.InitContainers[1].Args = "lock.web", moves.Args()
		p.Labels["zone"], p.DeletionTimestamp = "a", nil
	})
	pod("ended", func(p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded })
	pod("begun", func(p *corev1.Pod) { p.Spec.Containers[0].Command = []string{secret} })
	waits := func(reason string) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			p.Status.ContainerStatuses[0].State = corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: secret}}
		}
	}
	pod("crashed", waits("CrashLoopBackOff"))
	pod("pulls", func(p *corev1.Pod) {
		p.DeletionTimestamp = nil
		p.Status.ContainerStatuses[0].State = corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "ErrImagePull", Message: "not found"}}
	})
	pod("silent", func(p *corev1.Pod) {
		p.Annotations[api.SlotsAnnotation] = "once.a"
		p.DeletionTimestamp, p.Status.Conditions = nil, p.Status.Conditions[1:]
		p.Status.InitContainerStatuses = []corev1.ContainerStatus{{Name: api.AgentContainer, Image: secret, State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: at}}}}
	})
	pod("new", waits("PodInitializing"))
	pod("program", func(p *corev1.Pod) { p.Spec.InitContainers[1].Args = []string{api.LocalRole, secret} })
	pod("readiness", func(p *corev1.Pod) {
		p.Spec.InitContainers[1].Args = []string{"run", api.ReadinessGateArg}
		p.Spec.Containers[0].Command, p.Spec.ReadinessGates = nil, []corev1.PodReadinessGate{{ConditionType: api.ReadyCondition}, {ConditionType: secret}}
	})
	for i, reason := range []string{"Yielded", api.ReasonReleased, api.ReasonAcquired} {
		e := &corev1.Event{ObjectMeta: meta(reason), Reason: reason, Message: api.Draining + " once.a", Source: corev1.EventSource{Host: secret}}
		e.LastTimestamp, e.EventTime = metav1.Time{Time: noon.Add(time.Duration(i) * time.Minute)}, metav1.MicroTime{Time: noon}
		e.Series = &corev1.EventSeries{LastObservedTime: metav1.MicroTime{Time: noon.Add(time.Duration(i) * time.Hour)}}
		e.InvolvedObject = corev1.ObjectReference{Kind: "Pod", Name: "standby", UID: "standby-uid", FieldPath: secret}
		s.Events = append(s.Events, e)
	}
	return s
}

// stripped strips one object.
func stripped[T any](t *testing.T, object T) T {
	kept, err := strip(object)
	require.NoError(t, err)
	return kept.(T)
}

func TestStrippingUnreadFieldsNeverChangesShownSlots(t *testing.T) {
	s := whole()
	want := s.Slots(nil, mostHandovers)
	require.Len(t, want, 8)
	require.Equal(t, "singleton.service-serving-knative-dev.shop", want[7].Slot)
	require.NotEmpty(t, want[4].Handovers)
	require.NotEmpty(t, want[5].Standbys)
	var found []string
	for _, f := range want[4].Findings {
		found = append(found, f.String())
	}
	require.Equal(t, []string{"pod pulls: its container app does not run: ErrImagePull: not found", "pod silent: its agent has run since 2026-11-23T12:00:00Z without a word to the API server, so the application waits. " +
		"Often a NetworkPolicy forbids egress to the API server, or a proxy or mesh is in between"}, found[len(found)-2:])
	require.Len(t, want[2].Why, 2, want[2])
	require.NotNil(t, want[2].Moved)
	require.NotNil(t, want[2].Talk)
	for i := range s.Workloads {
		s.Workloads[i] = stripped(t, s.Workloads[i])
	}
	for i := range s.Leases {
		s.Leases[i] = stripped(t, s.Leases[i])
	}
	for i := range s.Pods {
		s.Pods[i] = stripped(t, s.Pods[i])
	}
	for i := range s.Events {
		s.Events[i] = stripped(t, s.Events[i])
	}
	assert.Equal(t, want, s.Slots(nil, mostHandovers))
	for _, objects := range []any{s.Leases, s.Pods, s.Events, s.Workloads} {
		text, err := json.Marshal(objects)
		require.NoError(t, err)
		assert.NotContains(t, string(text), secret)
	}
}

func TestConsoleDropsOverlongEventMessages(t *testing.T) {
	for length, kept := range map[int]bool{longest: true, longest + 1: false} {
		e := stripped(t, &corev1.Event{Message: strings.Repeat("é", length)})
		assert.Equal(t, kept, e.Message != "", length)
	}
	gone := toolscache.DeletedFinalStateUnknown{Key: "a"}
	assert.Equal(t, gone, stripped(t, gone))
}

func TestConsoleCachesKeepWhyAContainerWaits(t *testing.T) {
	s := whole()
	for i := range s.Pods {
		s.Pods[i] = stripped(t, s.Pods[i])
	}
	waiting := map[string]*view.Standby{}
	for _, p := range s.Slots([]string{"once.b"}, mostHandovers)[0].Standbys {
		waiting[p.Pod] = p
	}
	require.Contains(t, waiting, "crashed")
	assert.False(t, waiting["crashed"].Ready)
	assert.Contains(t, waiting["crashed"].Message, "its container app does not run: CrashLoopBackOff")
	require.Contains(t, waiting, "new")
	assert.True(t, waiting["new"].Ready, "a container that is about to start is no fault")
}

// TestHugeObjectTakesLittleMemoryInConsolesCaches fills each text that a tenant can write into an
// object.
func TestHugeObjectTakesLittleMemoryInConsolesCaches(t *testing.T) {
	huge, always := strings.Repeat("é ", 1<<18), corev1.ContainerRestartPolicyAlways
	meta := func(name string) metav1.ObjectMeta {
		m := metav1.ObjectMeta{Namespace: "shop", Name: name, Labels: map[string]string{api.ManagedLabel: "x"}, Annotations: map[string]string{api.SlotsAnnotation: huge}}
		for key := range view.Notes {
			m.Annotations[key] = huge
		}
		return m
	}
	lease := func(name string) *coordinationv1.Lease {
		return &coordinationv1.Lease{ObjectMeta: meta(name), Spec: coordinationv1.LeaseSpec{HolderIdentity: &huge, PreferredHolder: &huge, Strategy: new(coordinationv1.CoordinatedLeaseStrategy(huge))}}
	}
	event := func(change func(*corev1.Event)) *corev1.Event {
		e := &corev1.Event{ObjectMeta: meta("e"), Series: &corev1.EventSeries{}, InvolvedObject: corev1.ObjectReference{Kind: "Pod", Name: "a", UID: "u"}}
		change(e)
		return e
	}
	pod := &corev1.Pod{ObjectMeta: meta("p")}
	pod.Spec.ServiceAccountName = huge
	conditions := api.ConditionArgs{Conditions: slices.Repeat([]api.Condition{{Lease: "lock." + strings.Repeat("a", 60)}}, 1000)}.Args()
	for range 1000 {
		pod.Spec.InitContainers = append(pod.Spec.InitContainers,
			corev1.Container{Name: api.AgentContainer, RestartPolicy: &always, Args: []string{"run", "--once=" + huge}}, corev1.Container{Name: api.AfterContainer, Args: conditions})
		pod.Spec.Containers = append(pod.Spec.Containers, corev1.Container{Name: "app", Command: []string{api.ShimProgram, "exec"}}, corev1.Container{Name: "other"})
		pod.Spec.ReadinessGates = append(pod.Spec.ReadinessGates, corev1.PodReadinessGate{ConditionType: api.ReadyCondition})
		pod.Status.Conditions = append(pod.Status.Conditions, corev1.PodCondition{Type: api.ReadyCondition, Reason: huge, Message: huge})
		pod.Status.ContainerStatuses = append(pod.Status.ContainerStatuses, corev1.ContainerStatus{Name: "app", State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: huge}}})
	}
	workload := &appsv1.Deployment{ObjectMeta: meta("web")}
	for _, a := range api.Annotations {
		workload.Annotations[a.Key] = huge
	}
	workload.Annotations[api.Prefix+"x"] = huge
	workload.OwnerReferences = []metav1.OwnerReference{{APIVersion: huge, Kind: huge, Name: huge, Controller: new(true)}}
	workload.Spec.Template.Annotations = workload.Annotations
	workload.Status.Conditions = slices.Repeat([]appsv1.DeploymentCondition{{Type: appsv1.DeploymentReplicaFailure, Reason: huge, Message: huge}}, 1000)
	for name, c := range map[string]struct {
		object any
		most   int
	}{
		"a Deployment":       {workload, 512 << 10},
		"a Lease":            {lease("lock.a"), 16 << 10},
		"a Lease of no slot": {lease("junk"), 256},
		"an Event's message": {event(func(e *corev1.Event) { e.Message = huge }), 512},
		"an Event's reason":  {event(func(e *corev1.Event) { e.Reason = huge }), 512},
		"an Event's name":    {event(func(e *corev1.Event) { e.Name = huge }), 1024},
		"an Event's kind":    {event(func(e *corev1.Event) { e.InvolvedObject.Kind = huge }), 512},
		"an Event's pod":     {event(func(e *corev1.Event) { e.InvolvedObject.Name = huge }), 512},
		"an Event's uid":     {event(func(e *corev1.Event) { e.InvolvedObject.UID = types.UID(huge) }), 512},
		"an Event's action":  {event(func(e *corev1.Event) { e.Action, e.ReportingInstance = huge, huge }), 512},
		"a pod":              {pod, 256 << 10},
	} {
		t.Run(name, func(t *testing.T) {
			kept, err := strip(c.object)
			require.NoError(t, err)
			text, err := json.Marshal(kept)
			require.NoError(t, err)
			assert.Less(t, len(text), c.most)
		})
	}
}

func TestEventPolicyAndConsoleBoundEventTextsEqually(t *testing.T) {
	policy, err := os.ReadFile("../manifests/policies/events.yaml")
	require.NoError(t, err)
	for field, most := range map[string]int{"message": longest, "reason": longestReason} {
		assert.Contains(t, string(policy), fmt.Sprintf("object.?%s.orValue('').size() <= %d\n", field, most))
	}
}

// TestCachesDropFieldsThatTheConsoleIgnores looks into the caches of a running watch.
func TestCachesDropFieldsThatTheConsoleIgnores(t *testing.T) {
	l := leaseOf(1, "a", noon)
	l.Annotations = map[string]string{"note": secret}
	w, all := watching(t, newServer(t, l))
	next(t, all)
	var kept coordinationv1.LeaseList
	require.NoError(t, w.cache.List(t.Context(), &kept))
	require.Len(t, kept.Items, 1)
	assert.Empty(t, kept.Items[0].Annotations)
}
