// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	admissionv1 "k8s.io/api/admission/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	k8sruntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"github.com/metaparticle-io/metaparticle/enroll"
	"github.com/metaparticle-io/metaparticle/mutate/admit"
	"github.com/metaparticle-io/metaparticle/mutate/image"
	"github.com/metaparticle-io/metaparticle/mutate/load"
)

// typed implements [objects] by a client of controller-runtime.
type typed struct{ client.Reader }

func (r typed) read(ctx context.Context, kind schema.GroupVersionKind, namespace, name string, into any) error {
	whole, err := clientgoscheme.Scheme.New(kind)
	if err != nil {
		return err
	}
	if err := r.Get(ctx, types.NamespacedName{Namespace: namespace, Name: name}, whole.(client.Object)); err != nil {
		return err
	}
	text, err := json.Marshal(whole)
	if err != nil {
		return err
	}
	return json.Unmarshal(text, into)
}

// reporterOf returns a reporter whose owners come from the client.
func reporterOf(c client.Reader, events enroll.Recorder) *reporter {
	return newReporter(typed{c}, c, events)
}

// paths are the texts and the missing objects of an API server, by path.
type paths map[string]string

// serverOf returns a client of an API server with the given objects. To a path without an object, the
// server answers like the API server.
func serverOf(t *testing.T, objects paths) rest.Interface {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if text, ok := objects[r.URL.Path]; ok {
			_, _ = w.Write([]byte(text))
			return
		}
		status := apierrors.NewNotFound(schema.GroupResource{}, "x").Status()
		if strings.Contains(r.URL.Path, "/secrets/forbidden") {
			status = apierrors.NewForbidden(schema.GroupResource{Resource: "secrets"}, "x", nil).Status()
		}
		status.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}
		w.WriteHeader(int(status.Code))
		_ = json.NewEncoder(w).Encode(status)
	}))
	t.Cleanup(server.Close)
	c, err := newClient(&rest.Config{Host: server.URL, QPS: -1}, server.Client())
	require.NoError(t, err)
	return c
}

// textOf returns the JSON text of an object.
func textOf(t *testing.T, object any) string {
	text, err := json.Marshal(object)
	require.NoError(t, err)
	return string(text)
}

// setOf returns a ReplicaSet with a number of containers.
func setOf(containers int) *appsv1.ReplicaSet {
	set := &appsv1.ReplicaSet{ObjectMeta: named("web-1", controlledBy("example.com/v1", "Web", "web"))}
	for n := range containers {
		set.Spec.Template.Spec.Containers = append(set.Spec.Template.Spec.Containers, corev1.Container{Name: fmt.Sprintf("c%d", n), Image: "a"})
	}
	return set
}

func TestWebhookReadsOwnersFromTheAPIServersPaths(t *testing.T) {
	big := setOf(2)
	big.Annotations = map[string]string{"note": strings.Repeat("x", 256<<10)}
	db := controlledBy("apps/v1", "StatefulSet", "db")
	c := fake.NewClientBuilder().Build()
	o := owners{live{serverOf(t, paths{
		"/apis/apps/v1/namespaces/shop/replicasets/web-1":          textOf(t, big),
		"/apis/apps/v1/namespaces/shop/statefulsets/db":            textOf(t, &appsv1.StatefulSet{ObjectMeta: named("db")}),
		"/apis/apps/v1/namespaces/shop/controllerrevisions/db-7c9": textOf(t, storedRevision(t, "db-7c9", "app", db)),
		"/apis/batch/v1/namespaces/shop/jobs/warm":                 textOf(t, metav1.PartialObjectMetadata{ObjectMeta: named("warm")}),
		"/api/v1/namespaces/shop/pods/driver":                      textOf(t, metav1.PartialObjectMetadata{ObjectMeta: named("driver")}),
	}), maxObject}, c}
	origin, err := o.Origin(t.Context(), "shop", pod("", controlledBy("apps/v1", "ReplicaSet", "web-1")))
	require.NoError(t, err)
	require.Len(t, origin.Template.Containers, 2)
	assert.Equal(t, "c1", origin.Template.Containers[1].Name)
	origin, err = o.Origin(t.Context(), "shop", pod("db-7c9", db))
	require.NoError(t, err)
	assert.Equal(t, "app", origin.Template.Containers[0].Name)
	_, err = o.Origin(t.Context(), "shop", pod("", controlledBy("v1", "Pod", "driver")))
	require.NoError(t, err)
	_, err = o.Origin(t.Context(), "shop", pod("", controlledBy("v1", "Pod", "gone")))
	require.True(t, apierrors.IsNotFound(errors.Unwrap(err)), err)
	uid, err := o.JobUID(t.Context(), "shop", "warm")
	require.NoError(t, err)
	assert.Equal(t, "warm-uid", uid)
	uid, err = o.JobUID(t.Context(), "shop", "gone")
	require.NoError(t, err)
	assert.Empty(t, uid)
}

func TestTemplateOfTooManyContainersIsUnknown(t *testing.T) {
	for containers, known := range map[int]bool{maxContainers: true, maxContainers + 1: false, 5000: false} {
		c := fake.NewClientBuilder().WithObjects(setOf(containers)).Build()
		origin, err := owners{typed{c}, c}.Origin(t.Context(), "shop", pod("", controlledBy("apps/v1", "ReplicaSet", "web-1")))
		require.NoError(t, err)
		assert.Equal(t, known, origin.Template != nil, containers)
	}
}

func TestWebhookRefusesOwnersBeyondTheirBound(t *testing.T) {
	set := setOf(1)
	set.Annotations = map[string]string{"note": strings.Repeat("x", maxObject)}
	o := owners{live{serverOf(t, paths{"/apis/apps/v1/namespaces/shop/replicasets/web-1": textOf(t, set)}), maxObject}, fake.NewClientBuilder().Build()}
	_, err := o.Origin(t.Context(), "shop", pod("", controlledBy("apps/v1", "ReplicaSet", "web-1")))
	require.ErrorIs(t, err, errHuge)
	assert.Contains(t, err.Error(), "more than 4096 KiB")
}

func TestServiceAccountAndSecretTakeLittleMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("slow with the race detector")
	}
	many := strings.TrimSuffix(strings.Repeat("{},", 100_000), ",")
	from := secrets{live{serverOf(t, paths{
		"/api/v1/namespaces/shop/serviceaccounts/many": `{"secrets":[` + many + `],"imagePullSecrets":[{"name":"one"},` + many[:60_000] + `{}]}`,
		"/api/v1/namespaces/shop/serviceaccounts/huge": `{"secrets":[` + many + "," + many + `],"imagePullSecrets":[{"name":"one"}]}`,
		"/api/v1/namespaces/shop/secrets/pull":         `{"type":"kubernetes.io/dockerconfigjson","data":{".dockerconfigjson":"e30=","other":"e30="}}`,
		"/api/v1/namespaces/shop/secrets/huge":         `{"type":"kubernetes.io/dockerconfigjson","data":{".dockerconfigjson":"` + strings.Repeat("e30=", 200_000) + `"}}`,
	}), maxAccess}, discarded}
	for range 2 { // the first read also fills the caches of the decoder
		before := allocated()
		names, err := from.PullSecrets(t.Context(), "shop", "many")
		require.NoError(t, err)
		require.Len(t, names, maxPullSecrets)
		assert.Equal(t, "one", names[0])
		assert.Less(t, allocated()-before, uint64(4*maxAccess))
	}
	_, err := from.PullSecrets(t.Context(), "shop", "huge")
	assert.Equal(t, errNone, err)
	secret, err := from.Secret(t.Context(), "shop", "pull")
	require.NoError(t, err)
	assert.Equal(t, corev1.SecretTypeDockerConfigJson, secret.Type)
	assert.Equal(t, "{}", string(secret.Data[corev1.DockerConfigJsonKey]))
	_, err = from.Secret(t.Context(), "shop", "huge")
	assert.Equal(t, errNone, err)
	_, err = from.Secret(t.Context(), "shop", "forbidden")
	assert.Equal(t, errMayNotRead, err)
}

// allocated returns the bytes that the process has allocated so far.
func allocated() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.TotalAlloc
}

// hanging is a registry of a pod's author. The registry tells of each look-up, and then hangs.
type hanging struct{ asked, until chan struct{} }

func (h hanging) For(image.PullRights) image.Reader { return h }
func (h hanging) Command(context.Context, string) (image.Command, error) {
	h.asked <- struct{}{}
	<-h.until
	return image.Command{}, errors.New("too late")
}

// API Priority and Fairness gives an ordinary user about fifty requests at once.
func TestOwnersOfCallsInFlightFitIntoLoad(t *testing.T) {
	const calls = 30
	set := setOf(30_000)
	reader := live{serverOf(t, paths{"/apis/apps/v1/namespaces/shop/replicasets/web-1": textOf(t, set)}), maxObject}
	registry := hanging{make(chan struct{}, calls), make(chan struct{})}
	limit := new(load.Limit)
	handler := admit.Serve(admit.NewPodHandler(admit.Options{
		AgentImage: "agent", Images: registry, Owners: owners{reader, fake.NewClientBuilder().Build()}, Timeout: time.Minute,
	}), limit)
	review := textOf(t, admissionv1.AdmissionReview{
		TypeMeta: metav1.TypeMeta{APIVersion: "admission.k8s.io/v1", Kind: "AdmissionReview"},
		Request: &admissionv1.AdmissionRequest{UID: "1", Operation: admissionv1.Create, Namespace: "shop", Object: k8sruntime.RawExtension{Raw: []byte(textOf(t, corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: "p", Annotations: map[string]string{"metaparticle.io/lock": "a"}, OwnerReferences: []metav1.OwnerReference{controlledBy("apps/v1", "ReplicaSet", "web-1")}},
			Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "0", Image: "evil.example/a"}}},
		}))}},
	})
	ended := make(chan int, calls)
	var group sync.WaitGroup
	for range calls {
		group.Go(func() {
			r := httptest.NewRequest(http.MethodPost, "/pods", bytes.NewReader([]byte(review)))
			r.Header.Set("Content-Type", "application/json")
			w := httptest.NewRecorder()
			handler.ServeHTTP(w, r)
			ended <- w.Code
		})
	}
	hang, refused := 0, 0
	for hang+refused < calls {
		select {
		case <-registry.asked:
			hang++
		case code := <-ended:
			require.Equal(t, http.StatusTooManyRequests, code)
			refused++
		}
	}
	assert.Positive(t, hang)
	assert.Positive(t, refused)
	assert.GreaterOrEqual(t, limit.Used(), int64(hang*len(textOf(t, set))))
	assert.LessOrEqual(t, limit.Used(), int64(128<<20))
	close(registry.until)
	group.Wait()
	assert.Zero(t, limit.Used())
}

// The load counts a fixed number of bytes of memory for each byte of an owner.
func TestLoadCoversTheMemoryOfDecodedOwners(t *testing.T) {
	if testing.Short() {
		t.Skip("slow with the race detector")
	}
	many := func(element string) string {
		return strings.TrimSuffix(strings.Repeat(element+",", 1<<20/len(element)), ",")
	}
	notes := &strings.Builder{}
	for n := 0; notes.Len() < 250<<10; n++ {
		fmt.Fprintf(notes, `"a%x":"",`, n)
	}
	for name, text := range map[string]string{
		"containers": `{"metadata":{"uid":"web-1-uid"},"spec":{"template":{"spec":{"containers":[` + many("{}") + `]}}}}`,
		"owners":     `{"metadata":{"uid":"web-1-uid","ownerReferences":[` + many(`{"apiVersion":"a","kind":"b","name":"c","uid":"d"}`) + `]}}`,
		"notes":      `{"metadata":{"uid":"web-1-uid","annotations":{` + notes.String() + `"b":""}}}`,
		"text":       `{"metadata":{"uid":"web-1-uid"},"data":"` + strings.Repeat("x", 1<<20) + `"}`,
	} {
		o := owners{live{serverOf(t, paths{"/apis/apps/v1/namespaces/shop/replicasets/web-1": text}), maxObject}, nil}
		var used uint64
		for range 2 { // the first read also fills the caches of the decoder
			limit := new(load.Limit)
			share := limit.Share()
			before := allocated()
			_, err := o.Origin(share.Within(t.Context()), "shop", pod("", controlledBy("apps/v1", "ReplicaSet", "web-1")))
			used = allocated() - before
			require.NoError(t, err, name)
			t.Logf("%s: %.1f bytes of memory for each byte of text", name, float64(used)/float64(len(text)))
			assert.LessOrEqual(t, used, uint64(limit.Used())+1<<20, name)
		}
	}
}

// The label of a pod may have any text, and would become a part of the path of a request.
func TestInvalidRevisionHashCausesNoRead(t *testing.T) {
	for name, hash := range map[string]string{"long": strings.Repeat("x", 1_400_000), "path": "../../secrets/a", "query": "a?b", "empty": ""} {
		for _, kind := range []string{"StatefulSet", "DaemonSet"} {
			reads := 0
			c := fake.NewClientBuilder().WithObjects(&appsv1.StatefulSet{ObjectMeta: named("db")}, &appsv1.DaemonSet{ObjectMeta: named("db")}).Build()
			o := owners{typed{counting(c, &reads)}, c}
			origin, err := o.Origin(t.Context(), "shop", pod(hash, controlledBy("apps/v1", kind, "db")))
			require.NoError(t, err, name)
			assert.Nil(t, origin.Template)
			assert.Equal(t, 1, reads, "%s, %s: reads beside the owner", name, kind)
		}
	}
}
