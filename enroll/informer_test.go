// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package enroll

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	goruntime "runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/meta/testrestmapper"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/enroll/step"
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
	spoken := full("q")
	spoken.Status.Conditions = []corev1.PodCondition{{Type: api.ReadyCondition}}
	for _, object := range []runtime.Object{new(full("p")), &spoken, new(deployments()[40]), &corev1.Namespace{}} {
		once, err := strip(object)
		require.NoError(t, err)
		want := once.(runtime.Object).DeepCopyObject()
		twice, err := strip(once)
		require.NoError(t, err)
		assert.Equal(t, want, twice)
	}
}

// full returns a gated pod of nearly 1.5 MiB. Decoded, its labels take ten times as much memory.
func full(name string) corev1.Pod {
	pod := *gated(name, "till", "lock."+name)
	for i := range 100_000 {
		pod.Labels["a"+strconv.FormatInt(int64(i), 36)] = ""
	}
	return pod
}

// paged returns a reader of pods, and the API server that answers the reader.
func paged(t *testing.T, pods []corev1.Pod) (client.Reader, *listingtest.Server) {
	t.Helper()
	server := listingtest.Start(t, map[string]runtime.Object{"/api/v1/namespaces/" + shop + "/pods": &corev1.PodList{Items: pods}})
	config := &rest.Config{Host: server.URL, QPS: -1}
	config.Wrap(listing.BoundPages)
	mapper := meta.NewDefaultRESTMapper(nil)
	mapper.Add(corev1.SchemeGroupVersion.WithKind("Pod"), meta.RESTScopeNamespace)
	reader, err := client.New(config, client.Options{Scheme: scheme.Scheme, Mapper: mapper})
	require.NoError(t, err)
	return reader, server
}

// 32 pods of 1.3 MiB take 330 MiB of memory, which is most of the webhook's memory limit.
func TestPageOfHugePodsIsNeverDecoded(t *testing.T) {
	var pods []corev1.Pod
	for i := range 6 {
		pods = append(pods, full("huge-"+strconv.Itoa(i)))
	}
	reader, server := paged(t, pods)
	decoded := 0
	var list corev1.PodList
	require.NoError(t, eachPage(t.Context(), store{reader: reader, pager: process}, &list, func() {
		decoded = max(decoded, len(list.Items))
	}, client.InNamespace(shop)))
	assert.Equal(t, 1, decoded, "%v", server.Sizes())
}

func TestListWithHugePodsStaysComplete(t *testing.T) {
	var pods []corev1.Pod
	for i := range 100 {
		pods = append(pods, *gated("pod-"+strconv.Itoa(i), "till", "lock.pod-"+strconv.Itoa(i)))
	}
	pods[40], pods[41] = full("pod-40"), full("pod-41")
	reader, server := paged(t, pods)
	live, err := store{reader: reader}.livePods(t.Context(), shop)
	require.NoError(t, err)
	assert.Len(t, live, 100)
	assert.Equal(t, listing.PerPage, server.Sizes()[0])
	assert.Contains(t, live, "lock.pod-41", api.SlotsAnnotation)
}

// labelled lists pods without a gate, of about ten megabytes of labels each. The field "most" is the
// largest heap before a page.
type labelled struct {
	client.Reader
	pods int
	most uint64
}

// List implements [client.Reader].
func (l *labelled) List(_ context.Context, list client.ObjectList, options ...client.ListOption) error {
	goruntime.GC()
	var m goruntime.MemStats
	goruntime.ReadMemStats(&m)
	l.most = max(l.most, m.HeapAlloc)
	asked := (&client.ListOptions{}).ApplyOptions(options)
	from, _ := strconv.Atoi(asked.Continue)
	pod := full("p" + asked.Continue)
	pod.Annotations = map[string]string{api.LockAnnotation: "a"}
	list.(*metav1.PartialObjectMetadataList).Items = []metav1.PartialObjectMetadata{{ObjectMeta: pod.ObjectMeta}}
	if from+1 < l.pods {
		list.SetContinue(strconv.Itoa(from + 1))
	}
	return nil
}

func TestLabelsOfUngatedPodsTakeLittleMemory(t *testing.T) {
	reader := &labelled{pods: 20}
	w := workload{object: &appsv1.Deployment{}, template: &corev1.PodTemplateSpec{}, selector: &metav1.LabelSelector{MatchLabels: map[string]string{"a1": ""}}}
	w.template.Annotations = map[string]string{api.LockAnnotation: "a"}
	ungated, err := store{reader: reader}.ungatedWorkloads(t.Context(), shop, []workload{w})
	require.NoError(t, err)
	assert.Len(t, ungated, 1, "the first pod is a pod of the workload")
	assert.Less(t, reader.most, uint64(60<<20))
}

func TestManagersReconcilerReadsPagesInTurn(t *testing.T) {
	m, err := ctrl.NewManager(&rest.Config{Host: "http://127.0.0.1:1"}, ctrl.Options{
		Scheme: scheme.Scheme, Metrics: metricsserver.Options{BindAddress: "0"},
		MapperProvider: func(*rest.Config, *http.Client) (meta.RESTMapper, error) {
			return testrestmapper.TestOnlyStaticRESTMapper(scheme.Scheme), nil
		},
	})
	require.NoError(t, err)
	r := &Reconciler{}
	require.NoError(t, r.SetupWithManager(m))
	assert.Same(t, process, r.pager)
}

// The table of docs/evidence/security-bounds.md counts ten times the size of a page, with its text and a buffer that
// grows.
func TestDecodedPageFitsIntoTenTimesItsSize(t *testing.T) {
	for _, pods := range []int{2, 32} {
		var list corev1.PodList
		for i := range pods {
			pod := *gated("pod-"+strconv.Itoa(i), "till", "lock.a")
			for n := range listing.MaxPage / pods / 13 {
				pod.Labels["a"+strconv.FormatInt(int64(n), 36)] = ""
			}
			list.Items = append(list.Items, pod)
		}
		text, err := list.Marshal()
		require.NoError(t, err)
		require.Less(t, len(text), listing.MaxPage)
		list = corev1.PodList{}
		var before, after goruntime.MemStats
		goruntime.GC()
		goruntime.ReadMemStats(&before)
		require.NoError(t, list.Unmarshal(text))
		goruntime.GC()
		goruntime.ReadMemStats(&after)
		assert.Less(t, after.HeapAlloc+uint64(3*len(text)), before.HeapAlloc+10*listing.MaxPage)
		assert.Greater(t, after.HeapAlloc, before.HeapAlloc+4*listing.MaxPage, "the test fills the page")
		goruntime.KeepAlive(list)
		goruntime.KeepAlive(text)
	}
}

// A Role whose rules name a Lease remembers the Lease, whatever the Role's annotation says.
func TestOverwrittenRoleAnnotationDoesNotFreeRecreatedLease(t *testing.T) {
	for _, text := range []string{"null", "{}", `{"lock.y":{"seconds":30,"uid":""}}`} {
		t.Run(text, func(t *testing.T) {
			w := newWorld(t, gated("a", "till", "lock.x"))
			r := w.process()
			w.settle(r)
			w.holds("lock.x", "a_1")
			role := w.role("till")
			role.Annotations[leasesAnnotation] = text
			require.NoError(t, w.server.Update(t.Context(), role))
			w.vanish("lock.x")
			w.named = map[string]bool{} // otherwise the world fails the test before the assertions below
			assert.NotPanics(t, func() { w.settle(r) })
			require.NotNil(t, w.lease("lock.x"))
			assert.Equal(t, step.Unknown, holder(w.lease("lock.x")), "enroll freed the Lease while a_1 may still run")
		})
	}
}

// A user who may write Roles could otherwise fill the memory of enroll, with little text for each Lease.
func TestForgedMemoryOfARoleTakesLittleMemory(t *testing.T) {
	for form, most := range map[string]int{`"%04x":{}`: 26_000, `"%04x":0`: 26_000, `"%04x":{"seconds":1,"uid":""}`: 8_000, `"%04x":{"seconds":1},"x%[1]x":{},"y%[1]x":{}`: 5_000} {
		var names []string
		for i := range most {
			names = append(names, fmt.Sprintf(form, i))
		}
		role := &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{
			Name: "metaparticle:till", Annotations: map[string]string{leasesAnnotation: "{" + strings.Join(names, ",") + "}"},
		}}
		require.Less(t, len(role.Annotations[leasesAnnotation]), 256<<10+1, form)
		var before, after goruntime.MemStats
		goruntime.ReadMemStats(&before)
		roles := rolesOf([]rbacv1.Role{*role})
		goruntime.ReadMemStats(&after)
		assert.Empty(t, roles.Longest, form)
		assert.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(256<<10), form)
		kept, err := strip(role.DeepCopy())
		require.NoError(t, err)
		assert.Empty(t, kept.(*rbacv1.Role).Annotations, form)
	}
}

func TestMemoryOfAFullRoleStaysWhole(t *testing.T) {
	memories := map[string]step.Memory{}
	for i := range 2470 {
		memories[fmt.Sprintf("lock.%d", i)] = step.Memory{Seconds: 30, UID: "0a1b2c3d-1111-2222-3333-444455556666"}
	}
	full := &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Name: "metaparticle:till"}}
	require.NoError(t, remember(full, memories))
	kept, err := strip(full.DeepCopy())
	require.NoError(t, err)
	assert.Equal(t, memories, remembered(kept.(*rbacv1.Role)))
}
