// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"testing"
	"testing/synctest"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metaparticle-io/metaparticle/mutate/admit"
	"github.com/metaparticle-io/metaparticle/mutate/reason"
)

// regarded keeps the object of each Event.
type regarded chan *metav1.PartialObjectMetadata

func (r regarded) Eventf(regarding, _ runtime.Object, _, _, _, _ string, _ ...any) {
	r <- regarding.(*metav1.PartialObjectMetadata)
}

// refusedPod returns the outcome for a refused pod with the given owner.
func refusedPod(owner metav1.OwnerReference) admit.Outcome {
	return admit.Outcome{
		Resource: "pods", Namespace: "shop", Owner: &owner,
		Denied: true, Reasons: []reason.Reason{reason.Probes}, Message: "Probes: …",
	}
}

// refusal is a refused pod of the namespace "shop".
type refusal struct {
	owner metav1.OwnerReference
	exist []client.Object
	event string // the version, kind, name and UID of the Event's object; empty for no Event
}

// refusals returns refused pods with owners of each kind.
func refusals() map[string]refusal {
	objects := func(all ...client.Object) []client.Object { return all }
	deployment := &appsv1.Deployment{ObjectMeta: named("web")}
	statefulSet := &appsv1.StatefulSet{ObjectMeta: named("db")}
	byReplicaSet := controlledBy("apps/v1", "ReplicaSet", "web-1")
	replaced := controlledBy("apps/v1", "Deployment", "web")
	replaced.UID = "of a deleted Deployment"
	return map[string]refusal{
		"StatefulSet": {controlledBy("apps/v1", "StatefulSet", "db"), objects(statefulSet), "apps/v1 StatefulSet db db-uid"},
		"StatefulSet of an operator": {
			controlledBy("apps/v1", "StatefulSet", "db"),
			objects(&appsv1.StatefulSet{ObjectMeta: named("db", controlledBy("db.example/v1", "Database", "db"))}),
			"apps/v1 StatefulSet db db-uid",
		},
		"DaemonSet": {
			controlledBy("apps/v1", "DaemonSet", "log"), objects(&appsv1.DaemonSet{ObjectMeta: named("log")}), "apps/v1 DaemonSet log log-uid",
		},
		"ReplicationController": {
			controlledBy("v1", "ReplicationController", "old"), objects(&corev1.ReplicationController{ObjectMeta: named("old")}),
			"v1 ReplicationController old old-uid",
		},
		"driver pod":      {controlledBy("v1", "Pod", "driver"), objects(&corev1.Pod{ObjectMeta: named("driver")}), "v1 Pod driver driver-uid"},
		"bare ReplicaSet": {byReplicaSet, objects(&appsv1.ReplicaSet{ObjectMeta: named("web-1")}), "apps/v1 ReplicaSet web-1 web-1-uid"},
		"bare Job": {
			controlledBy("batch/v1", "Job", "migrate"), objects(&batchv1.Job{ObjectMeta: named("migrate")}), "batch/v1 Job migrate migrate-uid",
		},
		"Deployment": {
			byReplicaSet, objects(deployment, &appsv1.ReplicaSet{ObjectMeta: named("web-1", controlledBy("apps/v1", "Deployment", "web"))}),
			"apps/v1 Deployment web web-uid",
		},
		"CronJob": {
			controlledBy("batch/v1", "Job", "nightly-1"),
			objects(&batchv1.CronJob{ObjectMeta: named("nightly")},
				&batchv1.Job{ObjectMeta: named("nightly-1", controlledBy("batch/v1", "CronJob", "nightly"))}),
			"batch/v1 CronJob nightly nightly-uid",
		},
		"CronJob, by hand": {
			controlledBy("batch/v1", "Job", "nightly-1"),
			objects(&batchv1.CronJob{ObjectMeta: named("nightly")},
				&batchv1.Job{ObjectMeta: named("nightly-1", namedBy("batch/v1", "CronJob", "nightly"))}),
			"batch/v1 CronJob nightly nightly-uid",
		},
		"Argo Rollout": {
			byReplicaSet, objects(&appsv1.ReplicaSet{ObjectMeta: named("web-1", controlledBy("argoproj.io/v1alpha1", "Rollout", "web"))}),
			"argoproj.io/v1alpha1 Rollout web web-uid",
		},
		"ReplicaSet of a replaced Deployment": {
			byReplicaSet, objects(deployment, &appsv1.ReplicaSet{ObjectMeta: named("web-1", replaced)}), "apps/v1 ReplicaSet web-1 web-1-uid",
		},
		"owner that does not exist": {controlledBy("apps/v1", "StatefulSet", "db"), nil, ""},
		"owner of a foreign kind":   {controlledBy("apps.kruise.io/v1", "CloneSet", "web"), objects(deployment), ""},
		"owner of an invented kind": {controlledBy("apps/v1", "statefulset", "db"), objects(statefulSet), ""},
	}
}

// The alert about refused pods tells the person on call to look for the Event with the reason of
// the refusal. So each kind of workload needs this Event.
func TestWorkloadOfARefusedPodGetsTheEvent(t *testing.T) {
	for name, c := range refusals() {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				events := make(regarded, 10)
				begin(t, events, c.exist...).observe(refusedPod(c.owner))
				synctest.Wait()
				if c.event == "" {
					assert.Empty(t, events)
					return
				}
				require.Len(t, events, 1)
				at := <-events
				assert.Equal(t, c.event, at.APIVersion+" "+at.Kind+" "+at.Name+" "+string(at.UID))
				assert.Equal(t, "shop", at.Namespace)
				assert.Empty(t, at.ResourceVersion, "equal Events of two versions of a workload would not be one series")
			})
		})
	}
}

// Only the controller of a pod gets the pod's warnings, such as one about the command of its image.
func TestWorkloadOfAWarnedPodGetsTheEvent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		events := make(notes, 10)
		r := begin(t, events, &appsv1.StatefulSet{ObjectMeta: named("db")})
		warned := refusedPod(controlledBy("apps/v1", "StatefulSet", "db"))
		warned.Denied, warned.Changed, warned.Reasons, warned.Message = false, true, []reason.Reason{reason.NeedsPID1}, "NeedsPID1: …"
		r.observe(warned)
		dry, bare := warned, warned
		dry.DryRun, bare.Owner = true, nil
		r.observe(dry)
		r.observe(bare)
		warned.Reasons, warned.Message = nil, ""
		r.observe(warned)
		synctest.Wait()
		require.Len(t, events, 1)
		assert.Equal(t, "A pod was admitted with a warning: NeedsPID1: …", <-events)
	})
}

// The author of a pod can name any workload as the owner. Without the right UID, the Event would
// mislead the people who look at that workload.
func TestOwnerReferenceWithForgedUIDCausesNoEvent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		events := make(regarded, 10)
		r := begin(t, events, &appsv1.StatefulSet{ObjectMeta: named("a")}, &appsv1.DaemonSet{ObjectMeta: named("a")},
			&appsv1.ReplicaSet{ObjectMeta: named("a")}, &batchv1.Job{ObjectMeta: named("a")}, &corev1.Pod{ObjectMeta: named("a")})
		for version, kinds := range map[string][]string{"apps/v1": {"StatefulSet", "DaemonSet", "ReplicaSet"}, "batch/v1": {"Job"}, "v1": {"Pod"}} {
			for _, kind := range kinds {
				for _, uid := range []types.UID{"made up", ""} {
					forged := controlledBy(version, kind, "a")
					forged.UID = uid
					r.observe(refusedPod(forged))
				}
			}
		}
		synctest.Wait()
		assert.Empty(t, events)
	})
}

// A person may try a manifest again and again, for example with "kubectl metaparticle check". The
// alert about refused pods must not fire because of such a person.
func TestMetricOfAdmissionsIgnoresDryRuns(t *testing.T) {
	admissions.Reset()
	r := newReporter(nil, nil, nil)
	for _, o := range []admit.Outcome{
		refusedPod(metav1.OwnerReference{}), {Resource: "pods", Changed: true}, {Resource: "pods"},
		{Resource: "deployments", Reasons: []reason.Reason{reason.RolloutStalls}},
	} {
		o.DryRun = true
		r.observe(o)
	}
	all := make(chan prometheus.Metric, 10)
	admissions.Collect(all)
	assert.Empty(t, all)

	r.observe(refusedPod(metav1.OwnerReference{}))
	var counted dto.Metric
	require.NoError(t, admissions.WithLabelValues("pods", "denied", "Probes").Write(&counted))
	assert.EqualValues(t, 1, counted.GetCounter().GetValue())
}
