// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package enroll

import (
	"maps"
	"strconv"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/listing"
	"github.com/metaparticle-io/metaparticle/listing/listingtest"
)

// deployments returns small Deployments, and two of them with labels of 1.3 MiB in the template.
func deployments() (all []appsv1.Deployment) {
	for i := range 100 {
		d := appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: "d-" + strconv.Itoa(i), Namespace: shop}}
		d.Annotations = map[string]string{api.SlotsAnnotation: "lock.a"}
		if i == 40 || i == 41 {
			d.Spec.Template.Labels = full("p").Labels
		}
		all = append(all, d)
	}
	return all
}

// A user who may create Deployments could otherwise fill the memory of enroll, because the API server
// sends all Deployments of the cluster at once.
func TestInformersReadPagesFromServersWithoutStreams(t *testing.T) {
	server := listingtest.Start(t, map[string]runtime.Object{"/apis/apps/v1/deployments": &appsv1.DeploymentList{Items: deployments()}})
	config := &rest.Config{Host: server.URL, QPS: -1}
	config.Wrap(listing.BoundPages)
	mapper := meta.NewDefaultRESTMapper(nil)
	mapper.Add(appsv1.SchemeGroupVersion.WithKind("Deployment"), meta.RESTScopeNamespace)
	kinds, err := Cache()
	require.NoError(t, err)
	maps.DeleteFunc(kinds, func(kind client.Object, _ cache.ByObject) bool { _, is := kind.(*appsv1.Deployment); return !is })
	objects, err := cache.New(config, cache.Options{Scheme: scheme.Scheme, Mapper: mapper, ByObject: kinds, NewInformer: NewInformer})
	require.NoError(t, err)
	_, err = objects.GetInformer(t.Context(), &appsv1.Deployment{}, cache.BlockUntilSynced(false))
	require.NoError(t, err)
	go func() { _ = objects.Start(t.Context()) }()
	require.True(t, objects.WaitForCacheSync(t.Context()))
	var kept appsv1.DeploymentList
	require.NoError(t, objects.List(t.Context(), &kept))
	assert.Len(t, kept.Items, 100)
	for _, d := range kept.Items {
		assert.NotEmpty(t, d.Annotations, d.Name)
		assert.Less(t, len(d.Spec.Template.Labels), 10_000, d.Name)
	}
	assert.Equal(t, 1, server.Streams(), "a stream costs the API server less")
	assert.Equal(t, listing.PerPage, server.Sizes()[0])
	assert.NotContains(t, server.Sizes(), 100)
}

// The cache strips the objects of a page once more.
func TestStrippedObjectsStayTheSame(t *testing.T) {
	for _, object := range []runtime.Object{new(full("p")), new(deployments()[40]), &corev1.Namespace{}} {
		once, err := strip(object)
		require.NoError(t, err)
		want := once.(runtime.Object).DeepCopyObject()
		twice, err := strip(once)
		require.NoError(t, err)
		assert.Equal(t, want, twice)
	}
}
