// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package injection

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/app"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/cluster"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/kubectl"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/space"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/webhook"
)

// A policy in the API server adds a claim's annotation after our webhook has admitted the pod, as a
// later webhook would.
func TestClaimFromMutatingPolicyIsGatedOrRefused(t *testing.T) {
	cluster.NeedFeature(t, cluster.MutatingAdmissionPolicy)
	t.Parallel()
	s := space.New(t)
	ctx := context.Background()
	name := s.Namespace + "-adds"
	match := &admissionv1.MatchResources{
		NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelMetadataName: s.Namespace}},
		ResourceRules: []admissionv1.NamedRuleWithOperations{{RuleWithOperations: admissionv1.RuleWithOperations{
			Operations: []admissionv1.OperationType{admissionv1.Create},
			Rule:       admissionv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"pods"}},
		}}},
	}
	policy := &admissionv1.MutatingAdmissionPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: admissionv1.MutatingAdmissionPolicySpec{
			MatchConstraints: match, ReinvocationPolicy: admissionv1.NeverReinvocationPolicy,
			Mutations: []admissionv1.Mutation{{
				PatchType: admissionv1.PatchTypeApplyConfiguration,
				ApplyConfiguration: &admissionv1.ApplyConfiguration{
					Expression: `Object{metadata: Object.metadata{annotations: {"metaparticle.io/singleton": "true"}}}`,
				},
			}},
		},
	}
	policies := cluster.Client.AdmissionregistrationV1()
	_, err := policies.MutatingAdmissionPolicies().Create(ctx, policy, metav1.CreateOptions{})
	require.NoError(t, err)
	t.Cleanup(func() {
		assert.NoError(t, policies.MutatingAdmissionPolicies().Delete(ctx, name, metav1.DeleteOptions{}))
		assert.NoError(t, policies.MutatingAdmissionPolicyBindings().Delete(ctx, name, metav1.DeleteOptions{}))
	})
	_, err = policies.MutatingAdmissionPolicyBindings().Create(ctx, &admissionv1.MutatingAdmissionPolicyBinding{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       admissionv1.MutatingAdmissionPolicyBindingSpec{PolicyName: name},
	}, metav1.CreateOptions{})
	require.NoError(t, err)
	var pod *corev1.Pod
	s.Await(space.StartTimeout, "the policy is in force", func() bool {
		pod, err = webhook.Try(s, app.Bare(s, "late", nil))
		if err != nil {
			return strings.Contains(err.Error(), "NotInjected: ")
		}
		return pod.Annotations[api.SingletonAnnotation] != ""
	})
	if err != nil {
		return
	}
	assert.Equal(t, api.Gated, pod.Labels[api.GatedLabel], "a claim without a gate")
}

func TestEventExplainsHowToGateRunningPods(t *testing.T) {
	t.Parallel()
	s := space.New(t, func(n *corev1.Namespace) { delete(n.Labels, api.InjectionLabel) })
	a := app.Singleton("early")
	a.Replicas = 1
	app.Create(s, a)
	s.Await(space.StartTimeout, "its pod runs ungated", func() bool { return s.Running(a.Name) != nil })
	said := kubectl.Must(s, "", "label", "namespace", s.Namespace, api.InjectionLabel+"="+api.InjectionEnabled)
	assert.Contains(t, said, "Warning: NotGated: ", "the webhook for namespaces answers the person who labels")
	assert.Contains(t, said, "kubectl rollout restart -n "+s.Namespace+" deployment/early")
	var event *corev1.Event
	s.Await(space.StartTimeout, "an Event on the Deployment", func() bool {
		event = s.Event("Deployment", a.Name, "NotGated")
		return event != nil
	})
	t.Log(event.Message)
	assert.Equal(t, corev1.EventTypeWarning, event.Type)
	assert.Contains(t, event.Message, "kubectl -n "+s.Namespace+" rollout restart deployment/early")
}

// A pod without a claim stays as it is, byte for byte, although its namespace has opted in.
func TestUnannotatedPodsStayUnchanged(t *testing.T) {
	t.Parallel()
	optedIn := space.New(t)
	other := space.New(t, func(n *corev1.Namespace) { delete(n.Labels, api.InjectionLabel) })
	const optOut = `{"metaparticle.io/inject":"false"}`
	var out map[string]string
	require.NoError(t, json.Unmarshal([]byte(optOut), &out))
	for name, annotations := range map[string]map[string]string{"unannotated": nil, "opted out": out} {
		t.Run(name, func(t *testing.T) {
			here, err := webhook.Try(optedIn, app.Bare(optedIn, "untouched", annotations))
			require.NoError(t, err)
			there, err := webhook.Try(other, app.Bare(other, "untouched", annotations))
			require.NoError(t, err)
			assert.Equal(t, normal(t, other, there), normal(t, optedIn, here))
		})
	}
	t.Run("kube-system", func(t *testing.T) {
		pod := app.Bare(other, "untouched", webhook.Claims)
		pod.Namespace = metav1.NamespaceSystem
		pod, err := cluster.Client.CoreV1().Pods(pod.Namespace).Create(t.Context(), pod,
			metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		require.NoError(t, err, "no policy of ours stands in the way of the cluster's own")
		assert.Len(t, pod.Spec.Containers, 1)
		assert.Empty(t, pod.Spec.InitContainers)
		assert.Empty(t, pod.Spec.Containers[0].Command)
	})
}

// normal returns a pod's JSON without the parts that differ between namespaces.
func normal(t *testing.T, s *space.Space, pod *corev1.Pod) string {
	t.Helper()
	pod = pod.DeepCopy()
	pod.Namespace, pod.UID, pod.ResourceVersion, pod.CreationTimestamp, pod.ManagedFields = "", "", "", metav1.Time{}, nil
	for i := range pod.Spec.Volumes {
		if v := &pod.Spec.Volumes[i]; v.HostPath != nil && v.HostPath.Path == s.Mount() {
			v.HostPath.Path = "record"
		} else if v.Projected != nil {
			for _, c := range pod.Spec.Containers {
				j := slices.IndexFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool { return m.Name == v.Name })
				c.VolumeMounts[j].Name = "token"
			}
			v.Name = "token"
		}
	}
	data, err := json.MarshalIndent(pod, "", " ")
	require.NoError(t, err)
	return string(data)
}
