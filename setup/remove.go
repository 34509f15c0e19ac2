// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package setup

import (
	"context"
	"errors"
	"fmt"
	"io"
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

// goneTimeout bounds the removal of one object, and of all objects that enroll made. The wait of
// [AwaitNoPods] has the same bound. The removal of a namespace takes the longest.
const goneTimeout = time.Minute

// Remove deletes an object and waits until it is gone.
func Remove(ctx context.Context, c client.Client, object client.Object) error {
	ctx, cancel := context.WithTimeout(ctx, goneTimeout)
	defer cancel()
	err := Retry(ctx, func() error {
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

// AwaitNoPods waits until no pod with these labels exists.
func AwaitNoPods(ctx context.Context, c client.Client, namespace string, labels map[string]string) error {
	ctx, cancel := context.WithTimeout(ctx, goneTimeout)
	defer cancel()
	return Retry(ctx, func() error {
		var pods corev1.PodList
		err := c.List(ctx, &pods, client.InNamespace(namespace), client.MatchingLabels(labels))
		if err == nil && len(pods.Items) > 0 {
			err = fmt.Errorf("pod %s has not ended", pods.Items[0].Name)
		}
		return err
	})
}

// RemoveMade deletes the objects that enroll made, in all namespaces, and returns their number. If
// gated pods exist, RemoveMade deletes nothing and returns [ErrUsed]. The policy on held Leases may
// stay in effect for a moment after its deletion, so RemoveMade repeats a refused deletion.
func RemoveMade(ctx context.Context, c client.Client, out io.Writer) (int, error) {
	if err := RefuseUsed(ctx, c, out); err != nil {
		return 0, err
	}
	var made []client.Object
	for _, list := range []client.ObjectList{&rbacv1.RoleBindingList{}, &rbacv1.RoleList{}, &coordinationv1.LeaseList{}} {
		if err := c.List(ctx, list, client.HasLabels{api.ManagedLabel}); err != nil {
			return 0, fmt.Errorf("list what enroll made: %w", err)
		}
		items, err := meta.ExtractList(list)
		if err != nil {
			return 0, fmt.Errorf("list what enroll made: %w", err)
		}
		for _, item := range items {
			object := item.(client.Object)
			if lease, ok := object.(*coordinationv1.Lease); ok && lasting(lease) {
				continue
			}
			gvk, err := c.GroupVersionKindFor(object)
			if err != nil {
				return 0, fmt.Errorf("kind of %s: %w", object.GetName(), err)
			}
			object.GetObjectKind().SetGroupVersionKind(gvk)
			// Without a resourceVersion, the deletion applies to any state of the object.
			object.SetResourceVersion("")
			made = append(made, object)
		}
	}
	return removeAll(ctx, c, made)
}

// lasting reports whether a Lease stays after the removal. A Lease with done keys stays: even after
// a later installation, the work of these keys must not run again. The record of an open barrier
// stays until the API server deletes the barrier's Job.
func lasting(lease *coordinationv1.Lease) bool {
	opened := lease.Annotations[api.OpenedAnnotation] != "" && len(lease.OwnerReferences) > 0
	return lease.Annotations[api.DoneAnnotation] != "" || opened
}

// removeAll deletes the objects, and waits until they are gone, with one timeout for all objects.
// The first result is the number of deleted objects. A tenant may have given an object a finalizer.
// Such an object does not delay the deletion of the other objects, and the error names that object.
func removeAll(ctx context.Context, c client.Client, objects []client.Object) (int, error) {
	for _, object := range objects {
		// A failed deletion is repeated below.
		_ = c.Delete(ctx, object.DeepCopyObject().(client.Object), client.PropagationPolicy("Background"))
	}
	ctx, cancel := context.WithTimeout(ctx, goneTimeout)
	defer cancel()
	var errs []error
	for _, object := range objects {
		if err := Remove(ctx, c, object); err != nil {
			errs = append(errs, err)
		}
	}
	return len(objects) - len(errs), errors.Join(errs...)
}
