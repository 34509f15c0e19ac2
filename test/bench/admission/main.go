// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Command admission prints the time of the webhook's pod handler, beside dapr's patcher
// and controller-runtime's usual way of patching. All three handlers get the same pods, in one
// execution of the command. The measured time runs from the bytes of an AdmissionReview to the
// bytes of its answer. One process handles one request at a time.
//
// The measured time includes neither TLS nor the log. Each handler also omits its one
// read from the API server. Our handler would read the pod's owner, and dapr's handler
// its Configuration.
//
// The command is a separate module, because no other program needs dapr's
// dependencies.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	goruntime "runtime"
	"slices"
	"strings"
	"time"

	"github.com/dapr/dapr/pkg/injector/consts"
	"github.com/dapr/dapr/pkg/injector/patcher"
	jsonpatch "github.com/evanphx/json-patch/v5"
	"github.com/go-logr/logr"
	"github.com/google/go-containerregistry/pkg/name"
	fake "github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/mutate/admit"
	"github.com/metaparticle-io/metaparticle/mutate/feature"
	"github.com/metaparticle-io/metaparticle/mutate/image"
	"github.com/metaparticle-io/metaparticle/mutate/image/registry"
	"github.com/metaparticle-io/metaparticle/mutate/load"
)

func main() {
	rounds := flag.Int("rounds", 2000, "admissions of each pod by each handler")
	fresh := flag.Int("fresh-rounds", 300, "admissions of images that are not cached")
	flag.Parse()
	ctrl.SetLogger(logr.Discard())
	if err := run(context.Background(), *rounds, *fresh); err != nil {
		fmt.Fprintln(os.Stderr, "admission:", err)
		os.Exit(1)
	}
}

// subject is one handler, which is called with one pod.
type subject struct {
	name    string
	handler http.Handler
	review  []byte
	// before is called ahead of each request. The duration of this call is not measured.
	before func()
	rounds int
	taken  []time.Duration
}

func run(ctx context.Context, rounds, fresh int) error {
	images, err := serve(ctx)
	if err != nil {
		return err
	}
	fmt.Println("Admission of a pod, in milliseconds: from an AdmissionReview's bytes to its answer's, in one process.")
	fmt.Println("\n| containers | implementation | rounds | p50 | p99 | max | allocations | KB allocated |\n|---|---|---|---|---|---|---|---|")
	for _, containers := range []int{1, 5, 20} {
		alone, asking, err := images.subjects(containers, rounds, fresh)
		if err != nil {
			return err
		}
		for _, subjects := range [][]*subject{alone, asking} {
			if err := measure(subjects); err != nil {
				return fmt.Errorf("%d containers: %w", containers, err)
			}
			for _, s := range subjects {
				s.print(containers)
			}
		}
	}
	return nil
}

func (s *subject) print(containers int) {
	count, bytes := s.allocations()
	slices.Sort(s.taken)
	fmt.Printf("| %d | %s | %d | %s | %s | %s | %d | %d |\n", containers, s.name, len(s.taken),
		ms(s.quantile(.5)), ms(s.quantile(.99)), ms(s.taken[len(s.taken)-1]), count, bytes/1000)
}

// measure calls one subject after the other in each round, so that other work of the
// machine affects all subjects equally.
func measure(subjects []*subject) error {
	for _, s := range subjects {
		if s.before != nil {
			s.before()
		}
		// This call is not measured. The call fills the caches, and its answer is checked.
		if err := check(s.ask()); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	goruntime.GC()
	for again := true; again; {
		again = false
		for _, s := range subjects {
			if len(s.taken) == s.rounds {
				continue
			}
			again = true
			if s.before != nil {
				s.before()
			}
			began := time.Now()
			s.ask()
			s.taken = append(s.taken, time.Since(began))
		}
	}
	return nil
}

// allocationRounds is the number of calls after which the mean of their allocations is stable.
const allocationRounds = 100

// allocations returns the number and the bytes of one request's allocations.
func (s *subject) allocations() (count, bytes uint64) {
	var from, to goruntime.MemStats
	for range allocationRounds {
		if s.before != nil {
			s.before()
		}
		goruntime.ReadMemStats(&from)
		s.ask()
		goruntime.ReadMemStats(&to)
		count += to.Mallocs - from.Mallocs
		bytes += to.TotalAlloc - from.TotalAlloc
	}
	return count / allocationRounds, bytes / allocationRounds
}

func (s *subject) quantile(q float64) time.Duration {
	return s.taken[min(int(q*float64(len(s.taken))), len(s.taken)-1)]
}

func ms(d time.Duration) string { return fmt.Sprintf("%.2f", float64(d.Microseconds())/1000) }

// ask sends the subject's review to the subject's handler, and returns the answer.
func (s *subject) ask() []byte {
	request := httptest.NewRequestWithContext(context.Background(), http.MethodPost, "/", bytes.NewReader(s.review))
	request.Header.Set("Content-Type", "application/json")
	answer := httptest.NewRecorder()
	s.handler.ServeHTTP(answer, request)
	return answer.Body.Bytes()
}

// check returns an error unless the answer admits the pod and has a patch.
func check(answer []byte) error {
	var review admissionv1.AdmissionReview
	if err := json.Unmarshal(answer, &review); err != nil {
		return fmt.Errorf("read answer: %w", err)
	}
	switch {
	case review.Response == nil:
		return errors.New("no response")
	case !review.Response.Allowed:
		return fmt.Errorf("refused: %s", review.Response.Result.Message)
	case len(review.Response.Patch) == 0:
		return errors.New("no patch")
	}
	return nil
}

// reviewOf returns the AdmissionReview that the API server would send about a pod.
func reviewOf(pod *corev1.Pod) ([]byte, error) {
	raw, err := json.Marshal(pod)
	if err != nil {
		return nil, err
	}
	return json.Marshal(admissionv1.AdmissionReview{
		TypeMeta: metav1.TypeMeta{APIVersion: "admission.k8s.io/v1", Kind: "AdmissionReview"},
		Request: &admissionv1.AdmissionRequest{
			UID: "705ab4f5-6393-11e8-b7cc-42010a800002", Kind: metav1.GroupVersionKind{Version: "v1", Kind: "Pod"},
			Resource:  metav1.GroupVersionResource{Version: "v1", Resource: "pods"},
			Namespace: namespace, Operation: admissionv1.Create, Object: runtime.RawExtension{Raw: raw},
		},
	})
}

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

const namespace = "bench"

// pod returns a pod of a Deployment as the API server stores pods. The pod has default values, a
// volume for the service account's token, tolerations, environment variables, ports and resources.
// The pod's containers have no command of their own. The pod's annotations request the injection of
// our agent and of dapr's sidecar.
func pod(containers int, image func(int) string) *corev1.Pod {
	yes, seconds, mode := true, int64(30), int32(420)
	p := &corev1.Pod{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{
			GenerateName: "biller-5b8c9d7f4d-", Namespace: namespace,
			Labels: map[string]string{"app": "biller", "pod-template-hash": "5b8c9d7f4d"},
			Annotations: map[string]string{api.SingletonAnnotation: "true",
				"dapr.io/enabled": "true", "dapr.io/app-id": "biller", "dapr.io/app-port": "8080"},
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "ReplicaSet",
				Name: "biller-5b8c9d7f4d", UID: "4c1d5c0e-8a8e-4f0e-9d6e-0c1b8e4d2f3a", Controller: &yes, BlockOwnerDeletion: &yes}},
		},
		Spec: corev1.PodSpec{
			ServiceAccountName: "default", RestartPolicy: corev1.RestartPolicyAlways, DNSPolicy: corev1.DNSClusterFirst,
			TerminationGracePeriodSeconds: &seconds, SecurityContext: &corev1.PodSecurityContext{}, SchedulerName: "default-scheduler",
			Tolerations: []corev1.Toleration{{Key: "node.kubernetes.io/not-ready", Operator: "Exists", Effect: "NoExecute"},
				{Key: "node.kubernetes.io/unreachable", Operator: "Exists", Effect: "NoExecute"}},
			EnableServiceLinks: &yes,
			Volumes: []corev1.Volume{{Name: "kube-api-access-x7k2p", VolumeSource: corev1.VolumeSource{
				Projected: &corev1.ProjectedVolumeSource{DefaultMode: &mode, Sources: []corev1.VolumeProjection{
					{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token"}},
					{ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: corev1.LocalObjectReference{Name: "kube-root-ca.crt"},
						Items: []corev1.KeyToPath{{Key: "ca.crt", Path: "ca.crt"}}}},
				}}}}},
		},
	}
	for i := range containers {
		p.Spec.Containers = append(p.Spec.Containers, container(i, image(i)))
	}
	return p
}

func container(i int, image string) corev1.Container {
	amount := corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("100m"), corev1.ResourceMemory: resource.MustParse("64Mi")}
	c := corev1.Container{
		Name: fmt.Sprintf("part-%d", i), Image: image, ImagePullPolicy: corev1.PullIfNotPresent,
		Ports:     []corev1.ContainerPort{{Name: fmt.Sprintf("http-%d", i), ContainerPort: int32(8080 + i), Protocol: corev1.ProtocolTCP}},
		Resources: corev1.ResourceRequirements{Requests: amount, Limits: amount},
		VolumeMounts: []corev1.VolumeMount{{Name: "kube-api-access-x7k2p", ReadOnly: true,
			MountPath: "/var/run/secrets/kubernetes.io/serviceaccount"}},
		TerminationMessagePath: corev1.TerminationMessagePathDefault, TerminationMessagePolicy: corev1.TerminationMessageReadFile,
	}
	for n := range 10 {
		c.Env = append(c.Env, corev1.EnvVar{Name: fmt.Sprintf("SETTING_%d", n), Value: fmt.Sprintf("value of %d", n)})
	}
	return c
}

// most is the number of images: one for each container of the largest pod.
const most = 20

// images names the images in a registry on loopback, by tag and by digest.
type images struct {
	host    string
	digests []string
}

func serve(ctx context.Context) (*images, error) {
	server := httptest.NewServer(fake.New(fake.Logger(log.New(io.Discard, "", 0))))
	i := &images{host: strings.TrimPrefix(server.URL, "http://")}
	for n := range most {
		img, err := mutate.Config(empty.Image, v1.Config{
			Entrypoint: []string{"/usr/bin/tini", "--", fmt.Sprintf("/entrypoint-%d.sh", n)}, Cmd: []string{"serve"}, StopSignal: "SIGQUIT",
		})
		if err != nil {
			return nil, err
		}
		ref, err := name.ParseReference(i.tag(n))
		if err != nil {
			return nil, err
		}
		if err := remote.Write(ref, img, remote.WithContext(ctx)); err != nil {
			return nil, fmt.Errorf("push image: %w", err)
		}
		digest, err := img.Digest()
		if err != nil {
			return nil, err
		}
		i.digests = append(i.digests, ref.Context().Digest(digest.String()).String())
	}
	return i, nil
}

func (i *images) tag(n int) string    { return fmt.Sprintf("%s/shop/part-%d:v1", i.host, n) }
func (i *images) digest(n int) string { return i.digests[n] }

// subjects returns the subjects for pods with the given number of containers. The subjects in the
// first list send no request to the registry. The two lists are measured one after the other,
// because the registry's work in this process must not count for the first list.
func (i *images) subjects(containers, rounds, fresh int) (alone, asking []*subject, err error) {
	byDigest, err := reviewOf(pod(containers, i.digest))
	if err != nil {
		return nil, nil, err
	}
	byTag, err := reviewOf(pod(containers, i.tag))
	if err != nil {
		return nil, nil, err
	}
	cached, forgetful := ours(i.resolver()), ours(nil)
	alone = []*subject{
		{name: "this project, images by digest, cached", handler: cached.webhook, review: byDigest, rounds: rounds},
		{name: "dapr's patcher", handler: dapr{}, review: byDigest, rounds: rounds},
		{name: "controller-runtime's method: the typed pod is changed, marshalled and compared", handler: typed(), review: byDigest, rounds: rounds},
	}
	asking = []*subject{
		{name: "this project, images by tag, cached; the registry is asked for each tag's digest", handler: cached.webhook, review: byTag, rounds: fresh},
		{name: "this project, images by tag, not cached", handler: forgetful.webhook, review: byTag, rounds: fresh,
			before: func() { forgetful.images = i.resolver() }},
	}
	return alone, asking, nil
}

func (i *images) resolver() *registry.Resolver {
	return registry.New(registry.Options{PlainHTTP: []string{i.host}})
}

// handler is the webhook's pod handler. A benchmark can replace the handler's image resolver. The
// lookup of owners always returns the same owner.
type handler struct {
	webhook http.Handler
	images  *registry.Resolver
}

func ours(resolver *registry.Resolver) *handler {
	h := &handler{images: resolver}
	h.webhook = admit.Serve(admit.NewPodHandler(admit.Options{
		AgentImage: "registry.example.com/metaparticle/agent:v1", Images: h, Owners: owner{},
	}), new(load.Limit))
	return h
}

// For implements [image.Images].
func (h *handler) For(rights image.PullRights) image.Reader { return h.images.For(rights) }

// Known returns the command of an image named by digest, if the resolver remembers the command. The
// second result is false if the resolver does not remember the command.
func (h *handler) Known(image string) (image.Command, bool) { return h.images.Known(image) }

// owner names the same Deployment for every pod. The template of the Deployment is the pod's spec.
type owner struct{}

// JobUID implements [mutate.Owners].
func (owner) JobUID(context.Context, string, string) (string, error) { return "", nil }

// Origin implements [mutate.Owners].
func (owner) Origin(_ context.Context, _ string, pod *corev1.Pod) (feature.Origin, error) {
	return feature.Origin{Workload: api.Workload{Group: "apps", Kind: "Deployment", Name: "biller"}, Template: &pod.Spec}, nil
}
