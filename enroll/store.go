// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package enroll

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/enroll/step"
	"github.com/metaparticle-io/metaparticle/listing"
)

// managed is the value of the label on each object that enroll makes.
const managed = "true"

// store reads and writes the objects of a namespace, and decides nothing.
type store struct {
	// client writes. Its reads come from the cache, which may be stale.
	client client.Client
	// reader reads from the API server. The pager reads its lists.
	reader client.Reader
	pager  *listing.Pager
}

// leases reads the cache, and returns the Leases that enroll made, by name.
func (s store) leases(ctx context.Context, namespace string) (map[string]*step.Lease, error) {
	var list coordinationv1.LeaseList
	err := s.client.List(ctx, &list, client.InNamespace(namespace), client.HasLabels{api.ManagedLabel}, client.UnsafeDisableDeepCopy)
	if err != nil {
		return nil, fmt.Errorf("list leases: %w", err)
	}
	leases := make(map[string]*step.Lease, len(list.Items))
	for i := range list.Items {
		if lease := &list.Items[i]; ours(lease) {
			leases[lease.Name] = seenLease(lease)
		}
	}
	return leases, nil
}

// seenLease returns what the decisions need of a Lease.
func seenLease(lease *coordinationv1.Lease) *step.Lease {
	return &step.Lease{
		Name: lease.Name, UID: string(lease.UID), Version: lease.ResourceVersion, Holder: holder(lease),
		Duration:    time.Duration(ptr.Deref(lease.Spec.LeaseDurationSeconds, 0)) * time.Second,
		Renewed:     ptr.Deref(lease.Spec.RenewTime, metav1.MicroTime{}).Time,
		Annotations: lease.Annotations, Owned: len(lease.OwnerReferences) > 0,
	}
}

// bindings reads the cache, and returns the RoleBindings that enroll made.
func (s store) bindings(ctx context.Context, namespace string) ([]rbacv1.RoleBinding, error) {
	var list rbacv1.RoleBindingList
	err := s.client.List(ctx, &list, client.InNamespace(namespace), client.HasLabels{api.ManagedLabel}, client.UnsafeDisableDeepCopy)
	if err != nil {
		return nil, fmt.Errorf("list role bindings: %w", err)
	}
	return list.Items, nil
}

// cachedRoles reads the cache, and returns the Roles that enroll made.
func (s store) cachedRoles(ctx context.Context, namespace string) (*agentRoles, error) {
	var list rbacv1.RoleList
	err := s.client.List(ctx, &list, client.InNamespace(namespace), client.HasLabels{api.ManagedLabel}, client.UnsafeDisableDeepCopy)
	if err != nil {
		return nil, fmt.Errorf("list roles: %w", err)
	}
	return rolesOf(list.Items), nil
}

// rolesOf decodes the memories of Roles.
func rolesOf(list []rbacv1.Role) *agentRoles {
	roles := &agentRoles{objects: map[string]*rbacv1.Role{}, singles: map[string]*singleRole{}}
	for i := range list {
		role := &list[i]
		if step.IsSingle(role.Name) {
			roles.singles[role.Name] = &singleRole{role: role}
			continue
		}
		memories := remembered(role)
		roles.objects[role.Name] = role
		roles.Add(&step.Role{
			Name: role.Name, Key: step.KeyOf(role.Name), Memories: memories, Sound: reflect.DeepEqual(role.Rules, rules(memories)),
		})
	}
	return roles
}

// lease reads a Lease from the API server.
func (s store) lease(ctx context.Context, namespace, slot string) (*coordinationv1.Lease, error) {
	lease := new(coordinationv1.Lease)
	if err := s.reader.Get(ctx, types.NamespacedName{Namespace: namespace, Name: slot}, lease); err != nil {
		return nil, fmt.Errorf("read lease %s: %w", slot, err)
	}
	return lease, nil
}

// newLease returns a decided Lease as the API server takes it.
func newLease(namespace string, of step.Lease, now time.Time) *coordinationv1.Lease {
	at := metav1.NewMicroTime(now)
	return &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: namespace,
			Name:      of.Name,
			Labels:    map[string]string{api.ManagedLabel: managed},
		},
		Spec: coordinationv1.LeaseSpec{
			HolderIdentity:       new(of.Holder),
			LeaseDurationSeconds: new(step.Seconds(of.Duration)),
			AcquireTime:          &at,
			RenewTime:            &at,
			LeaseTransitions:     new(int32),
		},
	}
}

// createLease creates the Lease. If the Lease exists already, createLease reads the Lease.
func (s store) createLease(ctx context.Context, lease *coordinationv1.Lease) (*coordinationv1.Lease, error) {
	err := s.client.Create(ctx, lease)
	if apierrors.IsAlreadyExists(err) {
		return s.lease(ctx, lease.Namespace, lease.Name)
	}
	if err != nil {
		return nil, fmt.Errorf("create lease %s: %w", lease.Name, err)
	}
	return lease, nil
}

// requireAbsent fails if enroll's Lease for the slot exists in the API server, although the
// cache lacks the Lease. A Lease that enroll did not make counts as absent, and stays.
func (s store) requireAbsent(ctx context.Context, namespace, slot string) error {
	lease, err := s.lease(ctx, namespace, slot)
	if err == nil && ours(lease) {
		return errAgain
	}
	return client.IgnoreNotFound(err)
}

// createVariable creates a Variable without a value, unless it exists. The first write by any
// program decides whether the Variable is a text or an integer. The Variable has no label of
// enroll, because enroll never deletes it.
func createVariable(ctx context.Context, s store, namespace, name string) error {
	err := s.client.Create(ctx, &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": api.VariableGroup + "/" + api.VariableVersion,
		"kind":       api.VariableKind,
		"metadata":   map[string]any{"namespace": namespace, "name": name},
		"spec":       map[string]any{},
	}})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("create variable %s: %w", name, err)
	}
	return nil
}

// writeRole creates or updates a Role.
func (s store) writeRole(ctx context.Context, role *rbacv1.Role) error {
	if role.UID != "" {
		return s.client.Update(ctx, role)
	}
	err := s.client.Create(ctx, role)
	if !apierrors.IsAlreadyExists(err) {
		return err
	}
	var there rbacv1.Role
	if s.reader.Get(ctx, client.ObjectKeyFromObject(role), &there) == nil && there.Labels[api.ManagedLabel] == "" {
		return fmt.Errorf("role %s: %w", role.Name, ErrForeign)
	}
	return err
}

func holder(lease *coordinationv1.Lease) string { return ptr.Deref(lease.Spec.HolderIdentity, "") }

// ours reports whether enroll made the Lease.
func ours(lease *coordinationv1.Lease) bool { return lease.Labels[api.ManagedLabel] == managed }

// deleteSeen deletes a Lease, unless it has changed since the snapshot.
func (s store) deleteSeen(ctx context.Context, namespace string, lease *step.Lease) error {
	of := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{
		Namespace: namespace, Name: lease.Name, UID: types.UID(lease.UID), ResourceVersion: lease.Version,
	}}
	return s.client.Delete(ctx, of, unchanged(of))
}

// unchanged restricts a deletion to the version of the object that enroll read.
func unchanged(object client.Object) client.Preconditions {
	return client.Preconditions{
		UID:             new(object.GetUID()),
		ResourceVersion: new(object.GetResourceVersion()),
	}
}

// eachPage lists objects of the API server page by page; all pages show the same instant. The function
// empties the list after each call of visit. So no field of an earlier object stays, and no page stays
// in memory. If a page is too large, eachPage asks for half as many objects.
func eachPage(ctx context.Context, s store, list client.ObjectList, visit func(), options ...client.ListOption) error {
	return s.pager.Each(ctx, func(ctx context.Context, limit int64, token string) (next string, err error) {
		page := append(slices.Clip(options), client.Limit(limit), client.Continue(token))
		if err := s.reader.List(ctx, list, page...); err != nil {
			return "", err
		}
		visit()
		next = list.GetContinue()
		list.SetContinue("")
		return next, meta.SetList(list, nil)
	})
}

// liveShards reads from the API server, not from the cache, and returns the Leases of shards that
// enroll made. Of each Lease, only that stays in memory which the cache would keep. Any user who may
// create Leases can make very many huge Leases.
func liveShards(ctx context.Context, s store, namespace string) (map[string]*step.Lease, error) {
	leases := map[string]*step.Lease{}
	var list coordinationv1.LeaseList
	err := eachPage(ctx, s, &list, func() {
		for _, lease := range list.Items {
			if _, _, shard := api.ReadShard(lease.Name); shard && ours(&lease) {
				stripLease(&lease)
				leases[lease.Name] = seenLease(&lease)
			}
		}
	}, client.InNamespace(namespace), client.HasLabels{api.ManagedLabel})
	if err != nil {
		return nil, fmt.Errorf("list leases: %w", err)
	}
	return leases, nil
}

// liveRoles reads from the API server, not from the cache, and returns the Roles that enroll made.
// Of each Role, only that stays in memory which the cache would keep.
func (s store) liveRoles(ctx context.Context, namespace string) (*agentRoles, error) {
	var list rbacv1.RoleList
	var all []rbacv1.Role
	err := eachPage(ctx, s, &list, func() {
		for _, role := range list.Items {
			role.ManagedFields = nil
			if stripRole(&role); role.Name != "" {
				all = append(all, role)
			}
		}
	}, client.InNamespace(namespace), client.HasLabels{api.ManagedLabel})
	if err != nil {
		return nil, fmt.Errorf("list roles: %w", err)
	}
	return rolesOf(all), nil
}

// cachedPods calls the function "visit" with each gated pod in the cache.
func (s store) cachedPods(ctx context.Context, namespace string, visit func(*corev1.Pod)) error {
	var pods corev1.PodList
	selected, err := gatedIn(namespace)
	if err == nil {
		err = s.client.List(ctx, &pods, append(selected, client.UnsafeDisableDeepCopy)...)
	}
	if err != nil {
		return fmt.Errorf("list gated pods: %w", err)
	}
	for i := range pods.Items {
		visit(&pods.Items[i])
	}
	return nil
}

// livePods lists all gated pods consistently, and returns their claims, whether or not the
// namespace is opted in.
func (s store) livePods(ctx context.Context, namespace string) (step.Claims, error) {
	wanted := claims{Claims: step.Claims{}} // without the pods, which may be huge
	var pods corev1.PodList
	selected, err := gatedIn(namespace)
	if err == nil {
		err = eachPage(ctx, s, &pods, func() {
			for i := range pods.Items {
				wanted.addPod(&pods.Items[i], true)
				wanted.addBarriers(&pods.Items[i])
			}
		}, selected...)
	}
	if err != nil {
		return nil, fmt.Errorf("list gated pods: %w", err)
	}
	return wanted.Claims, nil
}

func gatedIn(namespace string) ([]client.ListOption, error) {
	gated, err := gatedPods()
	return []client.ListOption{client.InNamespace(namespace), client.MatchingLabelsSelector{Selector: gated}}, err
}

// gatedPods returns a selector for the pods that claim, and for the pods that only have conditions
// or a barrier.
func gatedPods() (labels.Selector, error) {
	gated, err := labels.NewRequirement(api.GatedLabel, selection.In, []string{api.Gated, api.GatedAfter})
	if err != nil {
		return nil, fmt.Errorf("select gated pods: %w", err)
	}
	return labels.NewSelector().Add(*gated), nil
}

// selectUngated reports for each selector whether it selects a pod that claims and has no gate. The
// function keeps no labels, because a pod may have megabytes of them.
func (s store) selectUngated(ctx context.Context, namespace string, selectors []labels.Selector) (selected []bool, err error) {
	without, err := labels.NewRequirement(api.GatedLabel, selection.DoesNotExist, nil)
	if err != nil {
		return nil, fmt.Errorf("select pods without a gate: %w", err)
	}
	var pods metav1.PartialObjectMetadataList
	pods.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("PodList"))
	selected = make([]bool, len(selectors))
	err = eachPage(ctx, s, &pods, func() {
		for i := range pods.Items {
			if claiming(pods.Items[i].Annotations) {
				for j, selector := range selectors {
					selected[j] = selected[j] || selector.Matches(labels.Set(pods.Items[i].Labels))
				}
			}
		}
	}, client.InNamespace(namespace), client.MatchingLabelsSelector{Selector: labels.NewSelector().Add(*without)})
	if err != nil {
		return nil, fmt.Errorf("list pods without a gate: %w", err)
	}
	return selected, nil
}
