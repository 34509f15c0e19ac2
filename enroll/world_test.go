// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package enroll

import (
	"context"
	"errors"
	"fmt"
	"reflect"
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
)

const shop = "shop"

var errCrash = errors.New("the process crashed")

// world is an API server with one namespace, shop, that opted in. It holds
// every write of enroll against the rule that counts: a Lease that some Role
// has named, and that was not swept since, is never freed by enroll.
type world struct {
	t      *testing.T
	server client.WithWatch
	now    time.Time
	events []string

	// writes counts enroll's writes; before, if set, is called ahead of each,
	// and may crash the process or let another one run.
	writes int
	before func(n int) error
	// requests counts what enroll asks of the API server, by verb and kind, and
	// returned the objects that its lists return.
	requests map[string]int
	returned int

	uids  int
	named map[string]bool
}

func newWorld(t *testing.T, objects ...client.Object) *world {
	w := &world{t: t, now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), named: map[string]bool{}, requests: map[string]int{}}
	objects = append(objects, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
		Name: shop, Labels: map[string]string{api.InjectionLabel: api.InjectionEnabled},
	}})
	// The tracker that is the default looks after managed fields, which takes long.
	tracker := clienttesting.NewObjectTracker(scheme.Scheme, scheme.Codecs.UniversalDecoder())
	w.server = fake.NewClientBuilder().WithObjectTracker(tracker).Build()
	for _, object := range objects {
		w.create(object)
	}
	return w
}

// create is somebody else's creation. The fake server gives no uids, and
// begins each object with the same version, which a real one never does.
func (w *world) create(object client.Object) {
	w.t.Helper()
	w.uids++
	object.SetUID(types.UID("uid-" + strconv.Itoa(w.uids)))
	require.NoError(w.t, w.server.Create(w.t.Context(), object))
}

// crashFrom lets the n-th write from now on, and all later ones, fail as those of a
// process that crashed.
func (w *world) crashFrom(n int) {
	w.writes = 0
	w.before = func(write int) error {
		if write >= n {
			return errCrash
		}
		return nil
	}
}

// process is a fresh process of enroll; only the API server is old.
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
				require.Equal(w.t, Unknown, holder(lease), "a Lease was created free")
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
			err := c.Update(ctx, object)
			if lease, ok := object.(*coordinationv1.Lease); ok && err == nil {
				require.Empty(w.t, holder(lease), "enroll wrote a holder")
				require.False(w.t, w.named[lease.Name], "enroll freed %s, which a Role had named", lease.Name)
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
			require.NotNil(w.t, o.Preconditions, "deleted whatever it may be")
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

// cached lists as the manager's cache does: without the objects that [Cache]
// does not select, and through its transforms.
func (w *world) cached(ctx context.Context, list client.ObjectList, options ...client.ListOption) error {
	if err := w.server.List(ctx, list, options...); err != nil {
		return err
	}
	all, err := meta.ExtractList(list)
	require.NoError(w.t, err)
	kept := []runtime.Object{}
	for _, object := range all {
		if in := w.incache(object.(client.Object)); in != nil {
			kept = append(kept, in)
		}
	}
	return meta.SetList(list, kept)
}

func sameKind(a, b client.Object) bool { return reflect.TypeOf(a) == reflect.TypeOf(b) }

// incache returns the object as the cache keeps it, or nil.
func (w *world) incache(object client.Object) client.Object {
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

// reader reads from the API server, and counts.
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

// note remembers which Leases Roles have named.
func (w *world) note(object client.Object, err error) {
	role, ok := object.(*rbacv1.Role)
	if !ok || err != nil {
		return
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

// settle lets a process work until nothing is left to be done at once.
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
	w.t.Fatal("never settles")
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
	role := new(rbacv1.Role)
	err := w.server.Get(w.t.Context(), types.NamespacedName{Namespace: shop, Name: RoleName(account)}, role)
	if apierrors.IsNotFound(err) {
		return nil
	}
	require.NoError(w.t, err)
	return role
}

// bindings are the names of the RoleBindings.
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

// holds is an agent that takes the slot, or renews it.
func (w *world) holds(name, who string) {
	w.t.Helper()
	lease := w.lease(name)
	require.NotNil(w.t, lease)
	lease.Spec.HolderIdentity = &who
	now := metav1.NewMicroTime(w.now)
	lease.Spec.RenewTime = &now
	lease.Spec.LeaseDurationSeconds = new(int32(30))
	require.NoError(w.t, w.server.Update(w.t.Context(), lease))
}

// vanish deletes a Lease behind everybody's back.
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

// gated is a pod as the webhook leaves it.
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
			Containers:         []corev1.Container{{Name: "app", Command: []string{api.AgentBinary, api.ExecRole}}},
		},
	}
}

// agent is the sidecar of a gated pod.
func agent(args ...string) corev1.Container {
	return corev1.Container{Name: api.AgentContainer, Args: args, RestartPolicy: new(corev1.ContainerRestartPolicyAlways)}
}

// marked is a pod with the marks of a gated one and no gate: somebody put them
// there by hand.
func marked(name, account, slots string) *corev1.Pod {
	pod := gated(name, account, slots)
	pod.Spec = corev1.PodSpec{ServiceAccountName: account, Containers: []corev1.Container{{Name: "app"}}}
	return pod
}

func lasting(pod *corev1.Pod, duration string) *corev1.Pod {
	pod.Annotations[api.LeaseDurationAnnotation] = duration
	return pod
}
