// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package setup

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

// goneTimeout bounds the removal of one object, and of all objects that enroll made. The wait of
// [AwaitNoPods] has the same bound. The removal of a namespace takes the longest.
const goneTimeout = time.Minute

// Remove deletes an object and waits until it is gone.
func Remove(ctx context.Context, c client.Client, object client.Object) error {
	ctx, cancel := context.WithTimeout(ctx, goneTimeout)
	defer cancel()
	if err := Retry(ctx, func() error { return remove(ctx, c, object) }); err != nil {
		return fmt.Errorf("delete %s: %w", named(object), err)
	}
	return nil
}

// remove deletes an object, and returns an error unless the object is gone.
func remove(ctx context.Context, c client.Client, object client.Object) error {
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
		return errThere
	}
	return client.IgnoreNotFound(err)
}

// errThere means that an object exists after its deletion, perhaps because of a finalizer.
var errThere = errors.New("still there")

// named returns the kind and the name of an object.
func named(object client.Object) string {
	return strings.ToLower(object.GetObjectKind().GroupVersionKind().Kind) + " " + object.GetName()
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
// Such an object does not delay the deletion of the other objects, and the error names only the
// objects that are not gone.
func removeAll(ctx context.Context, c client.Client, objects []client.Object) (int, error) {
	for _, object := range objects {
		// A failed deletion is repeated below.
		_ = c.Delete(ctx, object.DeepCopyObject().(client.Object), client.PropagationPolicy("Background"))
	}
	ctx, cancel := context.WithTimeout(ctx, goneTimeout)
	defer cancel()
	left := make([]*remainder, 0, len(objects))
	for _, object := range objects {
		left = append(left, &remainder{object: object})
	}
	if Retry(ctx, func() error {
		left = slices.DeleteFunc(left, func(r *remainder) bool { return r.remove(ctx, c) })
		if len(left) > 0 {
			return errThere
		}
		return nil
	}) == nil {
		return len(objects), nil
	}
	return len(objects) - len(left), undeleted(left)
}

// remainder is an object that is perhaps not gone yet, with the error of the last deletion.
type remainder struct {
	object client.Object
	err    error
}

// remove deletes the object once, and reports whether the object is gone. After the end of ctx, the
// error shows only this end, and must not replace an earlier error.
func (r *remainder) remove(ctx context.Context, c client.Client) bool {
	err := remove(ctx, c, r.object)
	if ctx.Err() == nil || r.err == nil {
		r.err = err
	}
	return err == nil
}

// mostUndeleted is the largest number of objects that an error names. A tenant can give thousands of
// Leases a finalizer.
const mostUndeleted = 5

// undeleted returns an error that names the objects that are not gone. Of many objects, the error
// names some.
func undeleted(left []*remainder) error {
	var errs []error
	for _, r := range left[:min(len(left), mostUndeleted)] {
		errs = append(errs, fmt.Errorf("delete %s: %w, in namespace %s", named(r.object), r.err, r.object.GetNamespace()))
	}
	if more := len(left) - mostUndeleted; more > 0 {
		errs = append(errs, fmt.Errorf("delete %d more: kubectl get leases,roles,rolebindings -A -l %s", more, api.ManagedLabel))
	}
	return errors.Join(errs...)
}

// ErrGated means that a removal has deleted nothing, because gated pods would lose their Leases.
var ErrGated = errors.New("gated pods exist, so nothing was deleted; scale their workloads to 0 (without the claims all replicas run at once), " +
	"wait until the pods are gone, remove the claims, and then uninstall again (" + api.Repository + "docs/operate/uninstall.md#end-the-gated-pods)")

// ErrUsed means that a removal has deleted the webhook, but not the objects that enroll made,
// because gated pods still use these objects.
var ErrUsed = errors.New("gated pods exist, so they keep their Leases, Roles and RoleBindings, and keep running, but the webhook is gone; " +
	"install Metaparticle again, end the gated pods, and then uninstall again (" + api.Repository + "docs/operate/uninstall.md#end-the-gated-pods)")

// latest is the longest time from the end of gating until the API server has stored the last gated
// pod. The API server ends each creation after 34 s (requestTimeoutUpperBound). One more second is
// for the other API servers, which read the emptied configuration from a watch.
const latest = 35 * time.Second

// betweenLooks is the time between two searches for gated pods. A search lists the pods of the
// cluster, so searches are rare.
const betweenLooks = 5 * time.Second

// lastLook is the time for which the last search for gated pods is repeated after a failure.
// The API server may be restarting then, and answers again within a minute.
const lastLook = time.Minute

// maxText bounds the bytes that [refuseGated] prints of each text by the author of a pod.
const maxText = 256

// refuseGated prints the gated pods that have not ended, and returns an error if there
// are any.
func refuseGated(ctx context.Context, c client.Client, out io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
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
		claimed := cmp.Or(pod.Annotations[api.SlotsAnnotation], pod.Annotations[api.AfterAnnotation], pod.Annotations[api.BarrierAnnotation])
		// The author of the pod writes these texts, and a terminal shows them.
		fmt.Fprintf(out, "%s/%s\t%s\n", api.Shortened(pod.Namespace, maxText), api.Shortened(pod.Name, maxText), api.Shortened(claimed, maxText))
	}
	return ErrGated
}

// refuseLate repeats [refuseGated] until no gated pod can appear any more. Call refuseLate after the
// end of gating. The API server may be away during the wait: only the last [refuseGated] must
// succeed.
func refuseLate(ctx context.Context, c client.Client, out io.Writer) error {
	over, again := time.NewTimer(latest), time.NewTicker(betweenLooks)
	defer over.Stop()
	defer again.Stop()
	for waiting := true; waiting; {
		if err := refuseGated(ctx, c, out); errors.Is(err, ErrGated) {
			return err
		}
		select {
		case <-over.C:
			waiting = false
		case <-ctx.Done():
			return fmt.Errorf("wait for pods that were gated last: %w", ctx.Err())
		case <-again.C:
		}
	}
	ctx, cancel := context.WithTimeout(ctx, lastLook)
	defer cancel()
	var found error
	err := Retry(ctx, func() error {
		err := refuseGated(ctx, c, out)
		if errors.Is(err, ErrGated) {
			found = err
			return nil
		}
		return err
	})
	return cmp.Or(found, err)
}

// RefuseUsed prints the gated pods as [refuseGated] does, after the deletion of the webhook. If there
// are any, the error is [ErrUsed].
func RefuseUsed(ctx context.Context, c client.Client, out io.Writer) error {
	err := refuseGated(ctx, c, out)
	if errors.Is(err, ErrGated) {
		return ErrUsed
	}
	return err
}
