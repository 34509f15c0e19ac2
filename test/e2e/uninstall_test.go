// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"

	"github.com/metaparticle-io/metaparticle/api"
)

// install runs the command behind make install and make uninstall.
func install(t *testing.T, args ...string) (output string, err error) {
	t.Helper()
	cmd := exec.CommandContext(context.Background(), "go", append([]string{"run", "./tools/install"}, args...)...)
	cmd.Dir = "../.."
	cmd.Env = append(os.Environ(), "KUBECONFIG="+cluster.kubeconfig)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func gatedPods(t *testing.T) []corev1.Pod {
	t.Helper()
	pods, err := cluster.client.CoreV1().Pods("").List(t.Context(), metav1.ListOptions{LabelSelector: api.GatedLabel + "=" + api.Gated})
	require.NoError(t, err)
	return pods.Items
}

func TestUninstallRefusesWhileGatedPodsExist(t *testing.T) {
	h := deployHolding(t, lasting("in-use"), "it needs the record")
	out, err := install(t, "-uninstall")
	require.Error(t, err, out)
	for _, pod := range h.all(h.a.name) {
		assert.Contains(t, out, pod.Name, "it lists them")
	}
	_, err = h.client.AdmissionregistrationV1().MutatingWebhookConfigurations().Get(t.Context(), configuration, metav1.GetOptions{})
	assert.NoError(t, err, "nothing was taken away")
	webhookDeployment(t)
	h.never(handover, "another application", func() bool { return h.after(h.a, h.before) != nil })
}

func TestUninstallLeavesNothingBehind(t *testing.T) {
	needLab(t, "it uninstalls")
	s := newSpace(t)
	// A namespace in which Leases and Roles were made.
	s.deploy(singleton("passing"))
	s.mustKubectl("", "delete", "deployment", "passing")
	s.await(startTimeout, "no gated pods of the tests", func() bool {
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
	out, err := install(t, "-uninstall")
	t.Cleanup(func() {
		out, err := install(t, again...)
		require.NoError(t, err, out)
		s.eventuallyGated()
	})
	require.NoError(t, err, out)
	assert.Empty(t, leftBehind(t))
	_, err = s.try(s.bare("plain", nil))
	assert.NoError(t, err)
}

// installArguments are those with which the product was installed.
func installArguments(t *testing.T) []string {
	t.Helper()
	container := webhookDeployment(t).Spec.Template.Spec.Containers[0]
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

// leftBehind are all objects of any kind that are ours.
func leftBehind(t *testing.T) (found []string) {
	t.Helper()
	lists, err := cluster.client.Discovery().ServerPreferredResources()
	require.NoError(t, err)
	client, err := dynamic.NewForConfig(cluster.config)
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
