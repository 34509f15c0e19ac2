// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package manifests_test

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metaparticle-io/metaparticle/api"
)

// TestPoliciesAreAppliedBeforeTheWebhook checks the order in which an upgrade applies the
// objects.
func TestPoliciesAreAppliedBeforeTheWebhook(t *testing.T) {
	var kinds []string
	for _, object := range build(t, ".") {
		kinds = append(kinds, reflect.TypeOf(object).Elem().Name())
	}
	webhook, configuration := slices.Index(kinds, "Deployment"), slices.Index(kinds, "MutatingWebhookConfiguration")
	for i, kind := range kinds {
		switch kind {
		case "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding", "ClusterRole", "ClusterRoleBinding", "ResourceQuota":
			assert.Less(t, i, webhook, kind)
		}
	}
	assert.Less(t, webhook, configuration)
}

// webhookPods returns the template of the webhook's pods.
func webhookPods(t *testing.T) corev1.PodTemplateSpec {
	t.Helper()
	deployments := all[*appsv1.Deployment](t)
	require.Len(t, deployments, 1)
	return deployments[0].Spec.Template
}

func TestWebhookRunsOnLinuxNodes(t *testing.T) {
	assert.Equal(t, map[string]string{corev1.LabelOSStable: string(corev1.Linux)}, webhookPods(t).Spec.NodeSelector)
}

// During a rollout the pods of the earlier template still run. If the spread constraint also
// counted these pods, both new replicas could end up on one node.
func TestWebhookReplicasOfOneTemplateSpreadOverNodes(t *testing.T) {
	pods := webhookPods(t)
	require.Len(t, pods.Spec.TopologySpreadConstraints, 1)
	spread := pods.Spec.TopologySpreadConstraints[0]
	assert.Equal(t, corev1.LabelHostname, spread.TopologyKey)
	assert.Equal(t, []string{appsv1.DefaultDeploymentUniqueLabelKey}, spread.MatchLabelKeys)
	for key, value := range spread.LabelSelector.MatchLabels {
		assert.Equal(t, value, pods.Labels[key])
	}
}

func TestQuotaAdmitsTheWebhooksPriorityClass(t *testing.T) {
	pods, quotas := webhookPods(t), all[*corev1.ResourceQuota](t)
	require.Len(t, quotas, 1)
	assert.Equal(t, namespace, quotas[0].Namespace)
	require.NotNil(t, quotas[0].Spec.ScopeSelector)
	assert.Equal(t, []corev1.ScopedResourceSelectorRequirement{{
		ScopeName: corev1.ResourceQuotaScopePriorityClass, Operator: corev1.ScopeSelectorOpIn, Values: []string{pods.Spec.PriorityClassName},
	}}, quotas[0].Spec.ScopeSelector.MatchExpressions)
	most := quotas[0].Spec.Hard[corev1.ResourcePods]
	assert.Greater(t, most.Value(), int64(1000), "the quota must not limit pods")
}

// with returns the objects that kustomize builds from the manifests and one component.
func with(t *testing.T, component string) []client.Object {
	t.Helper()
	directory, err := filepath.EvalSymlinks(t.TempDir())
	require.NoError(t, err)
	here, err := os.Getwd()
	require.NoError(t, err)
	base, err := filepath.Rel(directory, here)
	require.NoError(t, err)
	text := fmt.Sprintf("resources: [%s]\ncomponents: [%s/%s]\n", base, base, component)
	require.NoError(t, os.WriteFile(filepath.Join(directory, "kustomization.yaml"), []byte(text), 0o600))
	return build(t, directory)
}

func TestNetworkPolicyLetsAPIServerCallTheWebhook(t *testing.T) {
	pods := webhookPods(t)
	named := map[string]bool{}
	for _, port := range pods.Spec.Containers[0].Ports {
		named[port.Name] = true
	}
	var found []*networkingv1.NetworkPolicy
	for _, object := range with(t, "components/network-policy") {
		if policy, ok := object.(*networkingv1.NetworkPolicy); ok {
			found = append(found, policy)
		}
	}
	require.Len(t, found, 1)
	spec := found[0].Spec
	assert.Equal(t, namespace, found[0].Namespace)
	for key, value := range spec.PodSelector.MatchLabels {
		assert.Equal(t, value, pods.Labels[key])
	}
	assert.NotEmpty(t, spec.PodSelector.MatchLabels)
	assert.Equal(t, []networkingv1.PolicyType{networkingv1.PolicyTypeIngress}, spec.PolicyTypes, "egress must stay open, because the registries' addresses are unknown")
	open := map[string]bool{}
	for _, rule := range spec.Ingress {
		for _, port := range rule.Ports {
			assert.True(t, named[port.Port.StrVal], port.Port.StrVal)
			open[port.Port.StrVal] = len(rule.From) == 0
		}
	}
	assert.Equal(t, map[string]bool{"webhook": true, "metrics": false}, open)
}

// TestPrometheusMonitorsUseThePortsOfTheirPods compares the ports of the monitors with the ports of
// the Service and of the agent.
func TestPrometheusMonitorsUseThePortsOfTheirPods(t *testing.T) {
	monitors := map[string]*unstructured.Unstructured{}
	for _, object := range with(t, "components/monitoring") {
		if monitor, ok := object.(*unstructured.Unstructured); ok {
			monitors[monitor.GetKind()] = monitor
		}
	}
	require.Len(t, monitors, 2)
	service := all[*corev1.Service](t)[0]
	selected, _, _ := unstructured.NestedStringMap(monitors["ServiceMonitor"].Object, "spec", "selector", "matchLabels")
	for key, value := range selected {
		assert.Equal(t, value, service.Labels[key])
	}
	endpoints, _, _ := unstructured.NestedSlice(monitors["ServiceMonitor"].Object, "spec", "endpoints")
	require.Len(t, endpoints, 1)
	assert.True(t, slices.ContainsFunc(service.Spec.Ports, func(p corev1.ServicePort) bool {
		return p.Name == endpoints[0].(map[string]any)["port"]
	}))
	selected, _, _ = unstructured.NestedStringMap(monitors["PodMonitor"].Object, "spec", "selector", "matchLabels")
	assert.Equal(t, map[string]string{api.GatedLabel: api.Gated}, selected)
	text, err := os.ReadFile("components/monitoring/podmonitor.yaml")
	require.NoError(t, err)
	assert.Equal(t, 2, strings.Count(string(text), fmt.Sprintf(":%d", api.AgentPort)))
	assert.Contains(t, string(text), "regex: "+api.AgentContainer+"\n")
}

// TestConsoleMayOnlyReadWhatItShows also checks that no pod reaches the console.
func TestConsoleMayOnlyReadWhatItShows(t *testing.T) {
	const name = "metaparticle-console"
	var resources []string
	var labels, selected map[string]string
	found := map[string]bool{}
	for _, object := range with(t, "components/console") {
		if object.GetName() != name {
			continue
		}
		switch o := object.(type) {
		case *rbacv1.ClusterRole:
			for _, rule := range o.Rules {
				assert.Equal(t, []string{"list", "watch"}, rule.Verbs)
				resources = append(resources, rule.Resources...)
			}
		case *rbacv1.ClusterRoleBinding:
			assert.Equal(t, rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: name}, o.RoleRef)
			assert.Equal(t, []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: namespace, Name: name}}, o.Subjects)
		case *appsv1.Deployment:
			pod := o.Spec.Template.Spec
			assert.Equal(t, name, pod.ServiceAccountName)
			assert.Empty(t, pod.Volumes)
			assert.Equal(t, []string{"console"}, pod.Containers[0].Args, "the page keeps its loopback address")
			labels = o.Spec.Template.Labels
		case *networkingv1.NetworkPolicy:
			assert.Equal(t, namespace, o.Namespace)
			assert.Empty(t, o.Spec.Ingress, "no pod reaches the console")
			assert.Equal(t, []networkingv1.PolicyType{networkingv1.PolicyTypeIngress}, o.Spec.PolicyTypes, "the console reaches the API server")
			selected = o.Spec.PodSelector.MatchLabels
		}
		found[reflect.TypeOf(object).Elem().Name()] = true
	}
	assert.ElementsMatch(t, []string{"leases", "pods", "events", "deployments", "statefulsets", "daemonsets", "jobs"}, resources)
	assert.Equal(t, map[string]bool{"ServiceAccount": true, "ClusterRole": true, "ClusterRoleBinding": true, "Deployment": true, "NetworkPolicy": true}, found)
	require.NotEmpty(t, selected)
	for key, value := range selected {
		assert.Equal(t, value, labels[key])
	}
}
