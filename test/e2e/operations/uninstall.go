// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package operations

import (
	"context"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/app"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/cluster"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/holder"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/kubectl"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/space"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/webhook"
)

// install runs tools/install, as "make install" and "make uninstall" do.
func install(t *testing.T, args ...string) (output string, err error) {
	t.Helper()
	cmd := exec.CommandContext(context.Background(), "go", append([]string{"run", "-trimpath", "./tools/install"}, args...)...)
	cmd.Dir = "../.."
	cmd.Env = append(os.Environ(), "KUBECONFIG="+cluster.Kubeconfig)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// gatedPods returns all gated pods of the cluster.
func gatedPods(t *testing.T) []corev1.Pod {
	t.Helper()
	pods, err := cluster.Client.CoreV1().Pods("").List(t.Context(), metav1.ListOptions{LabelSelector: api.GatedLabel + "=" + api.Gated})
	require.NoError(t, err)
	return pods.Items
}

// The namespace has a Lease that records that the work of key 7 is done, and a Variable. Otherwise the
// work would run again after the next installation, and the Variable would begin anew.
func TestUninstallationKeepsDoneKeysAndVariables(t *testing.T) {
	h := holder.Deploy(t, app.Lasting("in-use"), "it uninstalls")
	s := h.Space
	out, err := install(t, "-uninstall")
	require.Error(t, err, out)
	for _, pod := range h.Pods(h.App.Name) {
		assert.Contains(t, out, pod.Name, "it lists the gated pods")
	}
	_, err = h.Client.AdmissionregistrationV1().MutatingWebhookConfigurations().Get(t.Context(), webhook.Configuration, metav1.GetOptions{})
	assert.NoError(t, err, "nothing was taken away")
	webhook.Deployment(t)
	assert.Equal(t, h.Before.ID, app.AwaitRunning(s, h.App, space.Soon).ID, "the application runs on")

	record := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{
		Name: "once.recorded", Labels: map[string]string{api.ManagedLabel: "true"}, Annotations: map[string]string{api.DoneAnnotation: "7"},
	}}
	_, err = s.Client.CoordinationV1().Leases(s.Namespace).Create(t.Context(), record, metav1.CreateOptions{})
	require.NoError(t, err)
	kubectl.Must(s, `{"apiVersion":"metaparticle.io/v1alpha1","kind":"Variable","metadata":{"name":"hits"},"spec":{"integer":7}}`, "create", "-f", "-")
	kubectl.Must(s, "", "delete", "deployment", h.App.Name)
	s.Await(space.StartTimeout, "no gated pods of the tests", func() bool {
		for _, pod := range gatedPods(t) {
			if strings.HasPrefix(pod.Namespace, "e2e-") {
				return false
			}
		}
		return true
	})
	if others := gatedPods(t); len(others) > 0 {
		t.Skipf("somebody else uses this cluster: %s/%s is gated", others[0].Namespace, others[0].Name)
	}
	again := installArguments(t)
	out, err = install(t, "-uninstall")
	t.Cleanup(func() {
		out, err := install(t, again...)
		require.NoError(t, err, out)
		webhook.AwaitGating(s)
	})
	require.NoError(t, err, out)
	assert.ElementsMatch(t, []string{"Lease " + s.Namespace + "/" + record.Name, "CustomResourceDefinition /variables.metaparticle.io"}, leftBehind(t))
	assert.Equal(t, "7", kubectl.Must(s, "", "get", "variable", "hits", "-o", "jsonpath={.spec.integer}"))
	_, err = webhook.Try(s, app.Bare(s, "plain", nil))
	assert.NoError(t, err)
}

// installArguments returns the arguments of the present installation.
func installArguments(t *testing.T) []string {
	t.Helper()
	container := webhook.Deployment(t).Spec.Template.Spec.Containers[0]
	arguments := []string{"-webhook-image", container.Image}
	for _, env := range container.Env {
		if env.Name == "AGENT_IMAGE" {
			arguments = append(arguments, "-agent-image", env.Value)
		}
	}
	for _, arg := range container.Args {
		if registry, ok := strings.CutPrefix(arg, "--plain-http-registry="); ok {
			arguments = append(arguments, "-plain-http-registry", registry)
		}
	}
	return arguments
}

// leftBehind returns all objects in the cluster that have a label of Metaparticle, except Events.
func leftBehind(t *testing.T) (found []string) {
	t.Helper()
	lists, err := cluster.Client.Discovery().ServerPreferredResources()
	require.NoError(t, err)
	client, err := dynamic.NewForConfig(cluster.Config)
	require.NoError(t, err)
	listable := discovery.FilteredBy(discovery.SupportsAllVerbs{Verbs: []string{"list"}}, lists)
	resources, err := discovery.GroupVersionResources(listable)
	require.NoError(t, err)
	for resource := range resources {
		if resource.Resource == "events" {
			continue
		}
		for _, selector := range []string{"app.kubernetes.io/part-of=metaparticle", api.ManagedLabel} {
			list, err := client.Resource(resource).List(t.Context(), metav1.ListOptions{LabelSelector: selector})
			if err != nil {
				continue
			}
			for _, item := range list.Items {
				found = append(found, item.GetKind()+" "+item.GetNamespace()+"/"+item.GetName())
			}
		}
	}
	return found
}
