// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package setup

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/metaparticle-io/metaparticle/api"
)

// cluster returns a client of an API server with these objects.
func cluster(functions interceptor.Funcs, objects ...client.Object) client.Client {
	return fake.NewClientBuilder().WithScheme(clientgoscheme.Scheme).WithObjects(objects...).WithInterceptorFuncs(functions).Build()
}

func gated(name string, phase corev1.PodPhase) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, Labels: map[string]string{api.GatedLabel: api.Gated},
			Annotations: map[string]string{api.SlotsAnnotation: "lock.a"}},
		Status: corev1.PodStatus{Phase: phase},
	}
}

func configuration() *admissionv1.MutatingWebhookConfiguration {
	return &admissionv1.MutatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: "metaparticle"},
		Webhooks:   []admissionv1.MutatingWebhook{{Name: "pods.metaparticle.io"}},
	}
}

func webhooks(t *testing.T, c client.Client) int {
	t.Helper()
	there := configuration()
	require.NoError(t, c.Get(t.Context(), client.ObjectKeyFromObject(there), there))
	return len(there.Webhooks)
}

func TestWebhooksAreRemovedIfNoGatedPodLives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := cluster(interceptor.Funcs{}, configuration(), gated("ended", corev1.PodSucceeded), gated("failed", corev1.PodFailed))
		require.NoError(t, Disarm(t.Context(), c, "metaparticle", new(strings.Builder)))
		assert.Zero(t, webhooks(t, c))
		require.NoError(t, Disarm(t.Context(), c, "metaparticle", new(strings.Builder)), "a second attempt succeeds")
		require.NoError(t, Disarm(t.Context(), cluster(interceptor.Funcs{}), "metaparticle", new(strings.Builder)), "without a configuration")
	})
}

func TestLivingGatedPodsPreventRemovalOfWebhooks(t *testing.T) {
	for _, phase := range []corev1.PodPhase{corev1.PodPending, corev1.PodRunning, corev1.PodUnknown, ""} {
		c, out := cluster(interceptor.Funcs{}, configuration(), gated("alive", phase)), new(strings.Builder)
		require.ErrorIs(t, Disarm(t.Context(), c, "metaparticle", out), ErrGated)
		assert.Equal(t, "shop/alive\tlock.a\n", out.String())
		assert.Equal(t, 1, webhooks(t, c))
	}
}

// TestRemovedWebhooksReturnIfAGatedPodAppears creates a gated pod right after the write by which
// [Disarm] removes the webhooks.
func TestRemovedWebhooksReturnIfAGatedPodAppears(t *testing.T) {
	var emptied bool
	c := cluster(interceptor.Funcs{
		Update: func(ctx context.Context, c client.WithWatch, o client.Object, options ...client.UpdateOption) error {
			if err := c.Update(ctx, o, options...); err != nil || emptied {
				return err
			}
			emptied = true
			return c.Create(ctx, gated("late", corev1.PodPending))
		},
	}, configuration())
	require.ErrorIs(t, Disarm(t.Context(), c, "metaparticle", new(strings.Builder)), ErrGated)
	assert.True(t, emptied)
	assert.Equal(t, 1, webhooks(t, c))
}

// The API server may store a pod as late as 34 s after the webhook has gated the pod. So a gated
// pod can still appear after Disarm has removed the webhooks.
func TestGatedPodStoredAfterWebhookRemovalRestoresWebhooks(t *testing.T) {
	for _, after := range []time.Duration{time.Second, 9 * time.Second, 34 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			c := cluster(interceptor.Funcs{}, configuration())
			time.AfterFunc(after, func() { assert.NoError(t, c.Create(context.Background(), gated("late", corev1.PodPending))) })
			out := new(strings.Builder)
			require.ErrorIs(t, Disarm(t.Context(), c, "metaparticle", out), ErrGated, after)
			assert.Contains(t, out.String(), "shop/late\t")
			assert.Equal(t, 1, webhooks(t, c), after)
		})
	}
}

// A removal is interrupted if the kubelet ends the pod of the Helm hook, or if a person
// interrupts tools/install.
func TestRemovedWebhooksAreRestoredIfRemovalIsInterrupted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := cluster(interceptor.Funcs{
			Update: func(ctx context.Context, c client.WithWatch, o client.Object, options ...client.UpdateOption) error {
				if ctx.Err() != nil {
					return ctx.Err()
				}
				return c.Update(ctx, o, options...)
			},
		}, configuration())
		ctx, cancel := context.WithTimeout(t.Context(), 7*time.Second)
		defer cancel()
		require.ErrorIs(t, Disarm(ctx, c, "metaparticle", new(strings.Builder)), context.DeadlineExceeded)
		assert.Equal(t, 1, webhooks(t, c))
	})
}

// Argo CD runs no hook before the deletion of a release, so nothing has looked for gated pods.
func TestRemovalKeepsTheObjectsOfLivingGatedPods(t *testing.T) {
	made := map[string]string{api.ManagedLabel: "true"}
	of := func(name string) metav1.ObjectMeta {
		return metav1.ObjectMeta{Namespace: "shop", Name: name, Labels: made}
	}
	objects := []client.Object{
		&coordinationv1.Lease{ObjectMeta: of("lock.a")}, &rbacv1.Role{ObjectMeta: of("metaparticle:a")}, &rbacv1.RoleBinding{ObjectMeta: of("metaparticle:a")},
	}
	c, out := cluster(interceptor.Funcs{}, append(objects, gated("alive", corev1.PodRunning))...), new(strings.Builder)
	_, err := RemoveMade(t.Context(), c, out)
	require.ErrorIs(t, err, ErrUsed)
	assert.ErrorContains(t, err, "install Metaparticle again")
	assert.Equal(t, "shop/alive\tlock.a\n", out.String())
	for _, object := range objects {
		assert.NoError(t, c.Get(t.Context(), client.ObjectKeyFromObject(object), object))
	}
}

func TestUninstallationRefusalAdvisesScalingBeforeRemovingClaims(t *testing.T) {
	before, after, found := strings.Cut(ErrGated.Error(), "remove the claims")
	require.True(t, found)
	assert.Regexp(t, "scale their workloads to 0.*wait until the pods are gone", before)
	assert.Contains(t, after, "uninstall again")
}

func TestUninstallationKeepsDoneKeysAndOpenJobBarriers(t *testing.T) {
	made := map[string]string{api.ManagedLabel: "true"}
	lease := func(name string, annotations map[string]string, owners ...metav1.OwnerReference) *coordinationv1.Lease {
		return &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, Labels: made, Annotations: annotations, OwnerReferences: owners},
			Spec: coordinationv1.LeaseSpec{HolderIdentity: new("gone_1")}}
	}
	job := metav1.OwnerReference{APIVersion: "batch/v1", Kind: "Job", Name: "j", UID: "1"}
	theirs := lease("theirs", nil)
	theirs.Labels = nil
	c := cluster(interceptor.Funcs{},
		lease("lock.a", nil), lease("once.b", map[string]string{api.DoneAnnotation: "7"}),
		lease("barrier.c", map[string]string{api.OpenedAnnotation: "true"}, job), lease("barrier.d", map[string]string{api.OpenedAnnotation: "true"}), theirs,
		&rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "metaparticle:a", Labels: made}},
		&rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "metaparticle:a", Labels: made}})
	deleted, err := RemoveMade(t.Context(), c, new(strings.Builder))
	require.NoError(t, err)
	assert.Equal(t, 4, deleted)
	var leases coordinationv1.LeaseList
	require.NoError(t, c.List(t.Context(), &leases))
	var names []string
	for _, l := range leases.Items {
		names = append(names, l.Name)
	}
	assert.ElementsMatch(t, []string{"once.b", "barrier.c", "theirs"}, names)
}

// Only a Lease has done keys, or is the record of a barrier. A tenant may annotate a Role.
func TestDoneAnnotationNeverProtectsRoleFromUninstallation(t *testing.T) {
	annotated := metav1.ObjectMeta{
		Namespace: "shop", Name: "metaparticle:a", Labels: map[string]string{api.ManagedLabel: "true"},
		Annotations:     map[string]string{api.DoneAnnotation: "7", api.OpenedAnnotation: "true"},
		OwnerReferences: []metav1.OwnerReference{{APIVersion: "batch/v1", Kind: "Job", Name: "j", UID: "1"}},
	}
	c := cluster(interceptor.Funcs{}, &rbacv1.Role{ObjectMeta: annotated}, &rbacv1.RoleBinding{ObjectMeta: annotated})
	deleted, err := RemoveMade(t.Context(), c, new(strings.Builder))
	require.NoError(t, err)
	assert.Equal(t, 2, deleted)
}

// The policy that refuses the deletion of held Leases stays in effect for a moment after the
// policy itself has been deleted.
func TestUninstallationRetriesARefusedDeletionOfALease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		refusals := 3
		lease := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "lock.a"}}
		lease.SetGroupVersionKind(coordinationv1.SchemeGroupVersion.WithKind("Lease"))
		c := cluster(interceptor.Funcs{
			Delete: func(ctx context.Context, c client.WithWatch, o client.Object, options ...client.DeleteOption) error {
				if refusals--; refusals >= 0 {
					return errors.New("SlotHeld")
				}
				return c.Delete(ctx, o, options...)
			},
		}, lease)
		require.NoError(t, Remove(t.Context(), c, lease))
		assert.Negative(t, refusals)
	})
}

// answer returns a client whose API server passes each created pod to the function "gate". The API
// server answers with the error of that function.
func answer(gate func(*corev1.Pod) error) client.Client {
	return cluster(interceptor.Funcs{
		Create: func(_ context.Context, _ client.WithWatch, o client.Object, _ ...client.CreateOption) error {
			return gate(o.(*corev1.Pod))
		},
	})
}

func TestTimedOutSetupReportsFaultyWebhookOrPolicy(t *testing.T) {
	for name, c := range map[string]struct {
		gate         func(*corev1.Pod) error
		gating, deny string
	}{
		"both": {gate: func(p *corev1.Pod) error {
			if p.Annotations == nil {
				return errors.New("MarksForged: the label …")
			}
			p.Labels = map[string]string{api.GatedLabel: api.Gated}
			return nil
		}},
		"no webhook, no policy": {
			gate: func(*corev1.Pod) error { return nil }, gating: "was not gated", deny: "the policy metaparticle-marks is missing",
		},
		"a webhook that does not answer": {
			gate: func(*corev1.Pod) error { return errors.New("connection refused") }, gating: "connection refused", deny: "connection refused",
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				check(t, AwaitGating(ctx, answer(c.gate), "shop"), c.gating)
				ctx, cancel = context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				check(t, AwaitPolicies(ctx, answer(c.gate), "shop"), c.deny)
			})
		})
	}
}

func check(t *testing.T, err error, message string) {
	t.Helper()
	if message == "" {
		assert.NoError(t, err)
		return
	}
	assert.ErrorContains(t, err, message)
}

func TestUninstallationWaitsUntilWebhookPodsAreGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pod := gated("webhook", corev1.PodRunning)
		c := cluster(interceptor.Funcs{}, pod)
		start := time.Now()
		go func() {
			<-time.After(10 * time.Second)
			assert.NoError(t, c.Delete(context.Background(), pod))
		}()
		require.NoError(t, AwaitNoPods(t.Context(), c, "shop", pod.Labels))
		assert.GreaterOrEqual(t, time.Since(start), 10*time.Second)
	})
}

// A tenant who may create Leases in one namespace creates a Lease with enroll's label and a
// finalizer.
func TestUninstallationDeletesOtherLeasesDespiteAStuckLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		made := map[string]string{api.ManagedLabel: "true"}
		trap := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: "attacker", Name: "a", Labels: made, Finalizers: []string{"example.com/never"}}}
		victim := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "lock.a", Labels: made}}
		c := cluster(interceptor.Funcs{}, trap, victim)
		_, err := RemoveMade(t.Context(), c, new(strings.Builder))
		require.ErrorContains(t, err, "delete lease a: still there")
		var left coordinationv1.LeaseList
		require.NoError(t, c.List(t.Context(), &left, client.InNamespace("shop")))
		assert.Empty(t, left.Items, "the Leases of other namespaces go, whatever one tenant does")
	})
}

// The owner of a living pod may write any text into the pod's annotation metaparticle.io/after.
func TestRefusedUninstallationPrintsNoControlCharacters(t *testing.T) {
	pod := gated("a", corev1.PodRunning)
	pod.Labels[api.GatedLabel] = api.GatedAfter
	pod.Annotations = map[string]string{api.AfterAnnotation: "\x1b[2J\x1b[Hall pods have ended\nrun: helm uninstall metaparticle --no-hooks"}
	out := new(strings.Builder)
	require.ErrorIs(t, refuseGated(t.Context(), cluster(interceptor.Funcs{}, pod), out), ErrGated)
	assert.NotContains(t, out.String(), "\x1b")
	assert.Equal(t, 1, strings.Count(out.String(), "\n"), "one line for each pod")
}

// A bidirectional override makes a terminal show a text backwards. A long text would fill the log.
func TestRefusedUninstallationPrintsNoLongOrBackwardText(t *testing.T) {
	pod := gated("a", corev1.PodRunning)
	pod.Annotations[api.SlotsAnnotation] = "lock.a\u202e\u2028\u2066" + strings.Repeat("é", 100_000)
	out := new(strings.Builder)
	require.ErrorIs(t, refuseGated(t.Context(), cluster(interceptor.Funcs{}, pod), out), ErrGated)
	assert.True(t, strings.HasPrefix(out.String(), "shop/a\tlock.a???é"), out.String()[:50])
	assert.Less(t, out.Len(), 300)
	assert.True(t, utf8.ValidString(out.String()), "no character is cut")
}

// A tenant gives a Lease with enroll's label a finalizer. The API server refuses each request after
// the end of the removal's time, as a real API server does.
func TestUninstallationErrorNamesOnlyTheStuckLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lease := func(namespace, name string, finalizers ...string) *coordinationv1.Lease {
			return &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{
				Namespace: namespace, Name: name, Labels: map[string]string{api.ManagedLabel: "true"}, Finalizers: finalizers,
			}}
		}
		c := cluster(interceptor.Funcs{
			Delete: func(ctx context.Context, c client.WithWatch, o client.Object, options ...client.DeleteOption) error {
				if ctx.Err() != nil {
					return ctx.Err()
				}
				return c.Delete(ctx, o, options...)
			},
		}, lease("attacker", "lock.a", "example.com/never"), lease("shop", "lock.b"), lease("shop", "lock.c"))
		deleted, err := RemoveMade(t.Context(), c, new(strings.Builder))
		require.ErrorContains(t, err, "delete lease lock.a: still there")
		assert.ErrorContains(t, err, "attacker", "a person must find the Lease")
		assert.NotContains(t, err.Error(), "lock.b")
		assert.NotContains(t, err.Error(), "lock.c")
		assert.Equal(t, 2, deleted)
	})
}

// A tenant can make thousands of Leases with finalizers.
func TestUninstallationErrorNamesFewStuckLeases(t *testing.T) {
	if testing.Short() {
		t.Skip("slow with the race detector")
	}
	synctest.Test(t, func(t *testing.T) {
		var stuck []client.Object
		for range 6 {
			stuck = append(stuck, &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{
				Namespace: "attacker", Name: "lock.a" + strings.Repeat("a", len(stuck)), Labels: map[string]string{api.ManagedLabel: "true"},
				Finalizers: []string{"example.com/never"},
			}})
		}
		deleted, err := RemoveMade(t.Context(), cluster(interceptor.Funcs{}, stuck...), new(strings.Builder))
		require.ErrorContains(t, err, "delete 1 more")
		assert.Equal(t, 5, strings.Count(err.Error(), "still there"))
		assert.Zero(t, deleted)
	})
}
