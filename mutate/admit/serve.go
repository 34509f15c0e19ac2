// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package admit answers the admission calls of the API server for pods and workloads.
//
// Guarantee: a call gets an answer before its timeout, or status 429 if the calls in flight leave
// no room. No call ends the process. A well-formed workload is never refused.
package admit

import (
	"context"
	stdjson "encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"

	admissionv1 "k8s.io/api/admission/v1"
	"k8s.io/apimachinery/pkg/util/json"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/mutate/load"
	"github.com/metaparticle-io/metaparticle/mutate/patch"
	"github.com/metaparticle-io/metaparticle/mutate/reason"
)

// maxBytes is above the size of the API server's largest call: two objects of at most 3 MB
// each, and a little text around them.
const maxBytes = 7 << 20

var errNoReview = errors.New("not an AdmissionReview of " + admissionv1.SchemeGroupVersion.String())

// Serve returns an HTTP handler, which passes the API server's calls to an admission
// handler. Calls and answers have the format of [admission.Webhook], in the only version that
// the webhook's configuration names. The HTTP handler decodes the text of a call only once,
// because each pod's start waits for the answer.
//
// A call for which the load has no room immediately gets status 429. If the load has no room for a
// call's patch, or for the commands of its images, the call also gets status 429. A malformed call gets
// status 400. All handlers of a process share one limit. With a nil limit, the load has no bound.
func Serve(handler admission.Handler, limit *load.Limit) http.Handler {
	// The method Handle of [admission.Webhook] turns a panic into an answer.
	hook := &admission.Webhook{Handler: written{handler}}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		share := limit.Share()
		defer share.Free()
		if !share.Fits(r.ContentLength) {
			overloaded(w)
			return
		}
		request, err := read(w, r, share)
		switch {
		case errors.Is(err, load.ErrOverloaded):
			overloaded(w)
			return
		case err != nil:
			http.Error(w, api.Brief(err.Error(), reason.MaxCause), http.StatusBadRequest)
			return
		}
		response := hook.Handle(share.Within(r.Context()), request).AdmissionResponse
		if response.Result != nil && response.Result.Code == http.StatusTooManyRequests {
			overloaded(w)
			return
		}
		review := admissionv1.AdmissionReview{Response: &response}
		review.SetGroupVersionKind(admissionv1.SchemeGroupVersion.WithKind("AdmissionReview"))
		w.Header().Set("Content-Type", "application/json")
		// A caller that is gone needs no answer.
		_ = stdjson.NewEncoder(w).Encode(review)
	})
}

// read reads and decodes a review, if the load has room.
func read(w http.ResponseWriter, r *http.Request, share *load.Share) (admission.Request, error) {
	if kind := r.Header.Get("Content-Type"); kind != "application/json" {
		return admission.Request{}, fmt.Errorf("content type %q: %w", api.Brief(kind, reason.MaxName), errNoReview)
	}
	body, err := io.ReadAll(share.Meter(http.MaxBytesReader(w, r.Body, maxBytes)))
	if err != nil {
		return admission.Request{}, fmt.Errorf("read review: %w", err)
	}
	if err := share.Decode(body); err != nil {
		return admission.Request{}, err
	}
	var review admissionv1.AdmissionReview
	if err := json.Unmarshal(body, &review); err != nil {
		return admission.Request{}, fmt.Errorf("%w: %w", errNoReview, err)
	}
	if review.APIVersion != admissionv1.SchemeGroupVersion.String() || review.Kind != "AdmissionReview" || review.Request == nil {
		return admission.Request{}, errNoReview
	}
	return admission.Request{AdmissionRequest: *review.Request}, share.Join(review.Request.Namespace)
}

// written is a handler that encodes the patch of its answer.
type written struct{ admission.Handler }

// Handle implements [admission.Handler].
func (h written) Handle(ctx context.Context, r admission.Request) admission.Response {
	response := h.Handler.Handle(ctx, r)
	if len(response.Patches) > 0 {
		if err := load.AddPatch(ctx, patch.Length(response.Patches)); err != nil {
			return admission.Errored(http.StatusTooManyRequests, err)
		}
		kind := admissionv1.PatchTypeJSONPatch
		response.Patch, response.PatchType = patch.Text(response.Patches), &kind
		response.Patches = nil
	}
	return response
}

// overloaded answers with status 429, so that the caller tries again. The API server's
// client obeys Retry-After within the time that the webhook's configuration gives a call.
// After that time the API server refuses the pod, and the pod's controller tries again.
func overloaded(w http.ResponseWriter) {
	// The header allows no time below a second. Most calls take milliseconds, so the
	// caller need not wait longer.
	w.Header().Set("Retry-After", "1")
	http.Error(w, load.ErrOverloaded.Error(), http.StatusTooManyRequests)
}
