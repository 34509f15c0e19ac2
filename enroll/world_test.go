// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package enroll

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/scheme"
	clienttesting "k8s.io/client-go/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/enroll/step"
)

const shop = "shop"

var errCrash = errors.New("the process crashed")

// world is an API server with one opted-in namespace, shop. The world notes the Leases that Roles
// have named, and drops the note if a sweep deletes the Lease. The test fails if enroll removes the
// holder from a noted Lease, unless the Lease has a closed stamp and has expired.
type world struct {
	t      *testing.T
	server client.WithWatch
	now    time.Time
	events []string

	// writes counts enroll's writes. Each write first calls the function "before", if set,
	// which may crash the process or run another process.
	writes int
	before func(n int) error
	// requests counts enroll's requests to the API server, by verb and kind. The field
	// "returned" counts the objects in the lists that the API server returned.
	requests map[string]int
	returned int

	uids  int
	named map[string]bool
	// held has the instants at which agents last wrote the Leases.
	held map[string]time.Time
}

func newWorld(t *testing.T, objects ...client.Object) *world {
	w := &world{t: t, now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), named: map[string]bool{}, held: map[string]time.Time{}, requests: map[string]int{}}
	objects = append(objects, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
		Name: shop, Labels: map[string]string{api.InjectionLabel: api.InjectionEnabled},
	}})
	// The default tracker maintains managed fields, which is slow.
	tracker := clienttesting.NewObjectTracker(scheme.Scheme, scheme.Codecs.UniversalDecoder())
	w.server = fake.NewClientBuilder().WithObjectTracker(tracker).Build()
	for _, object := range objects {
		w.create(object)
	}
	return w
}

// create creates an object on behalf of a user. Unlike a real API server, the fake one sets
// no uid, so the function sets a uid.
func (w *world) create(object client.Object) {
	w.t.Helper()
	w.uids++
	object.SetUID(types.UID("uid-" + strconv.Itoa(w.uids)))
	require.NoError(w.t, w.server.Create(w.t.Context(), object))
}

// crashFrom simulates a crash: the n-th write from now on fails, and so do all later
// ones.
func (w *world) crashFrom(n int) {
	w.writes = 0
	w.before = func(write int) error {
		if write >= n {
			return errCrash
		}
		return nil
	}
}

// process starts a new process of enroll on the same API server.
func (w *world) process() *Reconciler {
	c := interceptor.NewClient(w.server, interceptor.Funcs{
		List: func(ctx context.Context, _ client.WithWatch, list client.ObjectList, options ...client.ListOption) error {
			return w.cached(ctx, list, options...)
		},
		Create: func(ctx context.Context, c client.WithWatch, object client.Object, _ ...client.CreateOption) error {
			if err := w.write("create", object); err != nil {
				return err
			}
			if lease, ok := object.(*coordinationv1.Lease); ok {
				wanted := step.Unknown
				if api.IsNextLease(lease.Name) {
					wanted = "" // a new next Lease has no holder
				}
				require.Equal(w.t, wanted, holder(lease), "enroll created %s", lease.Name)
			}
			w.uids++
			object.SetUID(types.UID("uid-" + strconv.Itoa(w.uids)))
			err := c.Create(ctx, object)
			w.note(object, err)
			return err
		},
		Update: func(ctx context.Context, c client.WithWatch, object client.Object, _ ...client.UpdateOption) error {
			if err := w.write("update", object); err != nil {
				return err
			}
			if err := w.sameUID(ctx, object, object.GetUID()); err != nil {
				return err
			}
			before := w.lease(object.GetName())
			err := c.Update(ctx, object)
			if lease, ok := object.(*coordinationv1.Lease); ok && err == nil {
				w.wrote(before, lease)
			}
			w.note(object, err)
			return err
		},
		Delete: func(ctx context.Context, c client.WithWatch, object client.Object, options ...client.DeleteOption) error {
			if err := w.write("delete", object); err != nil {
				return err
			}
			var o client.DeleteOptions
			o.ApplyOptions(options)
			require.NotNil(w.t, o.Preconditions, "the deletion has no preconditions")
			if err := w.sameUID(ctx, object, *o.Preconditions.UID); err != nil {
				return err
			}
			err := c.Delete(ctx, object, options...)
			if _, ok := object.(*coordinationv1.Lease); ok && err == nil {
				delete(w.named, object.GetName())
			}
			return err
		},
	})
	return &Reconciler{Client: c, Reader: w.reader(), Now: func() time.Time { return w.now }, Events: w}
}

// cached lists objects as the manager's cache does, with the selectors and transforms of [Cache].
func (w *world) cached(ctx context.Context, list client.ObjectList, options ...client.ListOption) error {
	if err := w.server.List(ctx, list, options...); err != nil {
		return err
	}
	all, err := meta.ExtractList(list)
	require.NoError(w.t, err)
	kept := []runtime.Object{}
	for _, object := range all {
		if in := w.inCache(object.(client.Object)); in != nil {
			kept = append(kept, in)
		}
	}
	return meta.SetList(list, kept)
}

func storeOf(r *Reconciler) store { return store{client: r.Client, reader: r.Reader} }

func sameKind(a, b client.Object) bool { return reflect.TypeOf(a) == reflect.TypeOf(b) }

// inCache returns the object as the cache keeps it, or nil if the cache does not keep the object.
func (w *world) inCache(object client.Object) client.Object {
	kinds, err := Cache()
	require.NoError(w.t, err)
	for kind, by := range kinds {
		if !sameKind(kind, object) {
			continue
		}
		if by.Label != nil && !by.Label.Matches(labels.Set(object.GetLabels())) {
			return nil
		}
		kept, err := by.Transform(object)
		require.NoError(w.t, err)
		return kept.(client.Object)
	}
	return object
}

// reader returns a client that reads from the API server. The client counts its requests in the
// world's field "requests".
func (w *world) reader() client.Reader {
	return interceptor.NewClient(w.server, interceptor.Funcs{
		Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, object client.Object, _ ...client.GetOption) error {
			w.count("get", object)
			return c.Get(ctx, key, object)
		},
		List: func(ctx context.Context, c client.WithWatch, list client.ObjectList, options ...client.ListOption) error {
			w.count("list", list)
			err := c.List(ctx, list, options...)
			w.returned += meta.LenList(list)
			return err
		},
	})
}

func (w *world) count(verb string, object any) {
	w.requests[verb+" "+strings.TrimSuffix(reflect.TypeOf(object).Elem().Name(), "List")]++
}

func (w *world) write(verb string, object client.Object) error {
	w.count(verb, object)
	w.writes++
	if w.before != nil {
		return w.before(w.writes)
	}
	return nil
}

// wrote checks a write of enroll to a Lease.
func (w *world) wrote(before, lease *coordinationv1.Lease) {
	if api.IsNextLease(lease.Name) {
		was, is := before.DeepCopy(), lease.DeepCopy()
		delete(was.Annotations, api.AloneAnnotation)
		delete(is.Annotations, api.AloneAnnotation)
		require.Equal(w.t, len(was.Annotations), len(is.Annotations), "enroll keeps what pods say")
		require.Subset(w.t, was.Annotations, is.Annotations, "enroll keeps what pods say")
		require.Equal(w.t, was.Spec, is.Spec, "enroll wrote %s", lease.Name)
		return
	}
	if stampOf(before) != stampOf(lease) {
		require.Equal(w.t, before.Spec, lease.Spec, "a new stamp changes nothing else")
		return
	}
	if holder(before) == api.UnknownPerson {
		require.Equal(w.t, api.UnknownPerson, holder(lease), "enroll freed a person's new Lease")
		require.Greater(w.t, *lease.Spec.LeaseDurationSeconds, *before.Spec.LeaseDurationSeconds)
		return
	}
	require.Empty(w.t, holder(lease), "enroll wrote a holder")
	if w.named[lease.Name] {
		require.True(w.t, stampOf(lease).Closed, "enroll freed %s, which a Role had named", lease.Name)
		require.GreaterOrEqual(w.t, w.now.Sub(w.held[lease.Name]), 30*time.Second, "enroll freed %s, which had not expired", lease.Name)
	}
}

// note records the Leases that Roles have named.
func (w *world) note(object client.Object, err error) {
	role, ok := object.(*rbacv1.Role)
	if !ok || err != nil || step.IsSingle(role.Name) {
		return // an agent cannot hold a Lease by a Role for conditions
	}
	for name := range remembered(role) {
		w.named[name] = true
	}
}

func (w *world) sameUID(ctx context.Context, object client.Object, uid types.UID) error {
	there := object.DeepCopyObject().(client.Object)
	err := w.server.Get(ctx, client.ObjectKeyFromObject(object), there)
	if err == nil && there.GetUID() != uid {
		return apierrors.NewConflict(schema.GroupResource{}, object.GetName(), errors.New("another uid"))
	}
	return err
}

// Eventf implements [Recorder].
func (w *world) Eventf(regarding, _ runtime.Object, _, reason, _, note string, args ...any) {
	w.events = append(w.events, regarding.(client.Object).GetName()+" "+reason+": "+fmt.Sprintf(note, args...))
}

// settle runs a process until it makes no more writes, and returns the time after which the process
// must run again.
func (w *world) settle(r *Reconciler) time.Duration {
	w.t.Helper()
	var err error
	for range 10 {
		writes := w.writes
		var again time.Duration
		again, err = r.Namespace(w.t.Context(), shop)
		if err == nil && w.writes == writes {
			return again
		}
	}
	require.NoError(w.t, err)
	w.t.Fatal("enroll keeps writing")
	return 0
}

func (w *world) lease(name string) *coordinationv1.Lease {
	w.t.Helper()
	lease := new(coordinationv1.Lease)
	err := w.server.Get(w.t.Context(), types.NamespacedName{Namespace: shop, Name: name}, lease)
	if apierrors.IsNotFound(err) {
		return nil
	}
	require.NoError(w.t, err)
	return lease
}

func (w *world) role(account string) *rbacv1.Role {
	w.t.Helper()
	return w.roleNamed(RoleName(account))
}

func (w *world) roleNamed(name string) *rbacv1.Role {
	w.t.Helper()
	role := new(rbacv1.Role)
	err := w.server.Get(w.t.Context(), types.NamespacedName{Namespace: shop, Name: name}, role)
	if apierrors.IsNotFound(err) {
		return nil
	}
	require.NoError(w.t, err)
	return role
}

// bindings returns the names of the RoleBindings.
func (w *world) bindings() []string {
	w.t.Helper()
	var list rbacv1.RoleBindingList
	require.NoError(w.t, w.server.List(w.t.Context(), &list, client.InNamespace(shop)))
	names := []string{}
	for _, b := range list.Items {
		names = append(names, b.Name)
	}
	return names
}

// holds writes the given holder into the Lease, as an agent does when it acquires or renews.
func (w *world) holds(name, who string) {
	w.t.Helper()
	lease := w.lease(name)
	require.NotNil(w.t, lease)
	lease.Spec.HolderIdentity = &who
	now := metav1.NewMicroTime(w.now)
	lease.Spec.RenewTime = &now
	lease.Spec.LeaseDurationSeconds = new(int32(30))
	w.held[name] = w.now
	require.NoError(w.t, w.server.Update(w.t.Context(), lease))
}

// withNext returns the slots and their next Leases, as a Role names them.
func withNext(slots ...string) []string {
	names := slices.Clone(slots)
	for _, slot := range slots {
		names = append(names, api.NextLease(slot))
	}
	return names
}

// vanish deletes a Lease without any of the precautions of enroll.
func (w *world) vanish(name string) {
	w.t.Helper()
	lease := w.lease(name)
	require.NotNil(w.t, lease)
	require.NoError(w.t, w.server.Delete(w.t.Context(), lease))
}

func (w *world) remove(object client.Object) {
	w.t.Helper()
	require.NoError(w.t, w.server.Delete(w.t.Context(), object))
}

func (w *world) optOut() {
	w.t.Helper()
	var namespace corev1.Namespace
	require.NoError(w.t, w.server.Get(w.t.Context(), types.NamespacedName{Name: shop}, &namespace))
	namespace.Labels = nil
	require.NoError(w.t, w.server.Update(w.t.Context(), &namespace))
}

// gated returns an injected pod.
func gated(name, account, slots string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace:   shop,
			Name:        name,
			Labels:      map[string]string{api.GatedLabel: api.Gated},
			Annotations: map[string]string{api.SlotsAnnotation: slots},
		},
		Spec: corev1.PodSpec{
			ServiceAccountName: account,
			InitContainers:     []corev1.Container{agent()},
			Containers:         []corev1.Container{{Name: "app", Command: []string{api.ShimProgram, api.ExecRole}}},
		},
	}
}

// agent returns the sidecar of a gated pod.
func agent(args ...string) corev1.Container {
	return corev1.Container{Name: api.AgentContainer, Args: args, RestartPolicy: new(corev1.ContainerRestartPolicyAlways)}
}

// marked returns a pod without a gate, on which a user has set a gated pod's marks by
// hand.
func marked(name, account, slots string) *corev1.Pod {
	pod := gated(name, account, slots)
	pod.Spec = corev1.PodSpec{ServiceAccountName: account, Containers: []corev1.Container{{Name: "app"}}}
	return pod
}

func lasting(pod *corev1.Pod, duration string) *corev1.Pod {
	pod.Annotations[api.LeaseDurationAnnotation] = duration
	return pod
}
