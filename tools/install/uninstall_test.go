// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/setup"
)

// installed returns the objects of a small installation, as typed objects and as rendered objects.
func installed(t *testing.T) (there []client.Object, rendered []*unstructured.Unstructured) {
	t.Helper()
	there = []client.Object{
		&appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: "metaparticle-system", Name: "webhook"}},
		&admissionv1.MutatingWebhookConfiguration{
			ObjectMeta: metav1.ObjectMeta{Name: "metaparticle"}, Webhooks: []admissionv1.MutatingWebhook{{Name: "pods.metaparticle.io"}},
		},
	}
	for _, object := range there {
		fields, err := runtime.DefaultUnstructuredConverter.ToUnstructured(object)
		require.NoError(t, err)
		kinds, _, err := clientgoscheme.Scheme.ObjectKinds(object)
		require.NoError(t, err)
		u := &unstructured.Unstructured{Object: fields}
		u.SetGroupVersionKind(kinds[0])
		rendered = append(rendered, u)
	}
	return there, rendered
}

// away returns a client whose lists, reads and writes all fail between two instants after now.
func away(from, to time.Duration, objects ...client.Object) client.Client {
	start := time.Now()
	unless := func(do func() error) error {
		if since := time.Since(start); since > from && since < to {
			return errors.New("connection refused")
		}
		return do()
	}
	return fake.NewClientBuilder().WithScheme(clientgoscheme.Scheme).WithObjects(objects...).WithInterceptorFuncs(interceptor.Funcs{
		List: func(ctx context.Context, c client.WithWatch, l client.ObjectList, options ...client.ListOption) error {
			return unless(func() error { return c.List(ctx, l, options...) })
		},
		Get: func(ctx context.Context, c client.WithWatch, k client.ObjectKey, o client.Object, options ...client.GetOption) error {
			return unless(func() error { return c.Get(ctx, k, o, options...) })
		},
		Update: func(ctx context.Context, c client.WithWatch, o client.Object, options ...client.UpdateOption) error {
			return unless(func() error { return c.Update(ctx, o, options...) })
		},
	}).Build()
}

func TestUninstallationSurvivesAnOutageOfTheAPIServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		there, rendered := installed(t)
		c := away(9*time.Second, 21*time.Second, there...)
		require.NoError(t, uninstall(t.Context(), c, rendered, new(strings.Builder)))
		for _, object := range there {
			assert.True(t, apierrors.IsNotFound(c.Get(t.Context(), client.ObjectKeyFromObject(object), object)), object.GetName())
		}
	})
}

// A refused uninstallation restores the webhooks, and deletes no object.
func TestRefusedUninstallationKeepsTheInstallationDespiteAnOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		there, rendered := installed(t)
		c := away(9*time.Second, 90*time.Second, there...)
		time.AfterFunc(8*time.Second, func() {
			pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "late", Labels: map[string]string{api.GatedLabel: api.Gated}}}
			assert.NoError(t, c.Create(context.Background(), pod))
		})
		out := new(strings.Builder)
		require.ErrorIs(t, uninstall(t.Context(), c, rendered, out), setup.ErrGated)
		assert.Contains(t, out.String(), "shop/late\t")
		for _, object := range there {
			require.NoError(t, c.Get(t.Context(), client.ObjectKeyFromObject(object), object), object.GetName())
		}
		configuration := there[1].(*admissionv1.MutatingWebhookConfiguration)
		assert.Len(t, configuration.Webhooks, 1)
		assert.NotContains(t, configuration.Annotations, setup.RemovedAnnotation)
	})
}
