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
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/scheme"
	clienttesting "k8s.io/client-go/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/metaparticle-io/metaparticle/api"
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
