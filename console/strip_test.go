// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package console

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	toolscache "k8s.io/client-go/tools/cache"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/console/view"
)

var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// secret stands for each text that the page does not show.
const secret = "hunter2"

// whole returns objects with many fields: a holder, standbys with each part of a gate, and their Events.
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
	for _, key := range read {
		l.Annotations[key] = "a=1"
	}
	l.Annotations[api.ServingAnnotation] = noon.Format(time.RFC3339)
	l.Spec = coordinationv1.LeaseSpec{
		HolderIdentity: new("holder_holder-uid"), LeaseDurationSeconds: new(int32(30)), LeaseTransitions: new(int32(4)),
		AcquireTime: &metav1.MicroTime{Time: noon}, RenewTime: &metav1.MicroTime{Time: noon},
	}
	s := view.State{Leases: []*coordinationv1.Lease{l}, Seen: map[types.UID]time.Time{l.UID: noon}, Now: noon.Add(time.Hour)}
	pod := func(name string, change func(*corev1.Pod)) {
		p := &corev1.Pod{ObjectMeta: meta(name)}
		p.Annotations[api.SlotsAnnotation] = "once.a,once.b"
		p.Spec.InitContainers = []corev1.Container{
			{Name: "init", Image: secret, Args: []string{secret}},
			{Name: api.AgentContainer, RestartPolicy: &always, Args: []string{"run", "--once=key", "--probe=" + secret}, Env: []corev1.EnvVar{{Name: "A", Value: secret}}},
		}
		p.Spec.Containers = []corev1.Container{{
			Name: "app", Image: secret, Command: []string{api.AgentBinary, "exec", "--", secret}, Args: []string{secret}, Env: []corev1.EnvVar{{Name: "A", Value: secret}},
		}}
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
	pod("holder", func(*corev1.Pod) {})
	pod("standby", func(*corev1.Pod) {})
	pod("ended", func(p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded })
	pod("begun", func(p *corev1.Pod) { p.Spec.Containers[0].Command = []string{secret} })
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
	require.Len(t, want, 2)
	require.NotEmpty(t, want[0].Handovers)
	require.NotEmpty(t, want[1].Standbys)
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
	for _, objects := range []any{s.Leases, s.Pods, s.Events} {
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
