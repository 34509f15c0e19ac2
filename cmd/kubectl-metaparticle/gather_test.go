// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/assert"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
)

// An owner of a namespace may write any owner reference into its own workloads.
func TestCommandsEndDespiteControllersInACycle(t *testing.T) {
	web := func(uid types.UID, controller string, of types.UID) metav1.ObjectMeta {
		return metav1.ObjectMeta{Namespace: "shop", Name: "web", UID: uid, OwnerReferences: []metav1.OwnerReference{
			{APIVersion: "apps/v1", Kind: controller, Name: "web", UID: of, Controller: new(true)},
		}}
	}
	shop := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop"}}
	for name, there := range map[string][]client.Object{
		"a workload that controls itself": {&appsv1.Deployment{ObjectMeta: web("d", "Deployment", "d")}},
		"two workloads":                   {&appsv1.Deployment{ObjectMeta: web("d", "StatefulSet", "s")}, &appsv1.StatefulSet{ObjectMeta: web("s", "Deployment", "d")}},
		"other uids":                      {&appsv1.Deployment{ObjectMeta: web("d", "StatefulSet", "other")}, &appsv1.StatefulSet{ObjectMeta: web("s", "Deployment", "other")}},
	} {
		reads := 0
		c := fake.NewClientBuilder().WithObjects(append(there, shop)...).WithInterceptorFuncs(interceptor.Funcs{
			Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, o client.Object, options ...client.GetOption) error {
				if reads++; reads > 20 {
					return errors.New("a read without end")
				}
				return c.Get(ctx, key, o, options...)
			},
		}).Build()
		_, err := findSlots(t.Context(), cluster{WithWatch: c}, "shop", []string{"deployment/web"})
		assert.LessOrEqual(t, reads, 20, name)
		if err != nil {
			assert.NotContains(t, err.Error(), "a read without end", name)
		}
	}
}
