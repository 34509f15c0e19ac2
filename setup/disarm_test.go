// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package setup

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
)

// behind returns the functions for the requests List, Get and Update of a fake client. Each
// function first calls "away". If "away" returns an error, that error is the answer.
func behind(away func(context.Context) error) interceptor.Funcs {
	return interceptor.Funcs{
		List: func(ctx context.Context, c client.WithWatch, l client.ObjectList, options ...client.ListOption) error {
			return unless(away(ctx), func() error { return c.List(ctx, l, options...) })
		},
		Get: func(ctx context.Context, c client.WithWatch, k client.ObjectKey, o client.Object, options ...client.GetOption) error {
			return unless(away(ctx), func() error { return c.Get(ctx, k, o, options...) })
		},
		Update: func(ctx context.Context, c client.WithWatch, o client.Object, options ...client.UpdateOption) error {
			return unless(away(ctx), func() error { return c.Update(ctx, o, options...) })
		},
	}
}

func unless(err error, do func() error) error {
	if err != nil {
		return err
	}
	return do()
}

// between returns a function that fails between two instants. Each instant is a time from now.
func between(from, to time.Duration) func(context.Context) error {
	start := time.Now()
	return func(context.Context) error {
		if since := time.Since(start); since > from && since < to {
			return errors.New("connection refused")
		}
		return nil
	}
}

// there returns the webhook configuration. The outage of the API server must have ended.
func there(t *testing.T, c client.Client) *admissionv1.MutatingWebhookConfiguration {
	t.Helper()
	object := configuration()
	require.NoError(t, c.Get(t.Context(), client.ObjectKeyFromObject(object), object))
	return object
}

// restored checks that the configuration is as before the removal.
func restored(t *testing.T, c client.Client) {
	t.Helper()
	object := there(t, c)
	assert.Equal(t, configuration().Webhooks, object.Webhooks)
	assert.NotContains(t, object.Annotations, RemovedAnnotation)
}

// late creates a gated pod after the given time.
func late(t *testing.T, c client.Client, after time.Duration) {
	t.Helper()
	time.AfterFunc(after, func() { assert.NoError(t, c.Create(context.Background(), gated("late", corev1.PodPending))) })
}

func TestRemovalOfWebhooksContinuesAfterAPIServerOutage(t *testing.T) {
	for name, outage := range map[string][2]time.Duration{
		"in the middle": {9 * time.Second, 21 * time.Second}, "at the last look": {30 * time.Second, 80 * time.Second}, "all looks": {time.Second, 90 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				c := cluster(behind(between(outage[0], outage[1])), configuration())
				require.NoError(t, Disarm(t.Context(), c, "metaparticle", new(strings.Builder)))
				assert.GreaterOrEqual(t, time.Since(start), latest, "the last look comes after the last gated pod")
				assert.Zero(t, webhooks(t, c))
			})
		})
	}
}

func TestFailedRemovalDuringAPIServerOutageRestoresWebhooks(t *testing.T) {
	for name, test := range map[string]struct {
		outage [2]time.Duration
		late   time.Duration
	}{
		"a gated pod appears during the outage": {outage: [2]time.Duration{9 * time.Second, 21 * time.Second}, late: 12 * time.Second},
		"a gated pod appears before the end":    {outage: [2]time.Duration{20 * time.Second, 90 * time.Second}, late: 34 * time.Second},
		"the outage lasts beyond the last look": {outage: [2]time.Duration{9 * time.Second, 200 * time.Second}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := cluster(behind(between(test.outage[0], test.outage[1])), configuration())
				if test.late > 0 {
					late(t, c, test.late)
				}
				err := Disarm(t.Context(), c, "metaparticle", new(strings.Builder))
				require.Error(t, err)
				assert.Equal(t, test.late > 0, errors.Is(err, ErrGated), err)
				restored(t, c)
			})
		})
	}
}

// SIGTERM cancels the removal, here after 7 s. The kubelet sends SIGKILL 30 s later, so the removal
// must restore the webhooks before that.
func TestInterruptedWebhookRemovalIsUndoneAfterOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := cluster(behind(between(6*time.Second, 35*time.Second)), configuration())
		ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
		defer cancel()
		time.AfterFunc(7*time.Second, cancel)
		start := time.Now()
		require.ErrorIs(t, Disarm(ctx, c, "metaparticle", new(strings.Builder)), context.Canceled)
		assert.Less(t, time.Since(start), 37*time.Second)
		restored(t, c)
	})
}

// A request without an answer ends only with its context. Helm waits 5 min for the hook.
func TestWebhookRemovalEndsIfAPIServerNeverAnswers(t *testing.T) {
	for _, after := range []time.Duration{-1, 0, 9 * time.Second, 34 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			start := time.Now()
			c := cluster(behind(func(ctx context.Context) error {
				if time.Since(start) > after {
					<-ctx.Done()
				}
				return ctx.Err()
			}), configuration())
			ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
			defer cancel()
			require.Error(t, Disarm(ctx, c, "metaparticle", new(strings.Builder)))
			assert.LessOrEqual(t, time.Since(start), 4*time.Minute+restoreLeast, after)
		})
	}
}

// A connection is lost, so requests get no answer for some seconds. Later requests get an answer.
func TestWebhookRemovalRecoversFromUnansweredRequests(t *testing.T) {
	hung := func(from, to time.Duration) func(context.Context) error {
		start := time.Now()
		return func(ctx context.Context) error {
			if since := time.Since(start); since > from && since < to {
				<-ctx.Done()
			}
			return ctx.Err()
		}
	}
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		c := cluster(behind(hung(9*time.Second, 20*time.Second)), configuration())
		require.NoError(t, Disarm(t.Context(), c, "metaparticle", new(strings.Builder)))
		assert.LessOrEqual(t, time.Since(start), latest+requestTimeout+betweenLooks)
	})
	synctest.Test(t, func(t *testing.T) {
		c := cluster(behind(hung(6*time.Second, 15*time.Second)), configuration())
		ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
		defer cancel()
		time.AfterFunc(7*time.Second, cancel)
		start := time.Now()
		require.Error(t, Disarm(ctx, c, "metaparticle", new(strings.Builder)))
		assert.Less(t, time.Since(start), 7*time.Second+restoreLeast, "before the kubelet kills the hook")
		restored(t, c)
	})
}

// A node that fails kills the hook, so the first removal restores nothing.
func TestRefusedUninstallationRestoresWebhooksThatKilledUninstallationRemoved(t *testing.T) {
	for _, after := range []time.Duration{0, 3 * time.Second, 34 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			var dead atomic.Bool
			c := cluster(behind(func(context.Context) error {
				if dead.Load() {
					return errors.New("killed")
				}
				return nil
			}), configuration())
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(7*time.Second, func() { dead.Store(true); cancel() })
			require.Error(t, Disarm(ctx, c, "metaparticle", new(strings.Builder)))
			dead.Store(false)
			assert.Zero(t, webhooks(t, c), "the removal was killed")
			late(t, c, after)
			synctest.Wait()
			require.ErrorIs(t, Disarm(t.Context(), c, "metaparticle", new(strings.Builder)), ErrGated, after)
			restored(t, c)
		})
	}
}

func TestWebhooksAreRestoredIfRemovalGetsNoAnswer(t *testing.T) {
	lost := false
	c := cluster(interceptor.Funcs{
		Update: func(ctx context.Context, c client.WithWatch, o client.Object, options ...client.UpdateOption) error {
			err := c.Update(ctx, o, options...)
			if !lost {
				lost, err = true, errors.New("connection reset")
			}
			return err
		},
	}, configuration())
	require.ErrorContains(t, Disarm(t.Context(), c, "metaparticle", new(strings.Builder)), "connection reset")
	restored(t, c)
}

// A killed removal leaves an annotation, in which the removal has saved the webhooks. A rollback by
// Helm restores the webhooks, but does not delete that annotation.
func TestUninstallationIgnoresSavedWebhooksIfCurrentWebhooksExist(t *testing.T) {
	stale := configuration()
	stale.Annotations = map[string]string{RemovedAnnotation: `{"webhooks":[{"name":"old.metaparticle.io"}]}`}
	t.Run("a gated pod exists", func(t *testing.T) {
		c := cluster(interceptor.Funcs{}, stale.DeepCopy(), gated("alive", corev1.PodRunning))
		require.ErrorIs(t, Disarm(t.Context(), c, "metaparticle", new(strings.Builder)), ErrGated)
		restored(t, c)
	})
	t.Run("a gated pod appears", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c := cluster(interceptor.Funcs{}, stale.DeepCopy())
			late(t, c, time.Second)
			require.ErrorIs(t, Disarm(t.Context(), c, "metaparticle", new(strings.Builder)), ErrGated)
			restored(t, c)
		})
	})
}

func TestErrorAdvisesReinstallationIfSavedWebhooksAreLost(t *testing.T) {
	for _, text := range []string{"", "{", `{"webhooks":[]}`} {
		empty := configuration()
		empty.Webhooks, empty.Annotations = nil, map[string]string{RemovedAnnotation: text}
		c := cluster(interceptor.Funcs{}, empty, gated("alive", corev1.PodRunning))
		err := Disarm(t.Context(), c, "metaparticle", new(strings.Builder))
		require.ErrorIs(t, err, ErrGated)
		require.ErrorIs(t, err, ErrLost)
		assert.ErrorContains(t, err, "install Metaparticle again")
	}
}

// A person may have deleted the configuration, a moment after the webhook gated a pod.
func TestRemovalSeesGatedPodsEvenWithoutWebhookConfiguration(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := cluster(interceptor.Funcs{})
		late(t, c, 34*time.Second)
		require.ErrorIs(t, Disarm(t.Context(), c, "metaparticle", new(strings.Builder)), ErrGated)
	})
}

func TestUninstallationRefusesWebhooksTooLargeToSave(t *testing.T) {
	large := configuration()
	large.Webhooks[0].ClientConfig.CABundle = bytes.Repeat([]byte("A"), maxSaved)
	synctest.Test(t, func(t *testing.T) {
		c := cluster(interceptor.Funcs{}, large)
		late(t, c, time.Second)
		require.ErrorIs(t, Disarm(t.Context(), c, "metaparticle", new(strings.Builder)), ErrGated)
		restored(t, c)
	})
	for i := range 10_000 {
		large.Webhooks = append(large.Webhooks, admissionv1.MutatingWebhook{Name: fmt.Sprintf("%d.example.com", i)})
	}
	large.ResourceVersion = ""
	c := cluster(interceptor.Funcs{}, large)
	require.ErrorIs(t, Disarm(t.Context(), c, "metaparticle", new(strings.Builder)), errTooLarge)
	assert.Len(t, there(t, c).Webhooks, 10_001, "nothing was removed")
}

// Helm applies the configuration again, with a changed field. If the field belonged to another owner,
// the API server would refuse the change.
func TestRestoredWebhooksKeepTheirFieldManagers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := fake.NewClientBuilder().WithScheme(clientgoscheme.Scheme).WithReturnManagedFields().Build()
		apply := func(path string) error {
			return c.Apply(t.Context(), client.ApplyConfigurationFromUnstructured(&unstructured.Unstructured{Object: map[string]any{
				"apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration", "metadata": map[string]any{"name": "metaparticle"},
				"webhooks": []any{map[string]any{
					"name": "pods.metaparticle.io", "sideEffects": "None", "admissionReviewVersions": []any{"v1"},
					"clientConfig": map[string]any{"service": map[string]any{"namespace": "a", "name": "b", "path": path}},
				}},
			}}), client.FieldOwner("helm"))
		}
		require.NoError(t, apply("/pods"))
		before := there(t, c)
		late(t, c, time.Second)
		require.ErrorIs(t, Disarm(t.Context(), c, "metaparticle", new(strings.Builder)), ErrGated)
		after := there(t, c)
		assert.Equal(t, before.Webhooks, after.Webhooks)
		assert.Equal(t, before.Annotations, after.Annotations)
		require.Len(t, after.ManagedFields, 1)
		assert.Equal(t, "helm", after.ManagedFields[0].Manager)
		require.NoError(t, apply("/v2/pods"), "an upgrade changes a restored field")
		assert.Equal(t, "/v2/pods", *there(t, c).Webhooks[0].ClientConfig.Service.Path)
	})
}
