// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package enroll

import (
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/enroll/step"
)

// A user who may annotate a pod must not choose the rights of its service account.
func TestPodAnnotationsGrantRightsOnSlotsOnly(t *testing.T) {
	theirs := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: shop, Name: "somebodys-elector"}}
	for _, slots := range []string{"somebodys-elector", "metaparticle-enroll", "singletons", "lock", "*"} {
		t.Run(slots, func(t *testing.T) {
			w := newWorld(t, theirs.DeepCopy(), gated("a", "till", slots))
			w.settle(w.process())
			assert.Nil(t, w.role("till"))
			assert.Zero(t, w.writes)
		})
	}
	t.Run("beside a slot", func(t *testing.T) {
		w := newWorld(t, theirs.DeepCopy(), gated("a", "till", "lock.x,somebodys-elector"))
		w.settle(w.process())
		assert.Equal(t, withNext("lock.x"), w.role("till").Rules[0].ResourceNames)
	})
}

func TestEachClaimableSlotHasAValidSlotName(t *testing.T) {
	of := api.Workload{Group: "example.com", Kind: "Rollout", Name: "biller"}
	for _, a := range api.Annotations {
		for _, value := range a.Examples {
			if a.Kind == nil {
				continue
			}
			request, err := api.Parse(map[string]string{a.Key: value})
			require.NoError(t, err)
			require.NotEmpty(t, request.Marks(of), "%s: %s", a.Key, value)
			for _, slot := range request.Slots(of) {
				assert.True(t, api.IsSlot(slot), slot)
			}
		}
	}
}

// In a namespace that has opted out, a person may have added the marks to a pod without a gate. The
// gated pods continue to run, so enroll still heeds their marks.
func TestEnrollIgnoresMarksWithoutGateAfterOptOut(t *testing.T) {
	for name, test := range map[string]struct {
		pod      *corev1.Pod
		optedOut bool
		granted  []string
	}{
		"marks alone, opted out":      {marked("a", "till", "lock.x"), true, nil},
		"marks and a gate, opted out": {gated("a", "till", "lock.x"), true, withNext("lock.x")},
		"marks alone, opted in":       {marked("a", "till", "lock.x"), false, withNext("lock.x")},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, test.pod)
			if test.optedOut {
				w.optOut()
			}
			w.settle(w.process())
			if test.granted == nil {
				assert.Zero(t, w.writes)
				return
			}
			assert.Equal(t, test.granted, w.role("till").Rules[0].ResourceNames)
		})
	}
}

func TestEnrollWritesNothingInSystemNamespaces(t *testing.T) {
	for _, name := range []string{metav1.NamespaceSystem, "metaparticle-system"} {
		t.Run(name, func(t *testing.T) {
			pod := gated("a", "till", "lock.x")
			pod.Namespace = name
			workload := deployment(singleton, singleton)
			workload.Namespace = name
			w := newWorld(t, pod, workload, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
				Name: name, Labels: map[string]string{api.InjectionLabel: api.InjectionEnabled},
			}})
			r := w.process()
			r.Home = "metaparticle-system"
			_, err := r.Namespace(t.Context(), name)
			require.NoError(t, err)
			assert.Zero(t, w.writes)
		})
	}
}

// A user who may annotate a Role, but not write its rules, must not choose its rules.
func TestRoleAnnotationGrantsNoRightsOnForeignLeases(t *testing.T) {
	w := newWorld(t, gated("a", "till", "lock.x"))
	r := w.process()
	w.settle(r)
	role := w.role("till")
	role.Annotations[leasesAnnotation] = `{"somebodys-elector":{"seconds":30,"uid":"u"}}`
	require.NoError(t, w.server.Update(t.Context(), role))
	w.settle(r)
	assert.Equal(t, withNext("lock.x"), w.role("till").Rules[0].ResourceNames)
}

func TestRoleWithoutSlotsGrantsNoRightOnLeases(t *testing.T) {
	given := append(AgentRules(), rules(map[string]step.Memory{"somebodys-elector": {}})...)
	for _, rule := range given {
		assert.NotContains(t, rule.Resources, "leases", "a rule without names applies to all Leases")
	}
}

func TestAgentRulesForPodsPermitOnlyStatusPatches(t *testing.T) {
	var verbs []string
	for _, rule := range AgentRules("lock.x") {
		assert.NotContains(t, rule.Resources, "pods")
		if slices.Contains(rule.Resources, "pods/status") {
			verbs = append(verbs, rule.Verbs...)
		}
	}
	assert.Equal(t, []string{"patch"}, verbs, "a get of the subresource shows the whole pod")
}

func TestEnrollRewritesOutdatedRulesOfARole(t *testing.T) {
	w := newWorld(t, gated("a", "till", "lock.x"))
	w.settle(w.process())
	role, now := w.role("till"), w.role("till").Rules
	role.Rules = []rbacv1.PolicyRule{now[0], {APIGroups: []string{""}, Resources: []string{"pods/status"}, Verbs: []string{"get", "patch"}}}
	require.NoError(t, w.server.Update(t.Context(), role))
	w.settle(w.process())
	assert.Equal(t, now, w.role("till").Rules)
}

// Annotations of a living pod can change without a check by the webhook.
func TestEnrollLimitsTheAnnotatedLeaseDuration(t *testing.T) {
	for written, want := range map[string]time.Duration{
		"4294967297s": api.MaxLeaseDuration, // the low 32 bits of this number are 1
		"1s":          api.MinLeaseDuration,
		"-5s":         api.MinLeaseDuration,
		"2m":          2 * time.Minute,
		"soon":        api.DefaultLeaseDuration,
	} {
		t.Run(written, func(t *testing.T) {
			w := newWorld(t, lasting(gated("a", "till", "lock.x"), written))
			w.settle(w.process())
			assert.EqualValues(t, want.Seconds(), *w.lease("lock.x").Spec.LeaseDurationSeconds)
			assert.EqualValues(t, want.Seconds(), remembered(w.role("till"))["lock.x"].Seconds)
		})
	}
}

// With supporters a holder writes the long duration as well, only not always. A Lease that enroll makes anew must
// not be free before the holder has stopped.
func TestEnrollRemembersTheLongestDurationOfAFailsafe(t *testing.T) {
	const slot = "singleton.deployment.biller"
	for text, want := range map[string]time.Duration{
		"10m": 750 * time.Second, "10m,alone": 750 * time.Second, "1m": 102 * time.Second, "10m,": api.DefaultLeaseDuration,
	} {
		pod := gated("a", "till", slot)
		pod.Annotations[api.FailsafeAnnotation] = text
		for what, object := range map[string]client.Object{
			"pod": pod, "workload": deployment(map[string]string{api.SingletonAnnotation: "true", api.FailsafeAnnotation: text}, nil),
		} {
			if what == "workload" && want == api.DefaultLeaseDuration {
				continue // a workload with a malformed annotation claims nothing
			}
			w := newWorld(t, object)
			w.settle(w.process())
			assert.EqualValues(t, want.Seconds(), *w.lease(slot).Spec.LeaseDurationSeconds, "%s: %s", what, text)
			assert.EqualValues(t, want.Seconds(), remembered(w.role("till"))[slot].Seconds, "%s: %s", what, text)
		}
	}
}
