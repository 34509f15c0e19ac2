// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package operations

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"

	"github.com/metaparticle-io/metaparticle/test/e2e/harness/app"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/cluster"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/holder"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/kubectl"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/space"
	"github.com/metaparticle-io/metaparticle/test/e2e/record"
)

// inVelerosOrder has the kinds of the test's objects, in the order in which Velero restores them.
var inVelerosOrder = []schema.GroupVersionResource{
	{Version: "v1", Resource: "namespaces"},
	{Group: "rbac.authorization.k8s.io", Version: "v1", Resource: "roles"},
	{Version: "v1", Resource: "serviceaccounts"},
	{Group: "rbac.authorization.k8s.io", Version: "v1", Resource: "rolebindings"},
	{Version: "v1", Resource: "pods"},
	{Group: "apps", Version: "v1", Resource: "replicasets"},
	{Group: "apps", Version: "v1", Resource: "deployments"},
	{Group: "coordination.k8s.io", Version: "v1", Resource: "leases"},
}

// velero stands in for Velero, with the changes that Velero makes to the objects of a backup.
type velero struct {
	*space.Space
	client  dynamic.Interface
	objects map[schema.GroupVersionResource][]unstructured.Unstructured
}

// backUp keeps the namespace, and its objects of the kinds of inVelerosOrder.
func backUp(s *space.Space) velero {
	s.Helper()
	client, err := dynamic.NewForConfig(cluster.Config)
	require.NoError(s, err)
	v := velero{s, client, map[schema.GroupVersionResource][]unstructured.Unstructured{}}
	for _, kind := range inVelerosOrder {
		in, options := s.Namespace, metav1.ListOptions{}
		if kind.Resource == "namespaces" {
			in, options.FieldSelector = "", "metadata.name="+s.Namespace
		}
		list, err := client.Resource(kind).Namespace(in).List(s.Context(), options)
		require.NoError(s, err)
		v.objects[kind] = list.Items
	}
	return v
}

// restore creates all objects. Like Velero, restore skips an object that exists.
func (v velero) restore() {
	v.Helper()
	for _, kind := range inVelerosOrder {
		for _, o := range v.objects[kind] {
			for _, field := range []string{"generateName", "uid", "resourceVersion", "generation", "creationTimestamp", "ownerReferences", "managedFields"} {
				unstructured.RemoveNestedField(o.Object, "metadata", field)
			}
			unstructured.RemoveNestedField(o.Object, "status")
			if kind.Resource == "pods" {
				o.Object = v.restoredPod(o)
			}
			labels := o.GetLabels()
			if labels == nil {
				labels = map[string]string{}
			}
			labels["velero.io/backup-name"], labels["velero.io/restore-name"] = "nightly", "nightly-20261130"
			o.SetLabels(labels)
			v.Await(space.StartTimeout, kind.Resource+" "+o.GetName()+" restored", func() bool {
				_, err := v.client.Resource(kind).Namespace(o.GetNamespace()).Create(v.Context(), &o, metav1.CreateOptions{})
				if kind.Resource == "namespaces" && (apierrors.IsAlreadyExists(err) || apierrors.IsConflict(err)) {
					return false // the old one is not gone yet
				}
				require.True(v, err == nil || apierrors.IsAlreadyExists(err), "%s %s: %v", kind.Resource, o.GetName(), err)
				return true
			})
		}
	}
}

// waitName returns the name of the record of the pod's init container.
func waitName(pod string) string { return "restore-wait-" + pod }

// restoredPod returns what Velero's plugins for pods make of a pod with a file-system backup. The
// init container here records its life, instead of waiting for files of Velero's node agent.
func (v velero) restoredPod(o unstructured.Unstructured) map[string]any {
	v.Helper()
	var pod corev1.Pod
	require.NoError(v, runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, &pod))
	pod.Spec.NodeName, pod.Spec.Priority = "", nil
	pod.Spec.InitContainers = append([]corev1.Container{{
		Name: "restore-wait", Image: cluster.Image, Command: []string{"/app"},
		Args:         []string{"-record=/record", "-alone=" + waitName(pod.Name), "-run-for=2s"},
		Env:          pod.Spec.Containers[0].Env,
		VolumeMounts: []corev1.VolumeMount{{Name: "data", MountPath: "/restores/data"}, {Name: "record", MountPath: "/record"}},
	}}, pod.Spec.InitContainers...)
	object, err := runtime.DefaultUnstructuredConverter.ToUnstructured(&pod)
	require.NoError(v, err)
	return object
}

// The cleanup of the space checks that no two pods run the application at once.
//
// docs/reference/compatibility.md: kinds/restored carried
func TestVeleroRestoresPodsBeforeTheirControllers(t *testing.T) {
	t.Parallel()
	a := app.Singleton("restored")
	a.Replicas = 2
	a.Edit = func(template *corev1.PodTemplateSpec) {
		template.Spec.Volumes = append(template.Spec.Volumes, corev1.Volume{Name: "data"})
		c := &template.Spec.Containers[0]
		c.VolumeMounts = append(c.VolumeMounts, corev1.VolumeMount{Name: "data", MountPath: "/data"})
	}
	h := holder.Deploy(t, a, "it needs the record")
	before := map[string]bool{}
	for _, pod := range h.Pods(a.Name) {
		before[pod.Name] = true
		assert.Equal(t, "metaparticle", pod.Annotations["backup.velero.io/backup-volumes-excludes"])
	}
	v := backUp(h.Space)
	require.NoError(t, h.Client.CoreV1().Namespaces().Delete(t.Context(), h.Namespace, metav1.DeleteOptions{}))
	v.restore()

	h.Await(space.StartTimeout, "the ReplicaSet adopts the restored pods", func() bool {
		pods := h.Pods(a.Name)
		adopted := 0
		for _, pod := range pods {
			if before[pod.Name] && metav1.GetControllerOf(pod) != nil {
				adopted++
			}
		}
		return adopted == len(before) && len(pods) == len(before)
	})
	var now *record.Process
	h.Await(space.StartTimeout, "a restored pod runs the application", func() bool { now = app.After(h.Space, a, h.Before); return now != nil })
	require.True(t, before[now.Pod], "%s runs", now.Pod)
	waited := h.Record(waitName(now.Pod))
	require.Len(t, waited, 1)
	assert.Greater(t, now.Start, waited[0].Last, "the application starts after the volumes' data are there")

	out, err := kubectl.Run(h.Space, "", "debug", now.Pod, "--copy-to=web-debug", "--set-image=app="+cluster.Image, "--share-processes=false", "--keep-labels", "--keep-annotations")
	assert.Error(t, err)
	assert.Contains(t, out, "Leftover: ", "a copy of a restored pod")
}
