// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package pods

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/metaparticle-io/metaparticle/test/e2e/harness/app"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/cluster"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/holder"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/kubectl"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/lease"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/space"
)

// docs/reference/compatibility.md: identity/user identity/fs-group identity/capabilities identity/seccomp identity/read-only-root carried
func TestChildKeepsTheContainersUserAndCapabilities(t *testing.T) {
	cluster.NeedLab(t, "it needs an image of a numeric user")
	t.Parallel()
	s := space.New(t)
	yes, no := true, false
	ids := func(n int64) *int64 { return &n }
	secure := func(edit func(*corev1.SecurityContext)) *corev1.SecurityContext {
		c := &corev1.SecurityContext{}
		edit(c)
		return c
	}
	volume := []corev1.VolumeMount{{Name: "volume", MountPath: "/volume"}}
	container := func(name, reference string, edit func(*corev1.SecurityContext)) corev1.Container {
		return corev1.Container{Name: name, Image: reference, Args: []string{"-facts"}, VolumeMounts: volume, SecurityContext: secure(edit)}
	}
	pod := &corev1.Pod{Spec: corev1.PodSpec{
		SecurityContext: &corev1.PodSecurityContext{FSGroup: ids(2345), SupplementalGroups: []int64{3456},
			SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault}},
		Volumes: []corev1.Volume{{Name: "volume", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}},
		Containers: []corev1.Container{
			container("image-user", cluster.UserImage, func(*corev1.SecurityContext) {}),
			container("root", cluster.Image, func(*corev1.SecurityContext) {}),
			container("user-and-group", cluster.Image, func(c *corev1.SecurityContext) { c.RunAsUser, c.RunAsGroup = ids(4567), ids(5678) }),
			container("restricted", cluster.UserImage, func(c *corev1.SecurityContext) {
				c.RunAsNonRoot, c.ReadOnlyRootFilesystem, c.AllowPrivilegeEscalation = &yes, &yes, &no
				c.Capabilities = &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}}
			}),
			container("some-capabilities", cluster.Image, func(c *corev1.SecurityContext) {
				c.Capabilities = &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}, Add: []corev1.Capability{"NET_BIND_SERVICE", "CHOWN"}}
				c.SeccompProfile = &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeUnconfined}
			}),
			container("privileged", cluster.Image, func(c *corev1.SecurityContext) { c.Privileged = &yes }),
		},
	}}
	plain, gated := likened(s, pod)
	for name, before := range plain {
		t.Run(name, func(t *testing.T) {
			after := gated[name]
			after.Env = withoutOurs(t, after.Env)
			assert.Equal(t, before, after)
		})
	}
	assert.Equal(t, 2345, plain["root"].Volume)
	assert.Contains(t, plain["restricted"].Root, "read-only")
}

// docs/reference/compatibility.md: identity/resize carried
func TestGatedContainerIsResizedInPlace(t *testing.T) {
	t.Parallel()
	h := holder.Deploy(t, app.Lasting("resized"), "it needs the record")
	kubectl.Must(h.Space, "", "patch", "pod", h.Victim.Name, "--subresource=resize", "--patch",
		`{"spec":{"containers":[{"name":"app","resources":{"requests":{"cpu":"30m"}}}]}}`)
	h.Await(space.StartTimeout, "the kubelet has given it more", func() bool {
		for _, status := range h.Pod(h.Victim.Name).Status.ContainerStatuses {
			if status.Name == "app" && status.Resources != nil {
				return status.Resources.Requests.Cpu().Cmp(resource.MustParse("30m")) == 0
			}
		}
		return false
	})
	assert.Zero(t, app.Restarts(h.Space, h.App))
	assert.Equal(t, h.Before.ID, app.AwaitRunning(h.Space, h.App, space.Soon).ID, "the application ran on")
}

// A disruption budget lets one pod go at a time. A rollout then finishes despite the budget, an autoscaler
// and a strict topology spread.
//
// docs/reference/compatibility.md: identity/pdb carried
func TestRolloutFinishesDespiteDisruptionBudgetAndAutoscaler(t *testing.T) {
	t.Parallel()
	a := app.Lasting("budgeted")
	a.Edit = func(template *corev1.PodTemplateSpec) {
		template.Spec.TopologySpreadConstraints[0].WhenUnsatisfiable = corev1.DoNotSchedule
	}
	h := holder.Deploy(t, a, "it needs the record")
	two := intstr.FromInt32(2)
	_, err := h.Client.PolicyV1().PodDisruptionBudgets(h.Namespace).Create(t.Context(), &policyv1.PodDisruptionBudget{
		ObjectMeta: metav1.ObjectMeta{Name: "budgeted"},
		Spec:       policyv1.PodDisruptionBudgetSpec{MinAvailable: &two, Selector: h.App.Selector()},
	}, metav1.CreateOptions{})
	require.NoError(t, err)
	autoscale(h)
	h.Await(space.StartTimeout, "one of three Ready pods may go", func() bool {
		budget, err := h.Client.PolicyV1().PodDisruptionBudgets(h.Namespace).Get(t.Context(), "budgeted", metav1.GetOptions{})
		return err == nil && budget.Status.CurrentHealthy == 3 && budget.Status.DisruptionsAllowed == 1
	})
	evict := func(pod *corev1.Pod) error {
		return h.Client.PolicyV1().Evictions(h.Namespace).Evict(t.Context(), &policyv1.Eviction{
			ObjectMeta: metav1.ObjectMeta{Name: pod.Name, Namespace: h.Namespace}})
	}
	standbys := h.Pods(h.App.Name)
	require.NoError(t, evict(h.Victim), "the holder")
	for _, pod := range standbys {
		if pod.Name != h.Victim.Name {
			assert.True(t, apierrors.IsTooManyRequests(evict(pod)), "a standby while the holder goes")
		}
	}
	h.Await(space.StartTimeout, "another one runs", func() bool { return app.After(h.Space, h.App, h.Before) != nil })
	app.VacantFor(h.Space, h.App, h.Before, lease.Released, "by a release")
	h.Await(space.StartTimeout, "the next one may go", func() bool {
		for _, pod := range standbys {
			if pod.Name != h.Victim.Name && evict(pod) == nil {
				return true
			}
		}
		return false
	})
	app.AwaitRunning(h.Space, h.App, space.StartTimeout)

	kubectl.Must(h.Space, "", "set", "env", "deployment/"+a.Name, "RELEASE=2")
	kubectl.Must(h.Space, "", "rollout", "status", "deployment/"+a.Name, kubectl.RolloutTimeout)
}

// autoscale makes an autoscaler whose target is higher than any CPU use.
func autoscale(h holder.Holder) {
	h.Helper()
	beyondReach, replicas := int32(10_000), *h.App.Count()
	_, err := h.Client.AutoscalingV2().HorizontalPodAutoscalers(h.Namespace).Create(h.Context(), &autoscalingv2.HorizontalPodAutoscaler{
		ObjectMeta: metav1.ObjectMeta{Name: h.App.Name},
		Spec: autoscalingv2.HorizontalPodAutoscalerSpec{
			ScaleTargetRef: autoscalingv2.CrossVersionObjectReference{APIVersion: "apps/v1", Kind: "Deployment", Name: h.App.Name},
			MinReplicas:    &replicas, MaxReplicas: replicas + 1,
			Metrics: []autoscalingv2.MetricSpec{{Type: autoscalingv2.ResourceMetricSourceType, Resource: &autoscalingv2.ResourceMetricSource{
				Name: corev1.ResourceCPU, Target: autoscalingv2.MetricTarget{Type: autoscalingv2.UtilizationMetricType, AverageUtilization: &beyondReach},
			}}},
		},
	}, metav1.CreateOptions{})
	require.NoError(h, err)
}
