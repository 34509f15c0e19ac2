// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package console

import (
	"fmt"
	"slices"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/console/view"
)

// noon is the instant at which the stories end.
var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// story has the objects that the console would watch.
type story struct {
	state   view.State
	trouble string
}

func (s *story) slots() []view.Slot { return s.state.Slots(nil, 20) }

// lease adds a Lease, or replaces the Lease of that name. Without a holder the Lease is free.
func (s *story) lease(namespace, slot, holder string, held time.Duration) {
	l := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{
		Namespace: namespace, Name: slot, UID: types.UID(namespace + slot),
		Labels: map[string]string{api.ManagedLabel: "true"}, Annotations: map[string]string{},
	}}
	l.Spec.LeaseTransitions = new(int32(3))
	l.Spec.LeaseDurationSeconds = new(int32(30))
	if holder != "" {
		l.Spec.HolderIdentity = new(api.Identity(holder, holder+"-uid"))
		l.Spec.AcquireTime = &metav1.MicroTime{Time: noon.Add(-held)}
		l.Annotations[api.HoldAnnotation] = "hold-" + holder
		l.Annotations[api.TokenAnnotation] = "4711"
		l.Annotations[api.ServingAnnotation] = noon.Add(-held).Format(time.RFC3339)
		l.Annotations[api.WorkloadAnnotation] = "Deployment/" + slot
	}
	for i, other := range s.state.Leases {
		if other.UID == l.UID {
			s.state.Leases[i] = l
			return
		}
	}
	s.state.Leases = append(s.state.Leases, l)
}

// pod adds a gated pod that claims slots. The arguments "reason" and "message" are those of the
// condition that the agent writes into the pod's status.
func (s *story) pod(namespace, name string, waits time.Duration, reason, message string, slots string) {
	always := corev1.ContainerRestartPolicyAlways
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
		Namespace: namespace, Name: name, UID: types.UID(name + "-uid"),
		Labels: map[string]string{api.GatedLabel: api.Gated}, Annotations: map[string]string{api.SlotsAnnotation: slots},
	}}
	p.Spec.InitContainers = []corev1.Container{{Name: api.AgentContainer, RestartPolicy: &always, Args: []string{"run"}}}
	p.Spec.Containers = []corev1.Container{{Name: "app", Command: []string{api.ShimProgram, "exec"}}}
	p.Spec.NodeName = "worker-" + name[len(name)-1:]
	p.Status.Phase = corev1.PodRunning
	p.Status.StartTime = &metav1.Time{Time: noon.Add(-waits)}
	p.Status.Conditions = []corev1.PodCondition{{Type: api.ReadyCondition, Status: corev1.ConditionTrue, Reason: reason, Message: message}}
	s.state.Pods = append(s.state.Pods, p)
}

// event adds an Event of a pod's agent.
func (s *story) event(namespace, pod, reason, message string, before time.Duration) {
	e := &corev1.Event{Reason: reason, Message: message, LastTimestamp: metav1.Time{Time: noon.Add(-before)}}
	e.Namespace, e.Name = namespace, fmt.Sprint(pod, ".", len(s.state.Events))
	e.UID = types.UID(e.Name)
	e.InvolvedObject = corev1.ObjectReference{Kind: "Pod", Namespace: namespace, Name: pod, UID: types.UID(pod + "-uid")}
	s.state.Events = append(s.state.Events, e)
}

// biller is the slot of the stories' singleton.
const biller = "singleton.deployment.biller"

// afternoon returns the story of a cluster with each kind of trouble.
func afternoon() *story {
	s := new(story)
	s.lease("shop", biller, "biller-7d9f-x2x4q", 5*time.Hour)
	s.pod("shop", "biller-7d9f-x2x4q", 6*time.Hour, "Holding", "holds "+biller, biller)
	s.pod("shop", "biller-7d9f-k8w2n", 3*time.Hour, "StandingBy", "biller-7d9f-x2x4q holds "+biller+" <img src=x onerror=alert(1)>", biller)
	s.event("shop", "biller-7d9f-x2x4q", api.ReasonAcquired, "this pod holds "+biller+" (token 4711)", 5*time.Hour)

	s.lease("shop", "lock.report", "report-weekly-qq9zt", 40*time.Minute)
	s.pod("shop", "report-weekly-qq9zt", time.Hour, "Holding", "holds lock.report", "lock.report")
	s.pod("shop", "report-daily-2mm4c", 37*time.Minute, "StandingBy", "report-weekly-qq9zt holds lock.report", "lock.report")
	s.pod("shop", "import-hourly-h7p2d", 12*time.Minute, "StandingBy", "report-weekly-qq9zt holds lock.report", "lock.report")

	s.lease("payments", "singleton.statefulset.ledger", "", 0)
	s.pod("payments", "ledger-0", 4*time.Minute, "ChildOfEarlierHold", "a child of an earlier hold may still run", "singleton.statefulset.ledger")
	for i := range 3 {
		s.lease("render", fmt.Sprint("semaphore.licence.", i), fmt.Sprint("render-", i), time.Duration(i+1)*time.Minute)
		s.pod("render", fmt.Sprint("render-", i), time.Hour, "Holding", "holds", "semaphore.licence.0,semaphore.licence.1,semaphore.licence.2")
	}
	s.pod("render", "render-3", 90*time.Second, "StandingBy", "all 3 slots of semaphore.licence are held", "semaphore.licence.0,semaphore.licence.1,semaphore.licence.2")
	return s
}

// handsOver deletes the singleton's holder. The standby holds, and a new pod stands by.
func (s *story) handsOver() {
	const old, next = "biller-7d9f-x2x4q", "biller-7d9f-k8w2n"
	s.lease("shop", biller, next, 0)
	s.state.Pods = slices.DeleteFunc(s.state.Pods, func(p *corev1.Pod) bool { return p.Name == old })
	s.pod("shop", "biller-7d9f-m4t6c", 2*time.Second, "StandingBy", next+" holds "+biller, biller)
	s.event("shop", old, "PodDeleted", "draining to hand over "+biller+": this pod is being deleted", 3*time.Second)
	s.event("shop", old, api.ReasonReleased, biller+" is free again", 2*time.Second)
	s.event("shop", next, api.ReasonAcquired, "this pod holds "+biller+" (token 4815)", time.Second)
}
