// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"errors"
	"os"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/setup"
)

// The test compares the commands in the Helm chart's hooks with the keys of the map [steps].
func TestHelmHooksUseOnlyCommandsOfTheWebhook(t *testing.T) {
	var named []string
	for _, file := range []string{"test.yaml", "uninstall.yaml"} {
		text, err := os.ReadFile("../../charts/metaparticle/templates/" + file)
		require.NoError(t, err)
		for _, match := range regexp.MustCompile(`"args" \(list "([^"]*)"`).FindAllSubmatch(text, -1) {
			named = append(named, string(match[1]))
		}
	}
	var known []string
	for name := range steps {
		known = append(known, name)
	}
	assert.ElementsMatch(t, known, named)
	text, err := os.ReadFile("../../manifests/webhookconfiguration.yaml")
	require.NoError(t, err)
	assert.Contains(t, string(text), "\n  name: "+configuration+"\n")
	text, err = os.ReadFile("../../manifests/webhook.yaml")
	require.NoError(t, err)
	assert.Contains(t, string(text), "\n      app.kubernetes.io/name: metaparticle-webhook\n")
}

func TestWebhookBinaryRefusesUnknownSubcommandsAndArguments(t *testing.T) {
	out := new(strings.Builder)
	assert.ErrorContains(t, start(t.Context(), []string{"try", "-unknown"}, out), "not defined: -unknown")
	assert.NoError(t, start(t.Context(), []string{"try", "-help"}, out))
	assert.ErrorContains(t, start(t.Context(), []string{"tries", "-agent-image=a", "-namespace=b"}, out), `unexpected argument "tries"`)
}

// The API server is away for longer than the hook searches for gated pods. Helm waits for five
// minutes.
func TestUninstallHookRestoresWebhooksBeforeHelmTimesOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		away := func() error {
			if since := time.Since(start); since > 9*time.Second && since < 220*time.Second {
				return errors.New("connection refused")
			}
			return nil
		}
		there := &admissionv1.MutatingWebhookConfiguration{
			ObjectMeta: metav1.ObjectMeta{Name: configuration}, Webhooks: []admissionv1.MutatingWebhook{{Name: "pods.metaparticle.io"}},
		}
		c := fake.NewClientBuilder().WithObjects(there).WithInterceptorFuncs(interceptor.Funcs{
			List: func(ctx context.Context, c client.WithWatch, l client.ObjectList, options ...client.ListOption) error {
				return cmp.Or(away(), c.List(ctx, l, options...))
			},
			Get: func(ctx context.Context, c client.WithWatch, k client.ObjectKey, o client.Object, options ...client.GetOption) error {
				return cmp.Or(away(), c.Get(ctx, k, o, options...))
			},
		}).Build()
		ctx, cancel := context.WithTimeout(t.Context(), stepTime)
		defer cancel()
		require.ErrorContains(t, beginUninstall(ctx, c, "metaparticle-system", new(strings.Builder)), "connection refused")
		assert.Less(t, time.Since(start), stepTime)
		require.NoError(t, c.Get(t.Context(), client.ObjectKeyFromObject(there), there))
		assert.Len(t, there.Webhooks, 1)
		assert.Empty(t, there.Annotations)
	})
}

// A gated pod lives, and no hook has run before. The webhook's pods are gone.
func TestUninstallHookKeepsLeasesWhileGatedPodsExist(t *testing.T) {
	lease := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "lock.a", Labels: map[string]string{api.ManagedLabel: "true"}}}
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "a", Labels: map[string]string{api.GatedLabel: api.Gated}}}
	c, out := fake.NewClientBuilder().WithObjects(lease, pod).Build(), new(strings.Builder)
	require.ErrorIs(t, endUninstall(t.Context(), c, "metaparticle-system", out), setup.ErrUsed)
	assert.Contains(t, out.String(), "shop/a\t")
	require.NoError(t, c.Get(t.Context(), client.ObjectKeyFromObject(lease), lease))

	require.NoError(t, c.Delete(t.Context(), pod))
	require.NoError(t, endUninstall(t.Context(), c, "metaparticle-system", out))
	assert.True(t, apierrors.IsNotFound(c.Get(t.Context(), client.ObjectKeyFromObject(lease), lease)))
}
