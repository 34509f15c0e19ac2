// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package admit

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/mutate/reason"
)

// Uncarried are the workloads of a namespace that claim, and whose pod templates lack the claim.
type Uncarried struct {
	// Workloads are some of them.
	Workloads []api.Workload
	// Unread is the number of workloads that claim, and whose templates were not read.
	Unread int
}

// NewNamespaceHandler returns the handler for the update by which a namespace opts in. The handler refuses
// nothing. It warns the person who labels the namespace of workloads that were annotated before: the label
// brings nothing to their pod templates, so each pod of them would run without a gate.
func NewNamespaceHandler(o Options) admission.Handler { return &namespaceHandler{Options: o} }

// uncarriedTime bounds the reads for a namespace. A person waits for the answer, and the API server waits
// three seconds.
const uncarriedTime = 2 * time.Second

// mostUncarried bounds the workloads that a warning names.
const mostUncarried = 5

type namespaceHandler struct {
	Options

	// namespaces is locked while the workloads of one are read, so that many calls cost no more requests than one.
	namespaces sync.Mutex
}

// Handle implements [admission.Handler].
func (h *namespaceHandler) Handle(ctx context.Context, r admission.Request) admission.Response {
	// Of a namespace, the API server sends both names. Another caller could choose whose load the call counts as.
	if r.SubResource != "" || r.Operation != admissionv1.Update || h.Uncarried == nil || r.Name == "" || r.Name != r.Namespace {
		return admission.Allowed("")
	}
	if !h.namespaces.TryLock() {
		return admission.Allowed("").WithWarnings(fmt.Sprintf("%s: the workloads of %s were not read: kubectl metaparticle check names those whose pods run without a gate", notGated, r.Name))
	}
	defer h.namespaces.Unlock()
	ctx, cancel := context.WithTimeout(ctx, uncarriedTime)
	defer cancel()
	found, err := h.Uncarried(ctx, r.Name)
	if err != nil {
		h.logger().Warn("read workloads", "namespace", r.Name, "error", err)
	}
	return admission.Allowed("").WithWarnings(uncarried(r.Name, found)...)
}

// uncarried returns the warning about the workloads, or nothing.
func uncarried(namespace string, found Uncarried) (warnings []string) {
	var restarted, written []string
	for _, w := range found.Workloads[:min(len(found.Workloads), mostUncarried)] {
		name := strings.ToLower(w.Kind) + "/" + w.Name
		if w.Owner().Restarts {
			restarted = append(restarted, name)
		} else {
			written = append(written, name)
		}
	}
	var do []string
	if len(restarted) > 0 {
		do = append(do, fmt.Sprintf("kubectl rollout restart -n %s %s", namespace, strings.Join(restarted, " ")))
	}
	if len(written) > 0 {
		do = append(do, fmt.Sprintf("write the annotation of %s again (kubectl annotate --overwrite -n %s)", strings.Join(written, ", "), namespace))
	}
	more := len(found.Workloads) - len(restarted) - len(written)
	const cause = "the label brings nothing to pod templates, so "
	switch {
	case more > 0:
		warnings = append(warnings, fmt.Sprintf("%s: %s%d workloads that claim still run without a gate, such as %s: %s; kubectl metaparticle check names the others (%s)",
			notGated, cause, len(found.Workloads), strings.Join(append(restarted, written...), ", "), strings.Join(do, "; "), reason.Link(notGated)))
	case len(do) > 0:
		warnings = append(warnings, fmt.Sprintf("%s: %s%s would still run without a gate: %s (%s)",
			notGated, cause, strings.Join(append(restarted, written...), ", "), strings.Join(do, "; "), reason.Link(notGated)))
	}
	if found.Unread > 0 {
		warnings = append(warnings, fmt.Sprintf("%s: %d more annotated workloads were not read: kubectl metaparticle check names those whose pods run without a gate", notGated, found.Unread))
	}
	return warnings
}

// notGated is the reason of the warning, which is also that of the workload's Event.
const notGated = reason.Reason("NotGated")
