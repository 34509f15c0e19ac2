// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metaparticle-io/metaparticle/api"
)

// errGated means that nothing is deleted, because gated pods would lose their Leases.
var errGated = errors.New("gated pods exist; take the annotation off their workloads, or delete them, first")

// definition is the kind of the definition of Variables. Its deletion would delete all Variables.
const definition = "CustomResourceDefinition"

// goneTimeout bounds the deletion of one object. A namespace takes the longest.
const goneTimeout = time.Minute

// uninstall deletes all installed objects and all objects that enroll made. The
// order makes sure that no gated pod loses its Lease.
func uninstall(ctx context.Context, c client.Client, objects []*unstructured.Unstructured, out io.Writer) error {
	if err := refuseGated(ctx, c, out); err != nil {
		return err
	}
	// The webhook configuration is deleted first. From here on a policy refuses pods
	// that claim, because nothing gates them.
	for _, object := range ofKind(objects, "MutatingWebhookConfiguration") {
		if err := remove(ctx, c, object); err != nil {
			return err
		}
	}
	// A pod may have been gated before the configuration was gone, so the check is repeated.
	if err := refuseGated(ctx, c, out); err != nil {
		for _, object := range ofKind(objects, "MutatingWebhookConfiguration") {
			err = errors.Join(err, apply(ctx, c, object))
		}
		return err
	}
	// Then enroll has to end, because it would create deleted Leases again. After enroll, the
	// policies are deleted, because one of them refuses the deletion of held Leases.
	if err := removeKinds(ctx, c, objects, "Deployment"); err != nil {
		return err
	}
	if err := noWebhookPods(ctx, c, objects); err != nil {
		return err
	}
	if err := removeKinds(ctx, c, objects, "ValidatingAdmissionPolicyBinding", "ValidatingAdmissionPolicy"); err != nil {
		return err
	}
	made, err := removeMade(ctx, c)
	if err != nil {
		return err
	}
	for _, object := range slices.Backward(objects) {
		if object.GetKind() == definition {
			continue
		}
		if err := remove(ctx, c, object); err != nil {
			return err
		}
	}
	fmt.Fprintf(out, "uninstalled; deleted %d Leases, Roles and bindings. Labels on namespaces and annotations on workloads are yours and stay, and so do Leases with done keys (metaparticle.io/done), and all Variables with their definition.\n", made)
	return nil
}

// refuseGated prints the gated pods that have not ended, and returns an error if there
// are any.
func refuseGated(ctx context.Context, c client.Client, out io.Writer) error {
	var pods corev1.PodList
	if err := c.List(ctx, &pods, client.HasLabels{api.GatedLabel}); err != nil {
		return fmt.Errorf("list gated pods: %w", err)
	}
	alive := slices.DeleteFunc(pods.Items, func(pod corev1.Pod) bool {
		return pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
	})
	if len(alive) == 0 {
		return nil
	}
	for _, pod := range alive {
		fmt.Fprintf(out, "%s/%s\t%s\n", pod.Namespace, pod.Name, cmp.Or(pod.Annotations[api.SlotsAnnotation], pod.Annotations[api.AfterAnnotation], pod.Annotations[api.BarrierAnnotation]))
	}
	return errGated
}

func ofKind(objects []*unstructured.Unstructured, kinds ...string) []*unstructured.Unstructured {
	return slices.DeleteFunc(slices.Clone(objects), func(o *unstructured.Unstructured) bool {
		return !slices.Contains(kinds, o.GetKind())
	})
}

func removeKinds(ctx context.Context, c client.Client, objects []*unstructured.Unstructured, kinds ...string) error {
	for _, object := range ofKind(objects, kinds...) {
		if err := remove(ctx, c, object); err != nil {
			return err
		}
	}
	return nil
}

// remove deletes an object and waits until it is gone.
func remove(ctx context.Context, c client.Client, object client.Object) error {
	ctx, cancel := context.WithTimeout(ctx, goneTimeout)
	defer cancel()
	err := retry(ctx, func() error {
		err := c.Delete(ctx, object.DeepCopyObject().(client.Object), client.PropagationPolicy("Background"))
		if apierrors.IsNotFound(err) || meta.IsNoMatchError(err) {
			return nil
		}
		if err != nil {
			return err
		}
		there := new(unstructured.Unstructured)
		there.SetGroupVersionKind(object.GetObjectKind().GroupVersionKind())
		err = c.Get(ctx, client.ObjectKeyFromObject(object), there)
		if err == nil {
			return errors.New("still there")
		}
		return client.IgnoreNotFound(err)
	})
	if err != nil {
		return fmt.Errorf("delete %s %s: %w", strings.ToLower(object.GetObjectKind().GroupVersionKind().Kind), object.GetName(), err)
	}
	return nil
}

// noWebhookPods waits until the webhook's pods have ended.
func noWebhookPods(ctx context.Context, c client.Client, objects []*unstructured.Unstructured) error {
	ctx, cancel := context.WithTimeout(ctx, goneTimeout)
	defer cancel()
	for _, object := range ofKind(objects, "Deployment") {
		selector, _, err := unstructured.NestedStringMap(object.Object, "spec", "selector", "matchLabels")
		if err != nil {
			return fmt.Errorf("selector of %s: %w", object.GetName(), err)
		}
		err = retry(ctx, func() error {
			var pods corev1.PodList
			err := c.List(ctx, &pods, client.InNamespace(object.GetNamespace()), client.MatchingLabels(selector))
			if err == nil && len(pods.Items) > 0 {
				err = fmt.Errorf("pod %s has not ended", pods.Items[0].Name)
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// removeMade deletes the objects that enroll made, in all namespaces, and returns their
// number. A Lease with done keys stays, because after another installation its work must
// not run again. The record of an open barrier stays until the API server deletes its Job. The policy on held Leases may stay in effect for a moment after its
// deletion, so a refused deletion is tried again.
func removeMade(ctx context.Context, c client.Client) (int, error) {
	made := 0
	for _, list := range []client.ObjectList{&rbacv1.RoleBindingList{}, &rbacv1.RoleList{}, &coordinationv1.LeaseList{}} {
		if err := c.List(ctx, list, client.HasLabels{api.ManagedLabel}); err != nil {
			return made, fmt.Errorf("list what enroll made: %w", err)
		}
		items, err := meta.ExtractList(list)
		if err != nil {
			return made, fmt.Errorf("list what enroll made: %w", err)
		}
		for _, item := range items {
			object := item.(client.Object)
			if object.GetAnnotations()[api.DoneAnnotation] != "" {
				continue
			}
			if object.GetAnnotations()[api.OpenedAnnotation] != "" && len(object.GetOwnerReferences()) > 0 {
				continue
			}
			gvk, err := c.GroupVersionKindFor(object)
			if err != nil {
				return made, fmt.Errorf("kind of %s: %w", object.GetName(), err)
			}
			object.GetObjectKind().SetGroupVersionKind(gvk)
			// Without a version, the deletion applies to any state of the object.
			object.SetResourceVersion("")
			if err := remove(ctx, c, object); err != nil {
				return made, err
			}
			made++
		}
	}
	return made, nil
}
