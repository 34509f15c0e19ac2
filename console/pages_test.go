// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package console

import (
	"log/slog"
	"strconv"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/console/view"
	"github.com/metaparticle-io/metaparticle/listing"
	"github.com/metaparticle-io/metaparticle/listing/listingtest"
)

// huge returns 100 objects of a kind. Two of them have labels of 1.3 MiB.
func huge[T any](about func(*T) *metav1.ObjectMeta) (all []T) {
	for i := range 100 {
		var object T
		meta := about(&object)
		*meta = metav1.ObjectMeta{Namespace: "shop", Name: "lock.a-" + strconv.Itoa(i), Labels: map[string]string{api.ManagedLabel: "true", api.GatedLabel: api.Gated}}
		if i == 40 || i == 41 {
			for n := range 100_000 {
				meta.Labels["a"+strconv.FormatInt(int64(n), 36)] = ""
			}
		}
		all = append(all, object)
	}
	return all
}

// Otherwise the API server would send all objects of a kind at once. A user who may create pods, Events
// or Leases could then fill the memory of the console.
func TestConsoleReadsPagesFromServersWithoutStreams(t *testing.T) {
	server := listingtest.Start(t, map[string]runtime.Object{
		"/apis/coordination.k8s.io/v1/leases": &coordinationv1.LeaseList{Items: huge(func(l *coordinationv1.Lease) *metav1.ObjectMeta { return &l.ObjectMeta })},
		"/api/v1/pods":                        &corev1.PodList{Items: huge(func(p *corev1.Pod) *metav1.ObjectMeta { return &p.ObjectMeta })},
		"/apis/apps/v1/deployments":           &appsv1.DeploymentList{Items: huge(func(d *appsv1.Deployment) *metav1.ObjectMeta { return &d.ObjectMeta })},
		"/apis/apps/v1/statefulsets":          new(appsv1.StatefulSetList),
		"/apis/apps/v1/daemonsets":            new(appsv1.DaemonSetList),
		"/apis/batch/v1/jobs":                 new(batchv1.JobList),
		"/api/v1/events":                      &corev1.EventList{Items: huge(func(e *corev1.Event) *metav1.ObjectMeta { return &e.ObjectMeta })},
	})
	shown := make(chan int, 1)
	w, err := newWatch(&rest.Config{Host: server.URL, QPS: -1}, func(slots []view.Slot, _ string) error {
		select {
		case shown <- len(slots):
		default:
		}
		return nil
	}, func(string) error { return nil }, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	go func() { _ = w.run(t.Context()) }()
	assert.Equal(t, 100, <-shown)
	var pods corev1.PodList
	require.NoError(t, w.cache.List(t.Context(), &pods))
	require.Len(t, pods.Items, 100)
	for _, p := range pods.Items {
		assert.LessOrEqual(t, len(p.Labels), 1, p.Name)
	}
	for _, size := range server.Sizes() {
		assert.LessOrEqual(t, size, listing.PerPage)
	}
	assert.Contains(t, server.Sizes(), listing.PerPage/2, "a page with two huge objects is read in smaller parts")
}

// The caches strip the objects of a page once more.
func TestObjectsStrippedForTheConsoleStayTheSame(t *testing.T) {
	s := whole()
	var all []runtime.Object
	for _, l := range s.Leases {
		all = append(all, l)
	}
	for _, p := range s.Pods {
		all = append(all, p)
	}
	for _, e := range s.Events {
		all = append(all, e)
	}
	for _, w := range s.Workloads {
		all = append(all, w)
	}
	for _, object := range all {
		once := stripped(t, object)
		want := once.DeepCopyObject()
		assert.Equal(t, want, stripped(t, once))
	}
}
