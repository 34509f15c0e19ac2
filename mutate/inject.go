// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package mutate

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"gomodules.xyz/jsonpatch/v2"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/json"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/api/podspec"
	"github.com/metaparticle-io/metaparticle/mutate/feature"
	"github.com/metaparticle-io/metaparticle/mutate/image"
	"github.com/metaparticle-io/metaparticle/mutate/load"
	"github.com/metaparticle-io/metaparticle/mutate/patch"
	"github.com/metaparticle-io/metaparticle/mutate/reason"
)

// maxName is the API server's own bound for the name of a container. The patch contains each name
// several times, and the API server validates the names only after the webhook's answer.
const maxName = 63

// maxAnnotations is the API server's own bound for the annotations of an object, in bytes. The API
// server validates the annotations only after the webhook's answer.
const maxAnnotations = 256 << 10

// Owners finds the origins of pods. If the load has no room for an object, the error is
// [load.ErrOverloaded].
type Owners interface {
	// Origin follows the controllers of a pod up to the top-most controller, such as from
	// ReplicaSet to Deployment. The caller passes only a pod with a controller.
	//
	// The result has the template of this very pod, or nil if Origin does not know exactly this
	// template. The template of another revision could lack a container, which would then run
	// ungated.
	Origin(ctx context.Context, namespace string, pod *corev1.Pod) (feature.Origin, error)
	// JobUID returns the UID of a Job; empty if there is no Job of that name.
	JobUID(ctx context.Context, namespace, job string) (string, error)
}

// Subject is a pod that is to be created, and those who know its surroundings.
type Subject struct {
	// Raw is the pod's text.
	Raw []byte
	// Pod is the decoded form of Raw. If Pod is nil, Inject decodes Raw.
	Pod       *corev1.Pod
	Namespace string
	// Owners are asked only about a pod that needs an injected container and that nothing refuses yet. They are
	// not asked if Origin has a workload already.
	Owners Owners
	feature.Origin
	// Limits returns the namespace's LimitRanges, as far as they are known. The resources of
	// the injected containers stay within these ranges. Limits may be nil.
	Limits func() []corev1.LimitRange
	// Kubernetes is the minor version of the cluster: 34 for Kubernetes 1.34, and zero for an
	// unknown version.
	Kubernetes int
}

// Inject judges a pod, and returns warnings, and the operations that gate the pod. A pod that is gated already
// gets no operation. A pod that claims nothing, but has conditions or a barrier, gets only the containers
// that wait for them. For any other pod that claims nothing, the operations only remove marks. The
// error is [reason.Refusals], [ErrMalformed] or [load.ErrOverloaded].
func Inject(ctx context.Context, s Subject, agentImage string, images image.Images) ([]jsonpatch.Operation, reason.Refusals, error) {
	if s.Pod == nil {
		s.Pod = new(corev1.Pod)
		if err := json.Unmarshal(s.Raw, s.Pod); err != nil {
			return nil, nil, Malformed(err)
		}
	}
	// Nothing may read an annotation of such a pod, because that could take long.
	if hasHugeAnnotations(s.Pod) {
		return nil, nil, fmt.Errorf("%w: the annotations have more than %d KiB", ErrMalformed, maxAnnotations>>10)
	}
	d, err := patch.Open(s.Raw)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	request, mistakes := read(s.Pod.Annotations)
	if len(mistakes) > 0 && !request.Injects() {
		return nil, nil, mistakes
	}
	if !request.Claims() {
		if refusals := feature.JudgeUnclaimed(s.Pod, request); len(refusals) > 0 {
			return nil, nil, append(mistakes, refusals...)
		}
	}
	if !request.Injects() {
		feature.RemoveMarks(d)
		return d.Operations(), nil, nil
	}
	f := feature.Facts{
		Pod: s.Pod, Document: d, Request: request, Namespace: s.Namespace, Origin: s.Origin,
		Kubernetes: s.Kubernetes, AgentImage: agentImage,
	}
	refusals, err := s.learn(ctx, &f)
	if err != nil {
		return nil, nil, err
	}
	if len(refusals) > 0 {
		return nil, nil, append(mistakes, refusals...)
	}
	switch err := judgeNames(s.Pod); {
	case err != nil && len(mistakes) > 0:
		return nil, nil, mistakes
	case err != nil:
		return nil, nil, err
	}
	if s.Limits != nil && len(mistakes) == 0 {
		f.Limits = s.Limits()
	}
	return gate(ctx, f, mistakes, images)
}

// learn adds what the owners know to the facts about a pod, and refuses a pod whose Jobs or owner are not known,
// or whose owner no object can be. A pod with neither a claim nor a barrier needs no facts about its owner. The
// error is [load.ErrOverloaded].
func (s Subject) learn(ctx context.Context, f *feature.Facts) (reason.Refusals, error) {
	if s.Workload.Kind != "" {
		return judgeOrigin(s.Pod, f.Workload), nil
	}
	unknown, err := s.runs(ctx, &f.Request)
	if err != nil || len(unknown) > 0 {
		return unknown, err
	}
	controller := metav1.GetControllerOf(s.Pod)
	if controller == nil {
		var restored bool
		if f.Origin, restored = feature.RestoredOrigin(s.Pod, f.Request); !restored {
			f.Workload = api.Workload{Kind: "Pod", Name: s.Pod.Name}
		}
		return judgeOrigin(s.Pod, f.Workload), nil
	}
	f.Workload = podspec.WorkloadOf(controller)
	if refusals := judgeOrigin(s.Pod, f.Workload); len(refusals) > 0 || !f.Request.Claims() && f.Request.Barrier.Size == 0 {
		return refusals, nil
	}
	f.Origin, err = s.Owners.Origin(ctx, s.Namespace, s.Pod)
	if errors.Is(err, load.ErrOverloaded) {
		return nil, err
	}
	if err != nil {
		unknown.Add(reason.WorkloadUnknown, "%s %q: %v", controller.Kind, controller.Name, err)
		return unknown, nil
	}
	return judgeOrigin(s.Pod, f.Workload), nil
}

// runs writes the UID of each Job whose shards a condition names into the conditions, unless the condition has
// a UID already. The refusals name a Job that cannot be read.
func (s Subject) runs(ctx context.Context, request *api.Request) (unknown reason.Refusals, err error) {
	runs := map[string]string{}
	for _, c := range request.After {
		job := c.Job()
		if job == "" || c.Key != "" {
			continue
		}
		run, err := s.Owners.JobUID(ctx, s.Namespace, job)
		if errors.Is(err, load.ErrOverloaded) {
			return nil, err
		}
		if err != nil {
			unknown.Add(reason.WorkloadUnknown, "Job %q of %s: %v", job, api.AfterAnnotation, err)
			return unknown, nil
		}
		runs[job] = run
	}
	request.After = api.InRuns(request.After, runs)
	return nil, nil
}

// read returns the request of a pod's annotations, and a refusal for each mistake in them. Beside
// mistakes, the request is what the other annotations ask for, if that is known ([api.Mistakes.Rest]).
func read(annotations map[string]string) (api.Request, reason.Refusals) {
	request, err := api.Parse(annotations)
	mistakes, ok := errors.AsType[api.Mistakes](err)
	if !ok {
		return request, nil
	}
	rest, _ := mistakes.Rest(annotations)
	return rest, reason.Mistaken(mistakes)
}

// gate judges and patches a pod that needs an injected container. Between these steps, the function
// looks up the pod's images, but only if nothing else refuses the pod.
func gate(ctx context.Context, f feature.Facts, mistakes reason.Refusals, images image.Images) ([]jsonpatch.Operation, reason.Refusals, error) {
	p, refusals := feature.NewPod(f)
	if len(refusals) == 0 {
		refusals = p.Judge()
	}
	if refusals = append(mistakes, refusals...); len(refusals) > 0 {
		return nil, nil, refusals
	}
	if err := p.LookUp(ctx, images); err != nil {
		return nil, nil, err
	}
	p.Patch()
	return f.Document.Operations(), p.Warn(), nil
}

// hasHugeAnnotations reports whether a pod has more annotations than the API server allows.
func hasHugeAnnotations(pod *corev1.Pod) bool {
	bytes := 0
	for key, value := range pod.Annotations {
		bytes += len(key) + len(value)
	}
	return bytes > maxAnnotations
}

// judgeNames refuses a pod whose containers the API server would refuse.
func judgeNames(pod *corev1.Pod) error {
	if len(pod.Spec.Containers) == 0 || hasEmptyName(pod) {
		return fmt.Errorf("%w: no container, or a container without a name", ErrMalformed)
	}
	if hasLongName(pod) {
		return fmt.Errorf("%w: the name of a container has more than %d bytes", ErrMalformed, maxName)
	}
	return nil
}

func hasEmptyName(pod *corev1.Pod) bool {
	return slices.ContainsFunc(pod.Spec.Containers, func(c corev1.Container) bool { return c.Name == "" })
}

// hasLongName reports whether the name of a container is longer than the API server allows.
func hasLongName(pod *corev1.Pod) bool {
	long := func(c corev1.Container) bool { return len(c.Name) > maxName }
	return slices.ContainsFunc(pod.Spec.InitContainers, long) || slices.ContainsFunc(pod.Spec.Containers, long)
}
