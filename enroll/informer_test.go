// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package enroll

import (
	"maps"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
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
)

// oldServer answers as an API server of Kubernetes 1.33, which streams no lists, and ignores the limit
// of a list from its watch cache.
type oldServer struct {
	t           *testing.T
	deployments []appsv1.Deployment

	mu sync.Mutex
	// sizes are the numbers of objects in the answers.
	sizes []int
	// The field "streams" counts the requests for a stream.
	streams int
}

// ServeHTTP implements [http.Handler].
func (s *oldServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	w.Header().Set("Content-Type", "application/json")
	switch {
	case query.Get("sendInitialEvents") != "":
		s.mu.Lock()
		s.streams++
		s.mu.Unlock()
		w.WriteHeader(http.StatusUnprocessableEntity)
		return
	case query.Get("watch") != "":
		w.WriteHeader(http.StatusOK)
		assert.NoError(s.t, http.NewResponseController(w).Flush())
		<-r.Context().Done()
		return
	}
	from, _ := strconv.Atoi(query.Get("continue"))
	to := len(s.deployments)
	if limit, _ := strconv.Atoi(query.Get("limit")); limit > 0 && query.Get("resourceVersion") != "0" {
		to = min(from+limit, to)
	}
	list := appsv1.DeploymentList{TypeMeta: metav1.TypeMeta{APIVersion: "apps/v1", Kind: "DeploymentList"}, Items: s.deployments[from:to]}
	list.ResourceVersion = "7"
	if to < len(s.deployments) {
		list.Continue = strconv.Itoa(to)
	}
	raw, err := runtime.Encode(scheme.Codecs.LegacyCodec(appsv1.SchemeGroupVersion), &list)
	assert.NoError(s.t, err)
	s.mu.Lock()
	s.sizes = append(s.sizes, to-from)
	s.mu.Unlock()
	_, _ = w.Write(raw) // enroll hangs up on a page that is too large
}

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
	server := &oldServer{t: t, deployments: deployments()}
	host := httptest.NewServer(server)
	t.Cleanup(host.Close)
	config := &rest.Config{Host: host.URL, QPS: -1}
	config.Wrap(BoundPages)
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
	server.mu.Lock()
	defer server.mu.Unlock()
	assert.Equal(t, 1, server.streams, "a stream costs the API server less")
	assert.Equal(t, objectsPerPage, server.sizes[0])
	assert.NotContains(t, server.sizes, 100)
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
