// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"

	"github.com/metaparticle-io/metaparticle/api"
)

// What is installed, by the names in manifests/.
const (
	systemNamespace = "metaparticle-system"
	webhookName     = "metaparticle-webhook"
	configuration   = "metaparticle"
)

func webhookDeployment(t *testing.T) *appsv1.Deployment {
	t.Helper()
	d, err := cluster.client.AppsV1().Deployments(systemNamespace).Get(context.Background(), webhookName, metav1.GetOptions{})
	require.NoError(t, err, "make install")
	return d
}

// bare is a pod of nobody, that need not run: admission is what is tested.
func (s *space) bare(name string, annotations map[string]string) *corev1.Pod {
	a := app{name: name, template: annotations}
	template := s.template(a)
	return &corev1.Pod{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: s.name, Labels: template.Labels, Annotations: annotations},
		Spec:       template.Spec,
	}
}

// try asks for a pod's creation without creating it.
func (s *space) try(pod *corev1.Pod) (*corev1.Pod, error) {
	return s.client.CoreV1().Pods(s.name).Create(s.Context(), pod, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
}

// refused tries a pod and wants this answer. An API server that is too busy for one
// is asked again; one that has admitted the pod, or forbidden it, has answered.
func (s *space) refused(pod *corev1.Pod, message string) {
	s.Helper()
	var err error
	s.within(soon, func() bool {
		_, err = s.try(pod)
		return err == nil || apierrors.IsForbidden(err) || strings.Contains(err.Error(), message)
	})
	if assert.Error(s, err) {
		assert.True(s, apierrors.IsForbidden(err) || apierrors.IsInternalError(err), "%v", err)
		assert.ErrorContains(s, err, message)
	}
}

var claims = map[string]string{api.SingletonAnnotation: "true"}

func TestWebhookDownRefusesTheAnnotatedAndBlocksNothingElse(t *testing.T) {
	s := newSpace(t)
	_, err := s.try(s.bare("before", claims))
	require.NoError(t, err)
	webhookScale(t, 0)
	t.Cleanup(func() { webhookScale(t, 2) })

	t.Run("annotated pods are refused", func(t *testing.T) {
		const message = "failed calling webhook \"pods.metaparticle.io\""
		s.await(soon, "a webhook that was still ending does not answer any more", func() bool {
			_, err := s.try(s.bare("annotated", claims))
			return err != nil && strings.Contains(err.Error(), message)
		})
		for range 10 {
			s.refused(s.bare("annotated", claims), message)
		}
	})
	t.Run("annotated workloads are refused", func(t *testing.T) {
		const message = "NotCarried: the pod template lacks .*metaparticle.io/singleton.* of the workload"
		objects := map[string]runtime.Object{}
		a := singleton("annotated")
		objects["deployments"], objects["statefulsets"] = s.deployment(a), s.statefulSet(a)
		objects["replicasets"] = &appsv1.ReplicaSet{ObjectMeta: s.meta(a), Spec: appsv1.ReplicaSetSpec{Selector: a.selector(), Template: s.template(a)}}
		objects["daemonsets"] = &appsv1.DaemonSet{ObjectMeta: s.meta(a), Spec: appsv1.DaemonSetSpec{Selector: a.selector(), Template: s.template(a)}}
		objects["cronjobs"] = s.cronJob(a)
		objects["jobs"] = &batchv1.Job{ObjectMeta: s.meta(a), Spec: s.job(a).Spec}
		for resource, object := range objects {
			client := s.client.AppsV1().RESTClient()
			if resource == "cronjobs" || resource == "jobs" {
				client = s.client.BatchV1().RESTClient()
			}
			err := client.Post().Namespace(s.name).Resource(resource).Param("dryRun", metav1.DryRunAll).Body(object).Do(t.Context()).Error()
			assert.True(t, apierrors.IsForbidden(err), "%s: %v", resource, err)
			assert.Regexp(t, message, fmt.Sprint(err), resource)
		}
	})
	t.Run("unannotated ones of the same namespace start", func(t *testing.T) {
		pod, err := s.client.CoreV1().Pods(s.name).Create(t.Context(), s.bare("plain", nil), metav1.CreateOptions{})
		require.NoError(t, err)
		s.await(startTimeout, "it runs", func() bool {
			now := s.pod(pod.Name)
			return now != nil && containersRun(now)
		})
		plain := app{name: "plain-too", replicas: 1}
		_, err = s.client.AppsV1().Deployments(s.name).Create(t.Context(), s.deployment(plain), metav1.CreateOptions{})
		assert.NoError(t, err)
	})
}

// webhookScale waits until the webhook's Service has that many endpoints.
func webhookScale(t *testing.T, replicas int32) {
	t.Helper()
	ctx := context.Background()
	deployments := cluster.client.AppsV1().Deployments(systemNamespace)
	// A patch, as kubectl scale sends: the Deployment's controller writes, too.
	patch := fmt.Appendf(nil, `{"spec":{"replicas":%d}}`, replicas)
	_, err := deployments.Patch(ctx, webhookName, types.MergePatchType, patch, metav1.PatchOptions{}, "scale")
	require.NoError(t, err)
	require.Eventually(t, func() bool { return webhookEndpoints(ctx) == int(replicas) }, startTimeout, 10*turn)
}

func webhookEndpoints(ctx context.Context) (ready int) {
	list, err := cluster.client.DiscoveryV1().EndpointSlices(systemNamespace).
		List(ctx, metav1.ListOptions{LabelSelector: discoveryv1.LabelServiceName + "=" + webhookName})
	if err != nil {
		return -1
	}
	for _, slice := range list.Items {
		for _, e := range slice.Endpoints {
			if e.Conditions.Ready != nil && *e.Conditions.Ready {
				ready++
			}
		}
	}
	return ready
}

func TestWebhookConfigurationDeletedRefusesTheAnnotated(t *testing.T) {
	s := newSpace(t)
	ctx := context.Background()
	configurations := cluster.client.AdmissionregistrationV1().MutatingWebhookConfigurations()
	saved, err := configurations.Get(ctx, configuration, metav1.GetOptions{})
	require.NoError(t, err)
	require.NoError(t, configurations.Delete(ctx, configuration, metav1.DeleteOptions{}))
	t.Cleanup(func() {
		saved.ObjectMeta = metav1.ObjectMeta{Name: saved.Name, Labels: saved.Labels, Annotations: saved.Annotations}
		_, err := configurations.Create(ctx, saved, metav1.CreateOptions{})
		require.NoError(t, err)
		s.eventuallyGated()
	})
	s.await(soon, "the API server has learnt of it", func() bool {
		_, err := s.client.CoreV1().Pods(s.name).Create(ctx, s.bare("orphan", claims),
			metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		return apierrors.IsForbidden(err)
	})
	s.refused(s.bare("orphan", claims), `NotInjected: the pod has metaparticle.io/singleton, but no gate was injected: `+
		`the webhook configuration "metaparticle" is missing or was changed, or another webhook added the annotation after ours had passed`)
	_, err = s.try(s.bare("plain", nil))
	assert.NoError(t, err)
}

// eventuallyGated waits until the API server has learnt of the webhook again.
func (s *space) eventuallyGated() {
	require.Eventually(s, func() bool {
		pod, err := s.client.CoreV1().Pods(s.name).Create(context.Background(), s.bare("probe", claims),
			metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		return err == nil && pod.Labels[api.GatedLabel] == api.Gated
	}, startTimeout, 10*turn)
}

// An API server's own policy is the later webhook here: it, too, adds the
// annotation to a pod that ours has let pass.
func TestAnnotationAddedByALaterPolicyIsGatedOrRefused(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	ctx := context.Background()
	name := s.name + "-adds"
	match := &admissionv1.MatchResources{
		NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelMetadataName: s.name}},
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
	policies := cluster.client.AdmissionregistrationV1()
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
	s.await(startTimeout, "the policy is in force", func() bool {
		pod, err = s.try(s.bare("late", nil))
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

func TestNamespaceNotOptedInRefusesTheClaim(t *testing.T) {
	t.Parallel()
	s := newSpace(t, func(n *corev1.Namespace) { delete(n.Labels, api.InjectionLabel) })
	s.refused(s.bare("outside", claims), `NamespaceNotOptedIn: the pod has metaparticle.io/singleton, but nothing is injected in namespace `+
		s.name+`: kubectl label namespace `+s.name+` metaparticle.io/injection=enabled`)
}

func TestAnnotatedFirstOptedInAfterAnEventSaysWhatToDo(t *testing.T) {
	t.Parallel()
	s := newSpace(t, func(n *corev1.Namespace) { delete(n.Labels, api.InjectionLabel) })
	a := singleton("early")
	a.replicas = 1
	s.create(a)
	s.await(startTimeout, "its pod runs ungated", func() bool { return s.running(a.name) != nil })
	s.mustKubectl("", "label", "namespace", s.name, api.InjectionLabel+"="+api.InjectionEnabled)
	var event *corev1.Event
	s.await(startTimeout, "an Event on the Deployment", func() bool {
		event = s.event("Deployment", a.name, "NotGated")
		return event != nil
	})
	t.Log(event.Message)
	assert.Equal(t, corev1.EventTypeWarning, event.Type)
	assert.Contains(t, event.Message, "kubectl -n "+s.name+" rollout restart deployment/early")
}

// What nobody asked us to touch is what it would be without us, byte for byte.
func TestUntouchedByteForByte(t *testing.T) {
	t.Parallel()
	optedIn := newSpace(t)
	other := newSpace(t, func(n *corev1.Namespace) { delete(n.Labels, api.InjectionLabel) })
	const optOut = `{"metaparticle.io/inject":"false"}`
	var out map[string]string
	require.NoError(t, json.Unmarshal([]byte(optOut), &out))
	for name, annotations := range map[string]map[string]string{"unannotated": nil, "opted out": out} {
		t.Run(name, func(t *testing.T) {
			here, err := optedIn.try(optedIn.bare("untouched", annotations))
			require.NoError(t, err)
			there, err := other.try(other.bare("untouched", annotations))
			require.NoError(t, err)
			assert.Equal(t, normal(t, other, there), normal(t, optedIn, here))
		})
	}
	t.Run("kube-system", func(t *testing.T) {
		pod := other.bare("untouched", claims)
		pod.Namespace = metav1.NamespaceSystem
		pod, err := cluster.client.CoreV1().Pods(pod.Namespace).Create(t.Context(), pod,
			metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		require.NoError(t, err, "no policy of ours stands in the way of the cluster's own")
		assert.Len(t, pod.Spec.Containers, 1)
		assert.Empty(t, pod.Spec.InitContainers)
		assert.Empty(t, pod.Spec.Containers[0].Command)
	})
}

// normal is a pod's JSON without what is different in every namespace.
func normal(t *testing.T, s *space, pod *corev1.Pod) string {
	t.Helper()
	pod = pod.DeepCopy()
	pod.Namespace, pod.UID, pod.ResourceVersion, pod.CreationTimestamp, pod.ManagedFields = "", "", "", metav1.Time{}, nil
	for i := range pod.Spec.Volumes {
		if v := &pod.Spec.Volumes[i]; v.HostPath != nil && v.HostPath.Path == s.mount() {
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
