// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"slices"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metaparticle-io/metaparticle/setup"
)

// definition is the kind of the object that defines Variables. The deletion of that object would
// delete all Variables.
const definition = "CustomResourceDefinition"

// uninstall deletes all installed objects except the definition of Variables. uninstall also
// deletes, by [setup.RemoveMade], the objects that enroll made. The order of the deletions makes
// sure that no gated pod loses its Lease.
func uninstall(ctx context.Context, c client.Client, objects []*unstructured.Unstructured, out io.Writer) error {
	// The webhook configuration is emptied, and then deleted, before all other objects. From here on
	// a policy refuses pods that claim, because nothing gates them. If gated pods exist, Disarm
	// restores the configuration, even after an interrupt.
	for _, object := range ofKind(objects, "MutatingWebhookConfiguration") {
		if err := setup.Disarm(ctx, c, object.GetName(), out); err != nil {
			return err
		}
		if err := setup.Remove(ctx, c, object); err != nil {
			return err
		}
	}
	// Then enroll has to end, because enroll would create deleted Leases again. Afterwards the
	// policies are deleted, because one of them refuses the deletion of held Leases.
	if err := removeKinds(ctx, c, objects, "Deployment"); err != nil {
		return err
	}
	if err := noWebhookPods(ctx, c, objects); err != nil {
		return err
	}
	if err := setup.RefuseUsed(ctx, c, out); err != nil {
		return err
	}
	if err := removeKinds(ctx, c, objects, "ValidatingAdmissionPolicyBinding", "ValidatingAdmissionPolicy"); err != nil {
		return err
	}
	made, err := setup.RemoveMade(ctx, c, out)
	if err != nil {
		return err
	}
	for _, object := range slices.Backward(objects) {
		if object.GetKind() == definition {
			continue
		}
		if err := setup.Remove(ctx, c, object); err != nil {
			return err
		}
	}
	fmt.Fprintf(out, "uninstalled; deleted %d Leases, Roles and bindings. Labels on namespaces and annotations on workloads are yours and stay, and so do Leases with done keys (metaparticle.io/done), and all Variables with their definition.\n", made)
	return nil
}

func ofKind(objects []*unstructured.Unstructured, kinds ...string) []*unstructured.Unstructured {
	return slices.DeleteFunc(slices.Clone(objects), func(o *unstructured.Unstructured) bool {
		return !slices.Contains(kinds, o.GetKind())
	})
}

func removeKinds(ctx context.Context, c client.Client, objects []*unstructured.Unstructured, kinds ...string) error {
	for _, object := range ofKind(objects, kinds...) {
		if err := setup.Remove(ctx, c, object); err != nil {
			return err
		}
	}
	return nil
}

// noWebhookPods waits until the webhook's pods have ended.
func noWebhookPods(ctx context.Context, c client.Client, objects []*unstructured.Unstructured) error {
	for _, object := range ofKind(objects, "Deployment") {
		selector, _, err := unstructured.NestedStringMap(object.Object, "spec", "selector", "matchLabels")
		if err != nil {
			return fmt.Errorf("selector of %s: %w", object.GetName(), err)
		}
		if err := setup.AwaitNoPods(ctx, c, object.GetNamespace(), selector); err != nil {
			return err
		}
	}
	return nil
}
