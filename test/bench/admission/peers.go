// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"

	"github.com/dapr/dapr/pkg/injector/consts"
	"github.com/dapr/dapr/pkg/injector/patcher"
	jsonpatch "github.com/evanphx/json-patch/v5"
	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"
)

// dapr repeats the steps of the handler in dapr's injector (v1.14.0,
// pkg/injector/service). The handler decodes the review and the pod, runs the patcher,
// and encodes the patch and the answer.
type dapr struct{}

var decoder = serializer.NewCodecFactory(runtime.NewScheme()).UniversalDeserializer()

func (dapr) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	answer, err := review(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", runtime.ContentTypeJSON)
	_, _ = w.Write(answer)
}

func review(r io.Reader) ([]byte, error) {
	body, err := io.ReadAll(r)
	if err != nil {
		return nil, err
	}
	var ar admissionv1.AdmissionReview
	_, kind, err := decoder.Decode(body, nil, &ar)
	if err != nil {
		return nil, err
	}
	var pod corev1.Pod
	if err := json.Unmarshal(ar.Request.Object.Raw, &pod); err != nil {
		return nil, err
	}
	operations, err := daprPatch(&pod, ar.Request.Namespace)
	if err != nil {
		return nil, err
	}
	patch, err := json.Marshal(operations)
	if err != nil {
		return nil, err
	}
	patchType := admissionv1.PatchTypeJSONPatch
	answer := admissionv1.AdmissionReview{Response: &admissionv1.AdmissionResponse{
		UID: ar.Request.UID, Allowed: true, Patch: patch, PatchType: &patchType,
	}}
	answer.SetGroupVersionKind(*kind)
	return json.Marshal(answer)
}

// daprPatch returns the patch of dapr's patcher. The patcher has the settings that dapr's
// injector uses with the values of dapr's chart.
func daprPatch(pod *corev1.Pod, namespace string) (jsonpatch.Patch, error) {
	const control, domain = "dapr-system", "cluster.local"
	sidecar := patcher.NewSidecarConfig(pod)
	sidecar.GetInjectedComponentContainers = func(string, string) ([]corev1.Container, error) { return nil, nil }
	sidecar.Mode = consts.ModeKubernetes
	sidecar.Namespace = namespace
	sidecar.MTLSEnabled = true
	sidecar.Identity = namespace + ":" + pod.Spec.ServiceAccountName
	sidecar.ImagePullPolicy = corev1.PullIfNotPresent
	sidecar.OperatorAddress = patcher.ServiceAPI.Address(control, domain)
	sidecar.SentryAddress = patcher.ServiceSentry.Address(control, domain)
	sidecar.PlacementAddress = patcher.ServicePlacement.Address(control, domain)
	sidecar.SchedulerAddress = fmt.Sprint(patcher.ServiceScheduler.AddressAllInstances(1, control, domain))
	sidecar.RunAsNonRoot, sidecar.ReadOnlyRootFilesystem, sidecar.SidecarDropALLCapabilities = true, true, true
	sidecar.ControlPlaneNamespace, sidecar.ControlPlaneTrustDomain = control, domain
	sidecar.SentrySPIFFEID = "spiffe://cluster.local/ns/dapr-system/dapr-sentry"
	sidecar.CurrentTrustAnchors = make([]byte, 1000) // a certificate's size
	sidecar.SidecarImage = "registry.example.com/daprd:1.14.0"
	sidecar.SetFromPodAnnotations()
	return sidecar.GetPatch()
}

// typed returns a webhook that patches as most webhooks on controller-runtime do. The webhook
// changes the typed pod and marshals the pod. The patch is the difference between the old and the
// new text. The changes are of the same kinds as those of this project's webhook. Both webhooks add
// an init container, a sidecar and a volume, and to each container a mount and a command.
func typed() *admission.Webhook {
	return &admission.Webhook{Handler: admission.HandlerFunc(func(_ context.Context, r admission.Request) admission.Response {
		var pod corev1.Pod
		if err := json.Unmarshal(r.Object.Raw, &pod); err != nil {
			return admission.Errored(http.StatusBadRequest, err)
		}
		for i := range pod.Spec.Containers {
			c := &pod.Spec.Containers[i]
			c.Command = []string{"/shim", "--", "/entrypoint.sh"}
			c.VolumeMounts = append(c.VolumeMounts, corev1.VolumeMount{Name: "shim", MountPath: "/shim"})
		}
		always := corev1.ContainerRestartPolicyAlways
		pod.Spec.InitContainers = append(pod.Spec.InitContainers, container(0, "shim:v1"), container(1, "shim:v1"))
		pod.Spec.InitContainers[1].RestartPolicy = &always
		pod.Spec.Volumes = append(pod.Spec.Volumes, corev1.Volume{Name: "shim",
			VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}})
		changed, err := json.Marshal(&pod)
		if err != nil {
			return admission.Errored(http.StatusInternalServerError, err)
		}
		return admission.PatchResponseFromRaw(r.Object.Raw, changed)
	})}
}
