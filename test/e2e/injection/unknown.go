// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package injection

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"gopkg.in/evanphx/json-patch.v4"
	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/space"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/webhook"
)

// newerPod is a pod with fields that only a newer Kubernetes has. This cluster's API server would
// drop those fields, so the test sends the pod directly to the webhook.
const newerPod = `{
  "apiVersion": "v1", "kind": "Pod",
  "metadata": {"name": "newer", "annotations": {"metaparticle.io/singleton": "true"}, "newOfMetadata": 1},
  "spec": {
    "newOfSpec": {"a": [1, 2]},
    "initContainers": [
      {"name": "first", "image": "x", "newOfContainer": "first"},
      {"name": "second", "image": "x", "newOfContainer": "second"}],
    "containers": [
      {"name": "app", "image": "x", "command": ["app"], "newOfContainer": "app"},
      {"name": "side", "image": "x", "command": ["side"], "newOfContainer": "side"}]}
}`

// docs/compatibility.md: pod/ungated carried
func TestInjectionKeepsFieldsUnknownToTheWebhook(t *testing.T) {
	t.Parallel()
	s := space.New(t)
	patched := review(s, []byte(newerPod))
	var pod struct {
		Metadata struct {
			Labels        map[string]string
			NewOfMetadata int
		}
		Spec struct {
			NewOfSpec                  json.RawMessage
			InitContainers, Containers []struct{ Name, NewOfContainer string }
		}
	}
	require.NoError(t, json.Unmarshal(patched, &pod))
	require.Equal(t, api.Gated, pod.Metadata.Labels[api.GatedLabel])
	assert.Equal(t, 1, pod.Metadata.NewOfMetadata)
	assert.JSONEq(t, `{"a": [1, 2]}`, string(pod.Spec.NewOfSpec))
	own := map[string]string{}
	for _, c := range append(pod.Spec.InitContainers, pod.Spec.Containers...) {
		own[c.Name] = c.NewOfContainer
	}
	assert.Equal(t, map[string]string{"first": "first", "second": "second", "app": "app", "side": "side",
		api.AgentContainer: ""}, own)
}

// ofWebhook sends a request to one pod of the webhook, and returns the answer.
func ofWebhook(s *space.Space, body []byte) (review admissionv1.AdmissionReview, err error) {
	s.Helper()
	pods := webhook.Pods(s.T)
	require.NotEmpty(s, pods)
	dial, end, err := webhook.Dial(s.T, pods[0].Name)
	if err != nil {
		return review, err
	}
	defer end()
	transport := &http.Transport{DialTLSContext: dial}
	defer transport.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(s.Context(), space.Soon)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://webhook/pods", bytes.NewReader(body))
	require.NoError(s, err)
	request.Header.Set("Content-Type", "application/json")
	answer, err := transport.RoundTrip(request)
	if err != nil {
		return review, err
	}
	defer answer.Body.Close()
	return review, json.NewDecoder(answer.Body).Decode(&review)
}

// review returns a pod as the webhook patches it.
func review(s *space.Space, pod []byte) []byte {
	s.Helper()
	review := admissionv1.AdmissionReview{
		TypeMeta: metav1.TypeMeta{APIVersion: "admission.k8s.io/v1", Kind: "AdmissionReview"},
		Request: &admissionv1.AdmissionRequest{
			UID: "1", Operation: admissionv1.Create, Namespace: s.Namespace, Name: "newer",
			Kind:     metav1.GroupVersionKind{Version: "v1", Kind: "Pod"},
			Resource: metav1.GroupVersionResource{Version: "v1", Resource: "pods"},
			Object:   runtime.RawExtension{Raw: pod},
		},
	}
	body, err := json.Marshal(review)
	require.NoError(s, err)
	// The stream of a port-forward may break before the answer, so the test repeats the
	// request.
	s.Within(space.Soon, func() bool {
		review, err = ofWebhook(s, body)
		return err == nil
	})
	require.NoError(s, err)
	require.True(s, review.Response.Allowed, "%+v", review.Response.Result)
	patch, err := jsonpatch.DecodePatch(review.Response.Patch)
	require.NoError(s, err)
	patched, err := patch.Apply(pod)
	require.NoError(s, err)
	return patched
}
