// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package admit

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"github.com/metaparticle-io/metaparticle/mutate/image"
	"github.com/metaparticle-io/metaparticle/mutate/mutatetest"
)

// call sends a body to a served handler.
func call(t *testing.T, handler admission.Handler, contentType, body string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/", strings.NewReader(body))
	r.Header.Set("Content-Type", contentType)
	answer := httptest.NewRecorder()
	Serve(handler, nil).ServeHTTP(answer, r)
	return answer
}

// review returns the AdmissionReview of a request, as JSON.
func review(t *testing.T, r admission.Request) string {
	t.Helper()
	r.UID = "705ab4f5"
	text, err := json.Marshal(admissionv1.AdmissionReview{
		TypeMeta: metav1.TypeMeta{APIVersion: "admission.k8s.io/v1", Kind: "AdmissionReview"}, Request: &r.AdmissionRequest,
	})
	require.NoError(t, err)
	return string(text)
}

func TestWebhookServerEncodesTheHandlersAnswer(t *testing.T) {
	f := mutatetest.Facts{Images: map[string]mutatetest.Image{"app:1": {Command: image.Command{Entrypoint: []string{"/bin/app", "<é>"}}}}}
	const pod = `{"metadata":{"name":"a","annotations":{"metaparticle.io/singleton":"true"}},"spec":{"containers":[{"name":"app","image":"app:1"}]}}`
	handler := NewPodHandler(Options{AgentImage: mutatetest.AgentImage, Images: f, Owners: f})
	want := handler.Handle(t.Context(), mutatetest.Request(pod))
	require.NotEmpty(t, want.Patches)
	operations, err := json.Marshal(want.Patches)
	require.NoError(t, err)

	answer := call(t, handler, "application/json", review(t, mutatetest.Request(pod)))
	require.Equal(t, http.StatusOK, answer.Code)
	assert.Equal(t, "application/json", answer.Header().Get("Content-Type"))
	var got admissionv1.AdmissionReview
	require.NoError(t, json.Unmarshal(answer.Body.Bytes(), &got))
	assert.Equal(t, "admission.k8s.io/v1 AdmissionReview", got.APIVersion+" "+got.Kind)
	assert.EqualValues(t, "705ab4f5", got.Response.UID)
	assert.True(t, got.Response.Allowed)
	assert.Equal(t, admissionv1.PatchTypeJSONPatch, *got.Response.PatchType)
	assert.JSONEq(t, string(operations), string(got.Response.Patch))
}

func TestBodyWithoutAdmissionReviewIsRefused(t *testing.T) {
	handler := NewPodHandler(Options{Images: asked{t}, Owners: asked{t}})
	whole := review(t, mutatetest.Request(`{}`))
	for name, c := range map[string]struct{ contentType, body string }{
		"another content type": {"text/plain", whole},
		"no JSON":              {"application/json", "{"},
		"empty":                {"application/json", ""},
		"another kind":         {"application/json", `{"kind":"Pod","apiVersion":"v1"}`},
		"another version":      {"application/json", strings.Replace(whole, "k8s.io/v1", "k8s.io/v1beta1", 1)},
		"no request":           {"application/json", `{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1"}`},
		"too long":             {"application/json", `{"a":"` + strings.Repeat("x", maxBytes) + `"}`},
	} {
		t.Run(name, func(t *testing.T) {
			assert.Equal(t, http.StatusBadRequest, call(t, handler, c.contentType, c.body).Code)
		})
	}
}

// After a panic the webhook must refuse only one object, and must not end.
func TestPanicInAdmissionHandlerRefusesTheObject(t *testing.T) {
	panics := admission.HandlerFunc(func(context.Context, admission.Request) admission.Response { panic("oh") })
	var got admissionv1.AdmissionReview
	require.NoError(t, json.Unmarshal(call(t, panics, "application/json", review(t, mutatetest.Request(`{}`))).Body.Bytes(), &got))
	assert.False(t, got.Response.Allowed)
	assert.EqualValues(t, http.StatusInternalServerError, got.Response.Result.Code)
}
