// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package pods

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/metaparticle-io/metaparticle/test/e2e/harness/app"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/cluster"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/kubectl"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/lease"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/space"
)

// secured returns an application for a restricted namespace. The application has the
// numeric user of its image, a read-only root and no mounts.
func secured(name string, resources corev1.ResourceRequirements) app.App {
	a := app.Lasting(name)
	yes, no := true, false
	a.Edit = func(t *corev1.PodTemplateSpec) {
		t.Spec.Volumes = nil
		t.Spec.SecurityContext = &corev1.PodSecurityContext{RunAsNonRoot: &yes,
			SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault}}
		c := &t.Spec.Containers[0]
		c.Image = cluster.UserImage
		c.VolumeMounts = nil
		c.Args = []string{"-listen=:8080"}
		c.Resources = resources
		c.SecurityContext = &corev1.SecurityContext{ReadOnlyRootFilesystem: &yes, AllowPrivilegeEscalation: &no,
			Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}}}
	}
	return a
}

// docs/reference/compatibility.md: identity/restricted identity/quota identity/limit-range identity/seccomp identity/capabilities identity/read-only-root carried
func TestGatedPodsRunInARestrictedNamespace(t *testing.T) {
	cluster.NeedLab(t, "it needs an image of a numeric user")
	t.Parallel()
	s := space.New(t, func(n *corev1.Namespace) {
		n.Labels["pod-security.kubernetes.io/enforce"] = "restricted"
		n.Labels["pod-security.kubernetes.io/warn"] = "restricted"
	})
	ctx := t.Context()
	_, err := s.Client.CoreV1().ResourceQuotas(s.Namespace).Create(ctx, &corev1.ResourceQuota{
		ObjectMeta: metav1.ObjectMeta{Name: "quota"},
		Spec: corev1.ResourceQuotaSpec{Hard: corev1.ResourceList{
			corev1.ResourceRequestsCPU: resource.MustParse("2"), corev1.ResourceLimitsCPU: resource.MustParse("4"),
			corev1.ResourceRequestsMemory: resource.MustParse("1Gi"), corev1.ResourceLimitsMemory: resource.MustParse("2Gi"),
		}},
	}, metav1.CreateOptions{})
	require.NoError(t, err)
	_, err = s.Client.CoreV1().LimitRanges(s.Namespace).Create(ctx, &corev1.LimitRange{
		ObjectMeta: metav1.ObjectMeta{Name: "range"},
		Spec: corev1.LimitRangeSpec{Limits: []corev1.LimitRangeItem{{Type: corev1.LimitTypeContainer,
			Min: app.Quantities("5m", "16Mi"), Max: app.Quantities("1", "256Mi"),
			MaxLimitRequestRatio: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("20")},
		}}},
	}, metav1.CreateOptions{})
	require.NoError(t, err)
	resources := corev1.ResourceRequirements{Requests: app.Quantities("20m", "32Mi"), Limits: app.Quantities("200m", "64Mi")}
	a := secured("secured", resources)
	out := kubectl.Must(s, kubectl.Manifest(s, app.Deployment(s, a)), "apply", "-f", "-")
	assert.NotContains(t, out, "Warning")
	kubectl.Must(s, "", "rollout", "status", "deployment/secured", kubectl.RolloutTimeout)
	slot := lease.OfDeployment(a.Name)
	s.Await(space.StartTimeout, "one holds and answers", func() bool {
		holder := s.Holder(slot)
		return holder != nil && answers(s, holder)
	})
	first := s.AwaitHolder(slot)
	// A restricted namespace forbids the volume in which applications of other tests record their
	// processes. So the Lease alone shows the release. The handover may be over before Await first
	// reads the Lease. So the test also reads the Lease before the deletion.
	renewed, acquired := s.Lease(slot).Spec.RenewTime.Time, time.Time{}
	app.DeletePod(s, first)
	s.Await(space.StartTimeout, "another holds", func() bool {
		lease := s.Lease(slot)
		switch holder := s.Named(lease); {
		case holder == nil:
			return false
		case holder.UID == first.UID:
			renewed = lease.Spec.RenewTime.Time
			return false
		}
		acquired = lease.Spec.AcquireTime.Time
		return true
	})
	assert.Less(t, acquired.Sub(renewed), lease.Released, "by a release")
	s.Await(space.StartTimeout, "it answers", func() bool {
		holder := s.Holder(slot)
		return holder != nil && holder.UID != first.UID && answers(s, holder)
	})
}

// answers reports whether a pod's application answers.
func answers(s *space.Space, pod *corev1.Pod) bool {
	_, err := s.Client.CoreV1().Pods(s.Namespace).ProxyGet("http", pod.Name, "8080", "/", nil).DoRaw(s.Context())
	return err == nil
}
