// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/setup"
)

// fieldOwner is the field manager of the applied objects.
const fieldOwner = client.FieldOwner("metaparticle-install")

var errConditionsLost = errors.New("cert-manager's cainjector dropped its matchConditions: while no webhook runs, unannotated pods of namespaces that opted in cannot start either; use cert-manager 1.13 or later")

// install applies the objects and waits until the webhook has gated a pod.
func install(ctx context.Context, c client.Client, objects []*unstructured.Unstructured, out io.Writer) error {
	for _, object := range objects {
		// The first attempts may fail, because cert-manager's own webhook may still be starting.
		err := setup.Retry(ctx, func() error { return apply(ctx, c, object) })
		if err != nil {
			return fmt.Errorf("apply %s %s: %w", object.GetKind(), object.GetName(), err)
		}
	}
	fmt.Fprintf(out, "applied %d objects; waiting for the webhook\n", len(objects))
	for _, object := range objects {
		if object.GetKind() != "Deployment" {
			continue
		}
		if err := setup.Retry(ctx, func() error { return rolledOut(ctx, c, client.ObjectKeyFromObject(object)) }); err != nil {
			return err
		}
	}
	if err := answers(ctx, c); err != nil {
		return err
	}
	if err := whole(ctx, c, objects); errors.Is(err, errConditionsLost) {
		fmt.Fprintln(out, "warning:", err)
	} else if err != nil {
		return err
	}
	fmt.Fprintf(out, "installed: the webhook answers\n\n  kubectl label namespace NAMESPACE %s=%s\n", api.InjectionLabel, api.InjectionEnabled)
	return nil
}

func apply(ctx context.Context, c client.Client, object *unstructured.Unstructured) error {
	return c.Apply(ctx, client.ApplyConfigurationFromUnstructured(object.DeepCopy()), fieldOwner, client.ForceOwnership)
}

// rolledOut returns nil once every pod has the current template and is available.
func rolledOut(ctx context.Context, c client.Client, key types.NamespacedName) error {
	var d appsv1.Deployment
	if err := c.Get(ctx, key, &d); err != nil {
		return fmt.Errorf("read deployment: %w", err)
	}
	wanted := ptr.Deref(d.Spec.Replicas, 1)
	if d.Status.ObservedGeneration == d.Generation && d.Status.UpdatedReplicas == wanted &&
		d.Status.AvailableReplicas == wanted && d.Status.Replicas == wanted {
		return nil
	}
	return fmt.Errorf("deployment %s: %d of %d pods are updated, %d available: kubectl -n %s describe pods",
		key, d.Status.UpdatedReplicas, wanted, d.Status.AvailableReplicas, key.Namespace)
}

// answers tries a pod in a temporary namespace until the webhook gates the pod.
func answers(ctx context.Context, c client.Client) error {
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
		GenerateName: "metaparticle-install-",
		Labels:       map[string]string{api.InjectionLabel: api.InjectionEnabled},
	}}
	if err := c.Create(ctx, namespace); err != nil {
		return fmt.Errorf("make a namespace to try a pod in: %w", err)
	}
	defer func() {
		// The namespace is deleted even after an interrupt.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		_ = c.Delete(ctx, namespace)
	}()
	return setup.AwaitGating(ctx, c, namespace.Name)
}

// whole checks that the webhook configuration still has its matchConditions. The cainjector of an
// old cert-manager writes the configuration back without its matchConditions. Then a stopped
// webhook also blocks unannotated pods.
func whole(ctx context.Context, c client.Client, objects []*unstructured.Unstructured) error {
	for _, object := range ofKind(objects, "MutatingWebhookConfiguration") {
		var there admissionv1.MutatingWebhookConfiguration
		if err := c.Get(ctx, client.ObjectKeyFromObject(object), &there); err != nil {
			return fmt.Errorf("read webhook configuration: %w", err)
		}
		for _, webhook := range there.Webhooks {
			if len(webhook.MatchConditions) == 0 {
				return fmt.Errorf("%s: %w", webhook.Name, errConditionsLost)
			}
		}
	}
	return nil
}
