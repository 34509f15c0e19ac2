// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package mutate

import (
	"context"
	stdjson "encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"

	"gomodules.xyz/jsonpatch/v2"
	admissionv1 "k8s.io/api/admission/v1"
	"k8s.io/apimachinery/pkg/util/json"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"github.com/metaparticle-io/metaparticle/api"
)

// mostBytes is far above what the API server sends: two objects, each of which
// may have 3 MB, and a little around them.
const mostBytes = 7 << 20

var errNoReview = errors.New("not an AdmissionReview of " + admissionv1.SchemeGroupVersion.String())

// Serve answers the API server's calls with a handler. It is the part of
// [admission.Webhook] that reads and writes, for the one version that our
// configuration asks for: the text is decoded once, and not for each thing
// that is to be known about it. Each pod's start waits for this.
//
// A call that is too much beside the others is answered at once with 429. All
// handlers of a process share one load; nil bounds nothing.
func Serve(handler admission.Handler, load *Load) http.Handler {
	// Handle stays theirs: it makes an answer of a panic.
	hook := &admission.Webhook{Handler: written{handler}}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		share := load.share()
		defer share.free()
		if !share.fits(r.ContentLength) {
			overloaded(w)
			return
		}
		request, err := read(w, r, share)
		switch {
		case errors.Is(err, errOverloaded):
			overloaded(w)
			return
		case err != nil:
			http.Error(w, api.Brief(err.Error(), mostCause), http.StatusBadRequest)
			return
		}
		response := hook.Handle(r.Context(), request).AdmissionResponse
		review := admissionv1.AdmissionReview{Response: &response}
		review.SetGroupVersionKind(admissionv1.SchemeGroupVersion.WithKind("AdmissionReview"))
		w.Header().Set("Content-Type", "application/json")
		// A caller that is gone needs no answer.
		_ = stdjson.NewEncoder(w).Encode(review)
	})
}

func read(w http.ResponseWriter, r *http.Request, share *share) (admission.Request, error) {
	if kind := r.Header.Get("Content-Type"); kind != "application/json" {
		return admission.Request{}, fmt.Errorf("content type %q: %w", api.Brief(kind, mostName), errNoReview)
	}
	body, err := io.ReadAll(metered{http.MaxBytesReader(w, r.Body, mostBytes), share})
	if err != nil {
		return admission.Request{}, fmt.Errorf("read review: %w", err)
	}
	if err := share.decoded(body); err != nil {
		return admission.Request{}, err
	}
	var review admissionv1.AdmissionReview
	if err := json.Unmarshal(body, &review); err != nil {
		return admission.Request{}, fmt.Errorf("%w: %w", errNoReview, err)
	}
	if review.APIVersion != admissionv1.SchemeGroupVersion.String() || review.Kind != "AdmissionReview" || review.Request == nil {
		return admission.Request{}, errNoReview
	}
	return admission.Request{AdmissionRequest: *review.Request}, nil
}

// written writes the patch out. Most of it is text already.
type written struct{ admission.Handler }

// Handle implements [admission.Handler].
func (h written) Handle(ctx context.Context, r admission.Request) admission.Response {
	response := h.Handler.Handle(ctx, r)
	if len(response.Patches) > 0 {
		kind := admissionv1.PatchTypeJSONPatch
		response.Patch, response.PatchType = patchText(response.Patches), &kind
		response.Patches = nil
	}
	return response
}

func patchText(operations []jsonpatch.Operation) []byte {
	text := append(make([]byte, 0, 8<<10), '[') // as much as most need
	for i, o := range operations {
		if i > 0 {
			text = append(text, ',')
		}
		text = append(text, `{"op":"`...)
		text = append(text, o.Operation...)
		text = append(text, `","path":"`...)
		text = append(appendQuoted(text, o.Path), '"')
		if o.Operation != "remove" {
			text = append(text, `,"value":`...)
			if raw, ok := o.Value.(stdjson.RawMessage); ok {
				text = append(text, raw...)
			} else {
				text = append(text, marshal(o.Value)...)
			}
		}
		text = append(text, '}')
	}
	return append(text, ']')
}
