// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/mutate/admit"
	"github.com/metaparticle-io/metaparticle/mutate/feature"
)

// named returns the metadata of an object, with a controller if one is given.
func named(name string, controller ...metav1.OwnerReference) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: "shop", Name: name, UID: types.UID(name + "-uid"), OwnerReferences: controller}
}

func controlledBy(version, kind, name string) metav1.OwnerReference {
	return metav1.OwnerReference{
		APIVersion: version, Kind: kind, Name: name, UID: types.UID(name + "-uid"), Controller: new(true),
	}
}

// namedBy returns an owner reference as of [controlledBy], but not that of a controller.
func namedBy(version, kind, name string) metav1.OwnerReference {
	owner := controlledBy(version, kind, name)
	owner.Controller = nil
	return owner
}

func template(container string) corev1.PodTemplateSpec {
	return corev1.PodTemplateSpec{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: container}}}}
}

func storedRevision(t *testing.T, name, container string, controller metav1.OwnerReference) *appsv1.ControllerRevision {
	data, err := json.Marshal(map[string]any{"spec": map[string]any{"template": template(container)}})
	require.NoError(t, err)
	return &appsv1.ControllerRevision{ObjectMeta: named(name, controller), Data: runtime.RawExtension{Raw: data}}
}

func pod(hash string, controller ...metav1.OwnerReference) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: named("p", controller...)}
	p.Labels = map[string]string{appsv1.ControllerRevisionHashLabelKey: hash}
	return p
}

// docs/reference/compatibility.md: kinds/deployment-config kinds/knative carried
func TestPodsOriginNamesTheTopMostWorkload(t *testing.T) {
	set := &appsv1.ReplicaSet{ObjectMeta: named("biller-1", controlledBy("apps/v1", "Deployment", "biller"))}
	set.Spec.Template = template("of-the-set")
	rollout := &appsv1.ReplicaSet{ObjectMeta: named("ledger-1", controlledBy("argoproj.io/v1alpha1", "Rollout", "ledger"))}
	rollout.Spec.Template = template("of-the-rollout")
	bare := &appsv1.ReplicaSet{ObjectMeta: named("bare")}
	bare.Spec.Template = template("may-have-changed")
	job := &batchv1.Job{ObjectMeta: named("nightly-1", controlledBy("batch/v1", "CronJob", "nightly"))}
	job.Spec.Template = template("of-the-job")
	once := &batchv1.Job{ObjectMeta: named("once")}
	once.Spec.Template = template("of-the-job")
	// As clients name the CronJob of a Job that they make from its template.
	kubectl := &batchv1.Job{ObjectMeta: named("by-kubectl", namedBy("example.com/v1", "CronJob", "weekly"), namedBy("batch/v1", "CronJob", "nightly"))}
	kubectl.Annotations = map[string]string{api.InstantiateAnnotation: "manual"}
	k9s := &batchv1.Job{ObjectMeta: named("by-k9s", namedBy("batch/v1beta1", "CronJob", "nightly"))}
	operators := &batchv1.Job{ObjectMeta: named("by-operator", namedBy("batch/v1", "CronJob", "nightly"), controlledBy("example.com/v1", "Shop", "s"))}
	collected := &batchv1.Job{ObjectMeta: named("collected", namedBy("apps/v1", "Deployment", "biller"))}
	collectedSet := &appsv1.ReplicaSet{ObjectMeta: named("collected", namedBy("apps/v1", "Deployment", "biller"), namedBy("batch/v1", "CronJob", "nightly"))}
	db := controlledBy("apps/v1", "StatefulSet", "db")
	node := controlledBy("apps/v1", "DaemonSet", "node")
	// As OpenShift and Knative make the controllers of two versions.
	worker1, worker2 := deploymentConfigs("worker-1", "1"), deploymentConfigs("worker-2", "2")
	serving1, serving2 := knatives("serving-00001", map[string]string{"serving.knative.dev/service": "serving", "serving.knative.dev/configuration": "serving"}),
		knatives("serving-00002", map[string]string{"serving.knative.dev/service": "serving", "serving.knative.dev/configuration": "serving"})
	configured := knatives("configured-00001", map[string]string{"serving.knative.dev/configuration": "configured"})
	// A label counts only on a Deployment that a Revision of Knative controls.
	labelled := knatives("labelled", map[string]string{"serving.knative.dev/service": "serving"})
	labelled[0].SetOwnerReferences(nil)
	operated := knatives("operated", map[string]string{"serving.knative.dev/service": "serving"})
	operated[0].SetOwnerReferences([]metav1.OwnerReference{controlledBy("example.com/v1", "Revision", "operated")})
	unlabelled, malformed := knatives("unlabelled", nil), knatives("malformed", map[string]string{"serving.knative.dev/service": "A_b"})
	ofOpenShift := api.Workload{Group: "apps.openshift.io", Kind: "DeploymentConfig", Name: "worker"}
	ofKnative := api.Workload{Group: "serving.knative.dev", Kind: "Service", Name: "serving"}
	c := fake.NewClientBuilder().WithObjects(slices.Concat(serving1, serving2, configured, labelled, operated, unlabelled, malformed)...).
		WithObjects(worker1, worker2, set, rollout, bare, job, once, kubectl, k9s, operators, collected, collectedSet,
			&appsv1.Deployment{ObjectMeta: named("biller")}, &batchv1.CronJob{ObjectMeta: named("nightly")},
			&appsv1.StatefulSet{ObjectMeta: named("db")}, &appsv1.DaemonSet{ObjectMeta: named("node")},
			&corev1.ReplicationController{ObjectMeta: named("old")}, &corev1.Pod{ObjectMeta: named("driver")},
			storedRevision(t, "db-abc", "of-the-revision", db),
			storedRevision(t, "node-abc", "of-the-revision", node),
			storedRevision(t, "db-foreign", "of-another", controlledBy("apps/v1", "StatefulSet", "other")),
		).Build()

	tests := map[string]struct {
		pod       *corev1.Pod
		group     api.Workload
		container string // the template's container; empty if the template is not certain
	}{
		"bare pod":                    {pod(""), api.Workload{Kind: "Pod", Name: "p"}, ""},
		"Deployment's":                {pod("", controlledBy("apps/v1", "ReplicaSet", "biller-1")), api.Workload{Group: "apps", Kind: "Deployment", Name: "biller"}, "of-the-set"},
		"ReplicaSet of a custom kind": {pod("", controlledBy("apps/v1", "ReplicaSet", "ledger-1")), api.Workload{Group: "argoproj.io", Kind: "Rollout", Name: "ledger"}, "of-the-rollout"},
		"bare ReplicaSet's":           {pod("", controlledBy("apps/v1", "ReplicaSet", "bare")), api.Workload{Group: "apps", Kind: "ReplicaSet", Name: "bare"}, ""},
		"CronJob's":                   {pod("", controlledBy("batch/v1", "Job", "nightly-1")), api.Workload{Group: "batch", Kind: "CronJob", Name: "nightly"}, "of-the-job"},
		"Job's":                       {pod("", controlledBy("batch/v1", "Job", "once")), api.Workload{Group: "batch", Kind: "Job", Name: "once"}, "of-the-job"},
		"CronJob's, by kubectl":       {pod("", controlledBy("batch/v1", "Job", "by-kubectl")), api.Workload{Group: "batch", Kind: "CronJob", Name: "nightly"}, "-"},
		"CronJob's, by k9s":           {pod("", controlledBy("batch/v1", "Job", "by-k9s")), api.Workload{Group: "batch", Kind: "CronJob", Name: "nightly"}, "-"},
		"operator's with a CronJob":   {pod("", controlledBy("batch/v1", "Job", "by-operator")), api.Workload{Group: "example.com", Kind: "Shop", Name: "s"}, "-"},
		"Job that a Deployment names": {pod("", controlledBy("batch/v1", "Job", "collected")), api.Workload{Group: "batch", Kind: "Job", Name: "collected"}, "-"},
		"bare ReplicaSet that names":  {pod("", controlledBy("apps/v1", "ReplicaSet", "collected")), api.Workload{Group: "apps", Kind: "ReplicaSet", Name: "collected"}, ""},
		"bare pod that a Job names":   {pod("", namedBy("batch/v1", "Job", "once")), api.Workload{Kind: "Pod", Name: "p"}, ""},
		"StatefulSet's":               {pod("db-abc", db), api.Workload{Group: "apps", Kind: "StatefulSet", Name: "db"}, "of-the-revision"},
		"DaemonSet's":                 {pod("abc", node), api.Workload{Group: "apps", Kind: "DaemonSet", Name: "node"}, "of-the-revision"},
		"ReplicationController's":     {pod("", controlledBy("v1", "ReplicationController", "old")), api.Workload{Kind: "ReplicationController", Name: "old"}, ""},
		"DeploymentConfig's":          {pod("", controlledBy("v1", "ReplicationController", "worker-1")), ofOpenShift, "of-worker-1"},
		"… of its next version":       {pod("", controlledBy("v1", "ReplicationController", "worker-2")), ofOpenShift, "of-worker-2"},
		"Knative Service's":           {pod("", controlledBy("apps/v1", "ReplicaSet", "serving-00001-set")), ofKnative, "of-serving-00001"},
		"… of its next Revision":      {pod("", controlledBy("apps/v1", "ReplicaSet", "serving-00002-set")), ofKnative, "of-serving-00002"},
		"Knative Configuration's":     {pod("", controlledBy("apps/v1", "ReplicaSet", "configured-00001-set")), api.Workload{Group: "serving.knative.dev", Kind: "Configuration", Name: "configured"}, "-"},
		"label of a Service":          {pod("", controlledBy("apps/v1", "ReplicaSet", "labelled-set")), api.Workload{Group: "apps", Kind: "Deployment", Name: "labelled"}, "-"},
		"… and a foreign Revision":    {pod("", controlledBy("apps/v1", "ReplicaSet", "operated-set")), api.Workload{Group: "apps", Kind: "Deployment", Name: "operated"}, "-"},
		"Revision without a label":    {pod("", controlledBy("apps/v1", "ReplicaSet", "unlabelled-set")), api.Workload{Group: "apps", Kind: "Deployment", Name: "unlabelled"}, "-"},
		"Revision, malformed label":   {pod("", controlledBy("apps/v1", "ReplicaSet", "malformed-set")), api.Workload{Group: "apps", Kind: "Deployment", Name: "malformed"}, "-"},
		"Pod's":                       {pod("", controlledBy("v1", "Pod", "driver")), api.Workload{Kind: "Pod", Name: "driver"}, ""},
		"ConfigMap's":                 {pod("", controlledBy("v1", "ConfigMap", "c")), api.Workload{Kind: "ConfigMap", Name: "c"}, ""},
		"revision is gone":            {pod("db-gone", db), api.Workload{Group: "apps", Kind: "StatefulSet", Name: "db"}, ""},
		"revision is not its own":     {pod("db-foreign", db), api.Workload{Group: "apps", Kind: "StatefulSet", Name: "db"}, ""},
		"custom kind":                 {pod("", controlledBy("example.com/v1", "Shop", "s")), api.Workload{Group: "example.com", Kind: "Shop", Name: "s"}, ""},
		"ReplicaSet of other group":   {pod("", controlledBy("example.com/v1", "ReplicaSet", "biller-1")), api.Workload{Group: "example.com", Kind: "ReplicaSet", Name: "biller-1"}, ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			origin, err := owners{typed{c}, c}.Origin(t.Context(), "shop", test.pod)
			require.NoError(t, err)
			assert.Equal(t, test.group, origin.Workload)
			if test.container == "" {
				assert.Nil(t, origin.Template)
				return
			}
			require.NotNil(t, origin.Template)
			if test.container == "-" {
				return
			}
			assert.Equal(t, test.container, origin.Template.Containers[0].Name)
		})
	}
}

func TestOriginTellsIfOtherPodsMayHaveToCompete(t *testing.T) {
	marked := map[string]string{api.InstantiateAnnotation: "manual"}
	unnamed, made, plain := &batchv1.Job{ObjectMeta: named("unnamed")}, &batchv1.Job{ObjectMeta: named("made", namedBy("batch/v1", "CronJob", "nightly"))}, &batchv1.Job{ObjectMeta: named("plain")}
	unnamed.Annotations, made.Annotations = marked, marked
	anew, replicas, version := &batchv1.Job{ObjectMeta: named("anew")}, &appsv1.ReplicaSet{ObjectMeta: named("replicas")}, &corev1.ReplicationController{ObjectMeta: named("version")}
	anew.GenerateName, replicas.GenerateName, version.GenerateName = "a-", "r-", "v-"
	dated, later := &batchv1.Job{ObjectMeta: named("nightly-20261201")}, &batchv1.Job{ObjectMeta: named("nightly-20261202", controlledBy("batch/v1", "CronJob", "nightly"))}
	c := fake.NewClientBuilder().WithObjects(unnamed, made, plain, anew, replicas, version, dated, later, &batchv1.CronJob{ObjectMeta: named("nightly")}).Build()
	for name, test := range map[string]struct {
		of   metav1.OwnerReference
		want string // empty for no warning
	}{
		"a client's Job of no CronJob":  {controlledBy("batch/v1", "Job", "unnamed"), "names no CronJob"},
		"a client's Job of a CronJob":   {controlledBy("batch/v1", "Job", "made"), ""},
		"a Job":                         {controlledBy("batch/v1", "Job", "plain"), ""},
		"a Job made anew":               {controlledBy("batch/v1", "Job", "anew"), "generateName"},
		"a Job with a day":              {controlledBy("batch/v1", "Job", "nightly-20261201"), "a date"},
		"… of a CronJob":                {controlledBy("batch/v1", "Job", "nightly-20261202"), ""},
		"a ReplicaSet made anew":        {controlledBy("apps/v1", "ReplicaSet", "replicas"), "generateName"},
		"a ReplicationController's pod": {controlledBy("v1", "ReplicationController", "version"), "generateName"},
	} {
		origin, err := owners{typed{c}, c}.Origin(t.Context(), "shop", pod("", test.of))
		require.NoError(t, err)
		assert.Contains(t, origin.Apart, test.want, name)
		assert.Equal(t, test.want == "", origin.Apart == "", name)
	}
}

// deploymentConfigs returns the ReplicationController of a version of the DeploymentConfig "worker".
func deploymentConfigs(name, version string) *corev1.ReplicationController {
	made := &corev1.ReplicationController{ObjectMeta: named(name, controlledBy("apps.openshift.io/v1", "DeploymentConfig", "worker"))}
	made.Annotations = map[string]string{"openshift.io/deployment-config.name": "worker", "openshift.io/deployment-config.latest-version": version}
	made.Spec.Selector = map[string]string{"deployment": name, "deploymentconfig": "worker"}
	made.Spec.Template = new(template("of-" + name))
	return made
}

// knatives returns the Deployment of a Revision of Knative, and its ReplicaSet.
func knatives(revision string, labels map[string]string) []client.Object {
	deployment := &appsv1.Deployment{ObjectMeta: named(revision, controlledBy("serving.knative.dev/v1", "Revision", revision))}
	deployment.Labels = labels
	set := replicaSet(revision+"-set", controlledBy("apps/v1", "Deployment", revision), "deployment.kubernetes.io/revision", "1", "pod-template-hash", "5d4f")
	set.Spec.Template = template("of-" + revision)
	return []client.Object{deployment, set}
}

// replicaSet returns a ReplicaSet as a controller makes it: the number is an annotation, and the
// hash is a label of the selector.
func replicaSet(name string, controller metav1.OwnerReference, number, numbered, hash, hashed string) *appsv1.ReplicaSet {
	set := &appsv1.ReplicaSet{ObjectMeta: named(name, controller)}
	set.Annotations = map[string]string{number: numbered}
	set.Spec.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{hash: hashed}}
	return set
}

func TestOriginTellsIfControllerReplacesUnreadyPods(t *testing.T) {
	const rolling, byHand = "RollingUpdate", "OnDelete"
	for name, c := range map[string]struct {
		policy   appsv1.PodManagementPolicyType // empty for a DaemonSet
		strategy string
		hash     string
		want     bool
	}{
		"Parallel":                {appsv1.ParallelPodManagement, rolling, "of-7c9", true},
		"Parallel, by hand":       {appsv1.ParallelPodManagement, byHand, "of-7c9", false},
		"OrderedReady":            {appsv1.OrderedReadyPodManagement, rolling, "of-7c9", false},
		"DaemonSet":               {"", rolling, "7c9", true},
		"DaemonSet, by hand":      {"", byHand, "7c9", false},
		"DaemonSet, no known pod": {"", rolling, "", false},
	} {
		t.Run(name, func(t *testing.T) {
			of := controlledBy("apps/v1", "DaemonSet", "of")
			var set client.Object = &appsv1.DaemonSet{ObjectMeta: named("of"), Spec: appsv1.DaemonSetSpec{
				UpdateStrategy: appsv1.DaemonSetUpdateStrategy{Type: appsv1.DaemonSetUpdateStrategyType(c.strategy)},
			}}
			if c.policy != "" {
				of = controlledBy("apps/v1", "StatefulSet", "of")
				set = &appsv1.StatefulSet{ObjectMeta: named("of"), Spec: appsv1.StatefulSetSpec{
					PodManagementPolicy: c.policy,
					UpdateStrategy:      appsv1.StatefulSetUpdateStrategy{Type: appsv1.StatefulSetUpdateStrategyType(c.strategy)},
				}}
			}
			stored := storedRevision(t, "of-7c9", "app", of)
			stored.Revision = 1
			reader := fake.NewClientBuilder().WithObjects(set, stored).Build()
			origin, err := owners{typed{reader}, reader}.Origin(t.Context(), "shop", pod(c.hash, of))
			require.NoError(t, err)
			assert.Equal(t, c.want, origin.ReplacesUnready)
		})
	}
}

func TestOriginContainsParallelismAndCompletionsOfJob(t *testing.T) {
	indexed, plain := batchv1.IndexedCompletion, batchv1.NonIndexedCompletion
	for name, c := range map[string]struct {
		parallelism, completions *int32
		mode                     *batchv1.CompletionMode
		want                     int
	}{
		"default":           {nil, nil, nil, 1},
		"a queue":           {new(int32(5)), nil, &plain, 5},
		"few completions":   {new(int32(5)), new(int32(3)), &indexed, 3},
		"few pods at once":  {new(int32(2)), new(int32(3)), &plain, 2},
		"completions alone": {nil, new(int32(3)), nil, 1},
	} {
		t.Run(name, func(t *testing.T) {
			job := &batchv1.Job{ObjectMeta: named("nightly-1", controlledBy("batch/v1", "CronJob", "nightly"))}
			job.Spec.Parallelism, job.Spec.Completions, job.Spec.CompletionMode = c.parallelism, c.completions, c.mode
			reader := fake.NewClientBuilder().WithObjects(job, &batchv1.CronJob{ObjectMeta: named("nightly")}).Build()
			of := controlledBy("batch/v1", "Job", "nightly-1")
			origin, err := owners{typed{reader}, reader}.Origin(t.Context(), "shop", pod("", of))
			require.NoError(t, err)
			assert.Equal(t, feature.Run{UID: string(of.UID), AtOnce: c.want, Completions: c.completions, Indexed: c.mode == &indexed}, origin.Run)
			assert.Equal(t, "CronJob", origin.Workload.Kind)
		})
	}
}

func TestOriginTakesTheRevisionFromThePodsController(t *testing.T) {
	const (
		number, hash         = "deployment.kubernetes.io/revision", "pod-template-hash"
		argoNumber, argoHash = "rollout.argoproj.io/revision", "rollouts-pod-template-hash"
	)
	biller, ledger := controlledBy("apps/v1", "Deployment", "biller"), controlledBy("argoproj.io/v1alpha1", "Rollout", "ledger")
	db, node := controlledBy("apps/v1", "StatefulSet", "db"), controlledBy("apps/v1", "DaemonSet", "node")
	bare := replicaSet("bare", biller, number, "3", hash, "5d4f")
	bare.OwnerReferences = nil
	patient := replicaSet("patient", biller, number, "3", hash, "5d4f")
	patient.Spec.MinReadySeconds = 20
	unselected := replicaSet("unselected", biller, number, "3", hash, "5d4f")
	unselected.Spec.Selector = nil
	dbRevision := storedRevision(t, "db-7c9", "app", db)
	dbRevision.Revision = 4
	nodeRevision := storedRevision(t, "node-7c9", "app", node)
	nodeRevision.Revision = 5
	job := &batchv1.Job{ObjectMeta: named("nightly-1", controlledBy("batch/v1", "CronJob", "nightly"))}
	job.Annotations = map[string]string{number: "3"}
	second, uncontrolled := deploymentConfigs("worker-2", "2"), deploymentConfigs("worker-3", "3")
	second.Spec.MinReadySeconds, uncontrolled.OwnerReferences = 20, nil
	knative := knatives("serving-00001", map[string]string{"serving.knative.dev/service": "serving"})
	c := fake.NewClientBuilder().WithObjects(
		replicaSet("biller-5d4f", biller, number, "3", hash, "5d4f"),
		replicaSet("ledger-6e5a", ledger, argoNumber, "12", argoHash, "6e5a"),
		replicaSet("unnumbered", biller, argoNumber, "3", hash, "5d4f"),
		replicaSet("zeroth", biller, number, "0", hash, "5d4f"),
		replicaSet("odd", biller, number, "three", hash, "5d4f"),
		replicaSet("endless", biller, number, "99999999999999999999", hash, "5d4f"),
		replicaSet("unhashed", biller, number, "3", argoHash, "5d4f"),
		replicaSet("spelt", biller, number, "3", hash, "5d/4f"),
		replicaSet("foreign", controlledBy("example.com/v1", "Deployment", "biller"), number, "3", hash, "5d4f"),
		replicaSet("ledger-old", ledger, number, "3", hash, "5d4f"),
		bare, unselected, patient, job, dbRevision, nodeRevision,
		second, deploymentConfigs("worker-odd", "two"), uncontrolled, knative[0], knative[1],
		storedRevision(t, "db-unnumbered", "app", db),
		&appsv1.Deployment{ObjectMeta: named("biller")},
		&appsv1.StatefulSet{ObjectMeta: named("db"), Spec: appsv1.StatefulSetSpec{MinReadySeconds: 20}},
		&appsv1.DaemonSet{ObjectMeta: named("node"), Spec: appsv1.DaemonSetSpec{MinReadySeconds: 20}},
		&batchv1.CronJob{ObjectMeta: named("nightly")},
	).Build()
	of := func(set string) *corev1.Pod { return pod("", controlledBy("apps/v1", "ReplicaSet", set)) }
	ofVersion := func(name string) *corev1.Pod { return pod("", controlledBy("v1", "ReplicationController", name)) }
	for _, patient := range []*corev1.Pod{of("patient"), pod("db-7c9", db), pod("7c9", node), ofVersion("worker-2")} {
		origin, err := owners{typed{c}, c}.Origin(t.Context(), "shop", patient)
		require.NoError(t, err)
		assert.Equal(t, 20*time.Second, origin.MinReady)
	}
	for name, test := range map[string]struct {
		pod  *corev1.Pod
		want string
	}{
		"Deployment's":               {of("biller-5d4f"), "biller-uid/3/5d4f"},
		"Argo's Rollout's":           {of("ledger-6e5a"), "ledger-uid/12/6e5a"},
		"StatefulSet's":              {pod("db-7c9", db), "db-uid/4/db-7c9"},
		"DaemonSet's":                {pod("7c9", node), "node-uid/5/7c9"},
		"DeploymentConfig's":         {ofVersion("worker-2"), "worker-uid/2/worker-2"},
		"… without a number":         {ofVersion("worker-odd"), ""},
		"… whose RC is orphaned":     {ofVersion("worker-3"), ""},
		"Knative's":                  {of("serving-00001-set"), ""},
		"without a number":           {of("unnumbered"), ""},
		"number zero":                {of("zeroth"), ""},
		"number in letters":          {of("odd"), ""},
		"number beyond 64 bits":      {of("endless"), ""},
		"without a hash":             {of("unhashed"), ""},
		"hash with a slash":          {of("spelt"), ""},
		"without a selector":         {of("unselected"), ""},
		"Deployment of other group":  {of("foreign"), ""},
		"Rollout, Deployment's mark": {of("ledger-old"), ""},
		"bare ReplicaSet's":          {of("bare"), ""},
		"CronJob's":                  {pod("5d4f", controlledBy("batch/v1", "Job", "nightly-1")), ""},
		"nobody's":                   {pod("5d4f"), ""},
		"revision without a number":  {pod("db-unnumbered", db), ""},
		"revision that is gone":      {pod("db-gone", db), ""},
	} {
		t.Run(name, func(t *testing.T) {
			origin, err := owners{typed{c}, c}.Origin(t.Context(), "shop", test.pod)
			require.NoError(t, err)
			assert.Equal(t, test.want, origin.Revision.String())
			if test.want != "" {
				slot := api.SingletonLease(origin.Workload, "")
				assert.True(t, api.HasNextLease(slot), "pods of %s have an order", slot)
			}
		})
	}
}

func TestMissingOrReplacedOwnerIsAnError(t *testing.T) {
	set := &appsv1.ReplicaSet{ObjectMeta: named("biller-1")}
	set.UID = "another"
	c := fake.NewClientBuilder().WithObjects(set).Build()
	_, err := owners{typed{c}, c}.Origin(t.Context(), "shop", pod("", controlledBy("apps/v1", "ReplicaSet", "biller-1")))
	require.ErrorIs(t, err, errReplaced)
	_, err = owners{typed{c}, c}.Origin(t.Context(), "shop", pod("", controlledBy("apps/v1", "ReplicaSet", "gone")))
	require.Error(t, err)
}

// counting returns a reader that counts its reads.
func counting(c client.WithWatch, reads *int) client.Reader {
	return interceptor.NewClient(c, interceptor.Funcs{
		Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, o client.Object, opts ...client.GetOption) error {
			*reads++
			return c.Get(ctx, key, o, opts...)
		},
	})
}

// The creator of a pod writes its owner references, so the webhook must check them.
func TestMismatchedOwnerReferenceIsAnError(t *testing.T) {
	wrong := func(version, kind, name string) metav1.OwnerReference {
		owner := controlledBy(version, kind, name)
		owner.UID = "of-another"
		return owner
	}
	stolen := &appsv1.ReplicaSet{ObjectMeta: named("stolen", wrong("apps/v1", "Deployment", "biller"))}
	gone := &appsv1.ReplicaSet{ObjectMeta: named("gone", controlledBy("apps/v1", "Deployment", "no-more"))}
	spelt := &appsv1.ReplicaSet{ObjectMeta: named("spelt", controlledBy("apps/v1", "deployment", "biller"))}
	job := &batchv1.Job{ObjectMeta: named("stolen", wrong("batch/v1", "CronJob", "nightly"))}
	plain := wrong("batch/v1", "CronJob", "nightly")
	plain.Controller = nil
	byHand := &batchv1.Job{ObjectMeta: named("by-hand", plain)}
	replicas := &corev1.ReplicationController{ObjectMeta: named("stolen", wrong("apps/v1", "Deployment", "biller"))}
	revision := &appsv1.ReplicaSet{ObjectMeta: named("of-knative", wrong("apps/v1", "Deployment", "serving-00001"))}
	knative := knatives("serving-00001", map[string]string{"serving.knative.dev/service": "serving"})
	c := fake.NewClientBuilder().WithObjects(stolen, gone, spelt, job, byHand, replicas, revision, knative[0],
		&appsv1.Deployment{ObjectMeta: named("biller")}, &batchv1.CronJob{ObjectMeta: named("nightly")},
		&appsv1.StatefulSet{ObjectMeta: named("db")}, &appsv1.DaemonSet{ObjectMeta: named("node")},
		&corev1.ReplicationController{ObjectMeta: named("old")}, &corev1.Pod{ObjectMeta: named("driver")},
	).Build()
	tests := map[string]struct {
		owner metav1.OwnerReference
		err   error
	}{
		"StatefulSet":                    {wrong("apps/v1", "StatefulSet", "db"), errReplaced},
		"DaemonSet":                      {wrong("apps/v1", "DaemonSet", "node"), errReplaced},
		"Deployment":                     {wrong("apps/v1", "Deployment", "biller"), errReplaced},
		"ReplicationController":          {wrong("v1", "ReplicationController", "old"), errReplaced},
		"Pod":                            {wrong("v1", "Pod", "driver"), errReplaced},
		"ReplicaSet with a wrong owner":  {controlledBy("apps/v1", "ReplicaSet", "stolen"), errReplaced},
		"Job with a wrong owner":         {controlledBy("batch/v1", "Job", "stolen"), errReplaced},
		"Job made from no such CronJob":  {controlledBy("batch/v1", "Job", "by-hand"), errReplaced},
		"Controller with a wrong owner":  {controlledBy("v1", "ReplicationController", "stolen"), errReplaced},
		"ReplicaSet of a wrong Revision": {controlledBy("apps/v1", "ReplicaSet", "of-knative"), errReplaced},
		"ReplicaSet of a missing owner":  {controlledBy("apps/v1", "ReplicaSet", "gone"), nil},
		"ReplicaSet of a misspelt kind":  {controlledBy("apps/v1", "ReplicaSet", "spelt"), errNoKind},
		"missing StatefulSet":            {controlledBy("apps/v1", "StatefulSet", "x"), nil},
		"Deployment of the core group":   {controlledBy("v1", "Deployment", "biller"), errNoKind},
		"Deployment of batch":            {controlledBy("batch/v1", "Deployment", "biller"), errNoKind},
		"kind in lower case":             {controlledBy("apps/v1", "deployment", "biller"), errNoKind},
		"Pod of apps":                    {controlledBy("apps/v1", "Pod", "driver"), errNoKind},
		"version of three parts":         {controlledBy("a/b/c", "Deployment", "biller"), nil},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := owners{typed{c}, c}.Origin(t.Context(), "shop", pod("", test.owner))
			require.Error(t, err)
			if test.err != nil {
				require.ErrorIs(t, err, test.err)
			}
		})
	}
}

// The cache may be outdated if a workload is new, or has replaced another workload of
// the same name.
func TestUncachedOwnerIsReadFromTheAPIServer(t *testing.T) {
	set := &appsv1.ReplicaSet{ObjectMeta: named("biller-1", controlledBy("apps/v1", "Deployment", "biller"))}
	deployment := &appsv1.Deployment{ObjectMeta: named("biller")}
	predecessor := deployment.DeepCopy()
	predecessor.UID = "before"
	for name, test := range map[string]struct {
		cached []client.Object
		reads  int
	}{
		"cached":             {[]client.Object{deployment}, 1},
		"not cached":         {nil, 2},
		"predecessor cached": {[]client.Object{predecessor}, 2},
	} {
		t.Run(name, func(t *testing.T) {
			reads := 0
			o := owners{
				live:   typed{counting(fake.NewClientBuilder().WithObjects(set, deployment).Build(), &reads)},
				cached: fake.NewClientBuilder().WithObjects(test.cached...).Build(),
			}
			origin, err := o.Origin(t.Context(), "shop", pod("", controlledBy("apps/v1", "ReplicaSet", "biller-1")))
			require.NoError(t, err)
			assert.Equal(t, api.Workload{Group: "apps", Kind: "Deployment", Name: "biller"}, origin.Workload)
			assert.Equal(t, test.reads, reads, "live reads")
		})
	}
}

func TestCacheKeepsOnlyIdentityAndShortClaimsOfOwners(t *testing.T) {
	metadata := &metav1.PartialObjectMetadata{ObjectMeta: named("biller")}
	metadata.Annotations = map[string]string{"kubectl.kubernetes.io/last-applied-configuration": "much", api.SingletonAnnotation: "true"}
	for claim, want := range map[string]map[string]string{"true": {api.SingletonAnnotation: "true"}, strings.Repeat("x", maxOurs): nil} {
		metadata.Annotations[api.SingletonAnnotation] = claim
		kept, err := onlyIdentities(nil)(metadata)
		require.NoError(t, err)
		expected := &metav1.PartialObjectMetadata{ObjectMeta: named("biller")}
		expected.Annotations = want
		assert.Equal(t, expected, kept)
	}
}

// A pod of Knative asks the cache for the Service above its Deployment.
func TestCachedDeploymentKnowsItsKnativeService(t *testing.T) {
	made := knatives("serving-00001", map[string]string{"serving.knative.dev/service": "serving", "app": strings.Repeat("x", 63)})
	kept, err := onlyIdentities(nil)(&metav1.PartialObjectMetadata{ObjectMeta: *made[0].(*appsv1.Deployment).ObjectMeta.DeepCopy()})
	require.NoError(t, err)
	cached := &appsv1.Deployment{ObjectMeta: kept.(*metav1.PartialObjectMetadata).ObjectMeta}
	assert.NotContains(t, cached.Labels, "app")
	reads := 0
	o := owners{typed{counting(fake.NewClientBuilder().WithObjects(made[1]).Build(), &reads)}, fake.NewClientBuilder().WithObjects(cached).Build()}
	origin, err := o.Origin(t.Context(), "shop", pod("", controlledBy("apps/v1", "ReplicaSet", "serving-00001-set")))
	require.NoError(t, err)
	assert.Equal(t, api.Workload{Group: "serving.knative.dev", Kind: "Service", Name: "serving"}, origin.Workload)
	assert.Equal(t, 1, reads, "live reads")
}

func TestWebhookKnowsTheCronJobsOfItsCache(t *testing.T) {
	nightly, weekly := &batchv1.CronJob{ObjectMeta: named("nightly")}, &batchv1.CronJob{ObjectMeta: named("weekly")}
	weekly.Namespace = "other"
	nightly.Annotations = map[string]string{api.SingletonAnnotation: "true"}
	all, err := cronJobs(fake.NewClientBuilder().WithObjects(nightly, weekly).Build())(t.Context(), "shop")
	require.NoError(t, err)
	require.Len(t, all, 1)
	assert.Equal(t, "nightly", all[0].Name)
	assert.Equal(t, nightly.Annotations, all[0].Annotations)
}

func TestWebhookIgnoresLimitRangesOfOtherNamespaces(t *testing.T) {
	c := fake.NewClientBuilder().WithObjects(
		&corev1.LimitRange{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "a"}},
		&corev1.LimitRange{ObjectMeta: metav1.ObjectMeta{Namespace: "other", Name: "b"}},
	).Build()
	ranges, err := limits{client.Reader(c)}.LimitRanges(t.Context(), "shop")
	require.NoError(t, err)
	require.Len(t, ranges, 1)
	assert.Equal(t, "a", ranges[0].Name)
}

// A person labels a namespace after the workloads were annotated: only those whose templates lack the claim
// stay without a gate.
func TestWebhookFindsWorkloadsWhoseTemplatesLackTheClaim(t *testing.T) {
	claim := map[string]string{api.SingletonAnnotation: "true"}
	deployed := func(namespace, name string, own, template map[string]string) *appsv1.Deployment {
		d := &appsv1.Deployment{ObjectMeta: named(name)}
		d.Namespace, d.Annotations, d.Spec.Template.Annotations = namespace, own, template
		return d
	}
	nightly := &batchv1.CronJob{ObjectMeta: named("nightly")}
	nightly.Annotations = map[string]string{api.Prefix + "singelton": "true"}
	c := fake.NewClientBuilder().WithObjects(
		deployed("shop", "web", claim, nil), deployed("shop", "carried", claim, claim), deployed("shop", "plain", nil, nil),
		deployed("shop", "off", map[string]string{api.SingletonAnnotation: "false"}, nil), deployed("other", "api", claim, nil), nightly,
	).Build()
	reads := 0
	found, err := uncarried{cached: c, live: typed{counting(c, &reads)}}.in(t.Context(), "shop")
	require.NoError(t, err)
	assert.Equal(t, admit.Uncarried{Workloads: []api.Workload{
		{Group: "apps", Kind: "Deployment", Name: "web"}, {Group: "batch", Kind: "CronJob", Name: "nightly"},
	}}, found)
	assert.Equal(t, 3, reads, "only those that claim are read")

	many := fake.NewClientBuilder()
	for i := range 2 * maxRead {
		many.WithObjects(deployed("shop", fmt.Sprint("web-", i), claim, nil))
	}
	reads, c = 0, many.Build()
	found, err = uncarried{cached: c, live: typed{counting(c, &reads)}}.in(t.Context(), "shop")
	require.NoError(t, err)
	assert.Equal(t, maxRead, reads)
	assert.Len(t, found.Workloads, maxRead)
	assert.Equal(t, maxRead, found.Unread)
}
