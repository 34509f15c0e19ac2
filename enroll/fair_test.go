// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package enroll

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/scheme"
	clienttesting "k8s.io/client-go/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/listing"
)

// greedy returns a Deployment without pods that claims 256 slots.
func greedy(namespace string, i int) *appsv1.Deployment {
	var claims []string
	for n := range 8 {
		claims = append(claims, fmt.Sprintf("semaphore/h%d-%d=32", i, n))
	}
	d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{
		Namespace: namespace, Name: "h" + strconv.Itoa(i), UID: "u", Annotations: map[string]string{api.LocalAnnotation: strings.Join(claims, ",")},
	}}
	d.Spec.Replicas, d.Spec.Template.Spec.ServiceAccountName = new(int32(0)), "nobody"
	return d
}

// slow returns a client with the objects, whose writes take 5 ms each.
func slow(t *testing.T, objects ...client.Object) (client.Client, client.Reader) {
	tracker := clienttesting.NewObjectTracker(scheme.Scheme, scheme.Codecs.UniversalDecoder())
	server := fake.NewClientBuilder().WithObjectTracker(tracker).WithObjects(objects...).Build()
	var uids atomic.Int64
	return interceptor.NewClient(server, interceptor.Funcs{
		Create: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.CreateOption) error {
			<-time.After(5 * time.Millisecond)
			o.SetUID(types.UID(strconv.FormatInt(uids.Add(1), 10)))
			return c.Create(ctx, o, opts...)
		},
		Update: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.UpdateOption) error {
			<-time.After(5 * time.Millisecond)
			return c.Update(ctx, o, opts...)
		},
		Delete: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.DeleteOption) error {
			<-time.After(5 * time.Millisecond)
			return c.Delete(ctx, o, opts...)
		},
	}), server
}

// Each namespace takes a worker of enroll. So a user with a few namespaces and very many slots could
// stop enroll for all others.
func TestManySlotsNeverDelayOtherNamespacesForLong(t *testing.T) {
	const namespaces, each, slots = maxConcurrent, 3, 256
	synctest.Test(t, func(t *testing.T) {
		var objects []client.Object
		var names []string
		for n := range namespaces {
			names = append(names, "greedy-"+strconv.Itoa(n))
			for i := range each {
				objects = append(objects, greedy(names[n], i))
			}
		}
		for _, name := range append(names, shop) {
			objects = append(objects, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{api.InjectionLabel: api.InjectionEnabled}}})
		}
		c, server := slow(t, append(objects, gated("a", "till", "lock.a"))...)
		r := &Reconciler{Client: c, Reader: server, Now: time.Now}

		// Like the workqueue, the queue gives a namespace with more work its turn behind all others.
		queue := make(chan string, namespaces+1)
		for _, name := range append(names, shop) {
			queue <- name
		}
		began := time.Now()
		var shopTook atomic.Int64
		var left atomic.Int32
		left.Store(namespaces + 1)
		for range maxConcurrent {
			go func() {
				for name := range queue {
					again, err := r.Namespace(t.Context(), name)
					assert.NoError(t, err)
					if name == shop {
						shopTook.Store(int64(time.Since(began)))
					}
					if again > 0 && again <= minRetry {
						queue <- name
					} else if left.Add(-1) == 0 {
						close(queue)
					}
				}
			}()
		}
		<-time.After(time.Hour)
		synctest.Wait()
		assert.Less(t, time.Duration(shopTook.Load()), 5*time.Second)
		for _, name := range names {
			var leases coordinationv1.LeaseList
			require.NoError(t, server.List(t.Context(), &leases, client.InNamespace(name)))
			free := 0
			for _, l := range leases.Items {
				if holder(&l) == "" {
					free++
				}
			}
			assert.Equal(t, each*slots, free, "each slot of %s has its free Lease in the end", name)
		}
	})
}

func TestSweepNeverDelaysOtherNamespacesForLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		workload := greedy(shop, 0)
		namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: shop, Labels: map[string]string{api.InjectionLabel: api.InjectionEnabled}}}
		more := greedy(shop, 1)
		c, server := slow(t, namespace, workload, more)
		r := &Reconciler{Client: c, Reader: server, Now: time.Now}
		settle := func() (calls int) {
			for again := minRetry; again > 0 && again <= minRetry; calls++ {
				began := time.Now()
				var err error
				again, err = r.Namespace(t.Context(), shop)
				require.NoError(t, err)
				assert.Less(t, time.Since(began), 3*patience)
			}
			return calls
		}
		assert.Greater(t, settle(), 1)
		require.NoError(t, c.Delete(t.Context(), workload))
		require.NoError(t, c.Delete(t.Context(), more))
		settle()
		<-time.After(time.Hour)
		assert.Greater(t, settle(), 1)
		var leases coordinationv1.LeaseList
		require.NoError(t, server.List(t.Context(), &leases, client.InNamespace(shop)))
		assert.Empty(t, leases.Items)
	})
}

// The function "busy" returns a namespace that opts in, and Deployments without pods that have this annotation.
// Each Deployment has an account of its own.
func busy(n int, key, value string) []client.Object {
	objects := []client.Object{&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
		Name: shop, Labels: map[string]string{api.InjectionLabel: api.InjectionEnabled},
	}}}
	for i := range n {
		d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{
			Namespace: shop, Name: "d" + strconv.Itoa(i), UID: types.UID(strconv.Itoa(i)), Annotations: map[string]string{key: value},
		}}
		d.Spec.Replicas, d.Spec.Template.Spec.ServiceAccountName = new(int32(0)), "a"+strconv.Itoa(i)
		objects = append(objects, d)
	}
	return objects
}

// settle calls the reconciler until nothing is left to do now, and checks the time of each call. The
// result is the number of calls.
func settle(t *testing.T, r *Reconciler) (calls int) {
	t.Helper()
	for again := minRetry; again > 0 && again <= minRetry; calls++ {
		began := time.Now()
		var err error
		again, err = r.Namespace(t.Context(), shop)
		require.NoError(t, err)
		require.Less(t, time.Since(began), 3*patience)
		require.Less(t, calls, 1000)
	}
	return calls
}

// A user who may create Deployments can name any accounts. Each account has a Role of its own.
func TestManyAccountsNeverDelayOtherNamespacesForLong(t *testing.T) {
	for key, value := range map[string]string{api.AfterAnnotation: "lock.a", api.LocalAnnotation: "variable/a"} {
		t.Run(key, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const accounts = 400
				c, server := slow(t, busy(accounts, key, value)...)
				r := &Reconciler{Client: c, Reader: server, Now: time.Now}
				roles := func() int {
					var list rbacv1.RoleList
					require.NoError(t, server.List(t.Context(), &list))
					return len(list.Items)
				}
				assert.Greater(t, settle(t, r), 1)
				assert.Equal(t, accounts, roles())
				require.NoError(t, server.(client.Client).DeleteAllOf(t.Context(), &appsv1.Deployment{}, client.InNamespace(shop)))
				assert.Greater(t, settle(t, r), 1)
				assert.Zero(t, roles())
			})
		})
	}
}

func TestManyStampsNeverDelayOtherNamespacesForLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, server := slow(t, busy(100, api.ShardsAnnotation, "8")...)
		r := &Reconciler{Client: c, Reader: server, Now: time.Now}
		settle(t, r)
		var workloads appsv1.DeploymentList
		require.NoError(t, server.List(t.Context(), &workloads))
		for _, d := range workloads.Items {
			d.Annotations[api.ShardsAnnotation] = "7"
			require.NoError(t, server.(client.Client).Update(t.Context(), &d))
		}
		assert.Greater(t, settle(t, r), 1)
		for _, d := range workloads.Items {
			lease, err := store{reader: server}.lease(t.Context(), shop, api.ShardLease("shards.deployment."+d.Name, 0))
			require.NoError(t, err)
			assert.Equal(t, 7, stampOf(lease).Count)
			assert.False(t, stampOf(lease).Closed)
		}
	})
}

// orphan returns a RoleBinding without its Role, which a user's finalizer keeps.
func orphan(name string) *rbacv1.RoleBinding {
	return &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: shop, Name: name, Finalizers: []string{"example.com/stays"}, Labels: map[string]string{api.ManagedLabel: managed},
		},
		RoleRef: roleRef("gone"), Subjects: []rbacv1.Subject{subject(shop, "a")},
	}
}

func TestFinalizersOfRoleBindingsNeverDelayOtherNamespaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		objects := busy(0, "", "")
		for i := range 800 {
			objects = append(objects, orphan("b"+strconv.Itoa(i)))
		}
		c, server := slow(t, objects...)
		r := &Reconciler{Client: c, Reader: server, Now: time.Now}
		assert.Greater(t, settle(t, r), 1)
		began := time.Now()
		assert.Equal(t, 1, settle(t, r))
		assert.Zero(t, time.Since(began), "no RoleBinding is deleted twice")
	})
}

// The Role of such a RoleBinding exists, but enroll has not made the Role. So nothing is to be
// deleted, however often enroll looks.
func TestBindingsOfForeignRolesCauseNoHotLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		objects := append(busy(0, "", ""), &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Namespace: shop, Name: "gone"}})
		for i := range 800 {
			objects = append(objects, orphan("b"+strconv.Itoa(i)))
		}
		c, server := slow(t, objects...)
		live := interceptor.NewClient(server.(client.WithWatch), interceptor.Funcs{
			Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, o client.Object, opts ...client.GetOption) error {
				<-time.After(5 * time.Millisecond)
				return c.Get(ctx, key, o, opts...)
			},
		})
		assert.Equal(t, 1, settle(t, &Reconciler{Client: c, Reader: live, Now: time.Now}))
	})
}

// A lost race is repeated within milliseconds, but a finalizer can stay for ever.
func TestFinalizerOfNeededRoleBindingIsNoRace(t *testing.T) {
	deletions := 0
	c := interceptor.NewClient(fake.NewClientBuilder().WithObjects(append(busy(0, "", ""), orphan(PullSecretsRole))...).Build(), interceptor.Funcs{
		Delete: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.DeleteOption) error {
			deletions++
			return c.Delete(ctx, o, opts...)
		},
	})
	r := &Reconciler{Client: c, Reader: c, PullSecrets: types.NamespacedName{Namespace: "metaparticle-system", Name: "webhook"}}
	_, err := r.Namespace(t.Context(), shop)
	require.True(t, raced(err), "%v", err)
	began := deletions
	for range 3 {
		_, err = r.Namespace(t.Context(), shop)
		require.ErrorContains(t, err, "finalizers keep the deleted object")
		assert.False(t, raced(err))
	}
	assert.Equal(t, began, deletions)
}

// Whoever may create pods, Leases or Roles can create many of nearly 1.5 MiB each.
func TestEnrollReadsEachLiveListPageByPage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, server := slow(t, append(busy(1, api.ShardsAnnotation, "4"), gated("a", "till", "lock.a"))...)
		lists := map[string]bool{}
		live := interceptor.NewClient(server.(client.WithWatch), interceptor.Funcs{
			List: func(ctx context.Context, c client.WithWatch, into client.ObjectList, options ...client.ListOption) error {
				var o client.ListOptions
				o.ApplyOptions(options)
				kind := strings.TrimPrefix(fmt.Sprintf("%T", into), "*")
				lists[kind] = true
				assert.EqualValues(t, listing.PerPage, o.Limit, kind)
				return c.List(ctx, into, options...)
			},
		})
		r := &Reconciler{Client: c, Reader: live, Now: time.Now}
		settle(t, r)
		require.NoError(t, c.DeleteAllOf(t.Context(), &corev1.Pod{}, client.InNamespace(shop)))
		settle(t, r)
		<-time.After(time.Hour)
		settle(t, r)
		for _, kind := range []string{"v1.RoleList", "v1.LeaseList", "v1.PodList"} {
			assert.True(t, lists[kind], kind)
		}
	})
}
