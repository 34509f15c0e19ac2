// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package mutatetest replaces the cluster around the webhook in tests: images, owners and
// LimitRanges.
package mutatetest

import (
	"cmp"
	"context"
	"encoding/json"
	"testing"
	"time"

	jsonpatch "github.com/evanphx/json-patch/v5"
	"github.com/stretchr/testify/require"
	operations "gomodules.xyz/jsonpatch/v2"
	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/mutate/feature"
	"github.com/metaparticle-io/metaparticle/mutate/image"
)

// AgentImage is the image of the injected containers.
const AgentImage = "registry.example/agent:v1"

// Facts answers all questions that the webhook asks the cluster and registries. Each golden
// file contains its Facts, in the part facts.yaml.
type Facts struct {
	// Group is the workload that the pod belongs to.
	Group *api.Workload `json:"group"`
	// Template has the names of the containers in the pod's template.
	Template []string `json:"template"`
	// Revision is the pod's revision, as UID/NUMBER/HASH.
	Revision string `json:"revision"`
	// MinReadySeconds is the minReadySeconds of the pod's controller.
	MinReadySeconds int `json:"minReadySeconds"`
	// ReplacesUnready reports that the pod's controller replaces unready old pods.
	ReplacesUnready bool `json:"replacesUnready"`
	// Run is the pod's own Job.
	Run feature.Run `json:"run"`
	// Runs are the UIDs of Jobs, by name.
	Runs map[string]string `json:"runs"`
	// Images are the images by name; an image with an error cannot be read.
	Images map[string]Image    `json:"images"`
	Limits []corev1.LimitRange `json:"limits"`
	// CronJobs are the CronJobs of the namespace.
	CronJobs []metav1.ObjectMeta `json:"cronJobs"`
	// Owner is the pod's controller, as far as it tells why other pods may have to compete ([feature.Apart]).
	Owner metav1.ObjectMeta `json:"owner"`
	// Kubernetes is the cluster's minor version. Zero means [feature.RestartsAll], and a
	// negative number means that the version is not known.
	Kubernetes int `json:"kubernetes"`
}

// Image is an image's command, or the error of its look-up.
type Image struct {
	image.Command
	Error string `json:"error"`
}

// Error is an error with a constant text.
type Error string

func (e Error) Error() string { return string(e) }

// Minor returns the cluster's minor version. The default is a version that supports every
// gate.
func (f Facts) Minor() int { return max(cmp.Or(f.Kubernetes, feature.RestartsAll), 0) }

// For implements [image.Images].
func (f Facts) For(image.PullRights) image.Reader { return f }

// Command implements [image.Reader].
func (f Facts) Command(_ context.Context, named string) (image.Command, error) {
	found, ok := f.Images[named]
	if !ok {
		return image.Command{}, Error("image " + named + " is not in facts.yaml")
	}
	switch found.Error {
	case "":
		return found.Command, nil
	case "platforms":
		return image.Command{}, image.ErrPlatforms
	}
	return image.Command{}, Error(found.Error)
}

// Origin implements the interface Owners of package mutate.
func (f Facts) Origin(context.Context, string, *corev1.Pod) (feature.Origin, error) {
	if f.Group == nil {
		return feature.Origin{}, Error("not found")
	}
	revision, err := api.ParseRevision(f.Revision)
	origin := feature.Origin{
		Workload: *f.Group, Revision: revision,
		MinReady: time.Duration(f.MinReadySeconds) * time.Second, ReplacesUnready: f.ReplacesUnready, Run: f.Run, Apart: feature.Apart(f.Group.Kind, f.Owner),
	}
	if err != nil || f.Template == nil {
		return origin, err
	}
	template := new(corev1.PodSpec)
	for _, name := range f.Template {
		template.Containers = append(template.Containers, corev1.Container{Name: name})
	}
	origin.Template = template
	return origin, nil
}

// JobUID implements the interface Owners of package mutate.
func (f Facts) JobUID(_ context.Context, _, job string) (string, error) { return f.Runs[job], nil }

// LimitRanges implements the interface Limits of package admit.
func (f Facts) LimitRanges(context.Context, string) ([]corev1.LimitRange, error) {
	return f.Limits, nil
}

// ListCronJobs implements the function CronJobs of package admit.
func (f Facts) ListCronJobs(context.Context, string) ([]metav1.ObjectMeta, error) {
	return f.CronJobs, nil
}

// Request returns the request to create a Deployment "biller" in namespace "shop". The argument
// "raw" is the JSON of the Deployment. The pod webhook accepts the same request, and reads that
// JSON as a pod.
func Request(raw string) admission.Request {
	return admission.Request{AdmissionRequest: admissionv1.AdmissionRequest{
		Namespace: "shop",
		Name:      "biller",
		Operation: admissionv1.Create,
		Resource:  metav1.GroupVersionResource{Resource: "deployments"},
		Kind:      metav1.GroupVersionKind{Kind: "Deployment"},
		Object:    runtime.RawExtension{Raw: []byte(raw)},
	}}
}

// Apply patches an object as the API server does.
func Apply(t testing.TB, raw []byte, ops []operations.Operation) []byte {
	t.Helper()
	if len(ops) == 0 {
		return raw
	}
	text, err := json.Marshal(ops)
	require.NoError(t, err)
	patch, err := jsonpatch.DecodePatch(text)
	require.NoError(t, err)
	result, err := patch.Apply(raw)
	require.NoError(t, err, string(text))
	return result
}
