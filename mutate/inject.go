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
	"k8s.io/apimachinery/pkg/util/json"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/mutate/feature"
	"github.com/metaparticle-io/metaparticle/mutate/image"
	"github.com/metaparticle-io/metaparticle/mutate/patch"
	"github.com/metaparticle-io/metaparticle/mutate/reason"
)

// maxName is the API server's own bound for the name of a container. The patch contains each name
// several times, and the API server validates the names only after the webhook's answer.
const maxName = 63

// maxAnnotations is the API server's own bound for the annotations of an object, in bytes. The API
// server validates the annotations only after the webhook's answer.
const maxAnnotations = 256 << 10

// Subject is a pod that is to be created, with the facts that the webhook knows about it.
type Subject struct {
	// Raw is the pod's text.
	Raw []byte
	// Pod is the decoded form of Raw. If Pod is nil, Inject decodes Raw.
	Pod       *corev1.Pod
	Namespace string
	feature.Origin
	// Runs has the UID of each Job whose shards the pod waits for, by the Job's name. The UID is
	// empty if the Job does not exist.
	Runs map[string]string
	// Limits are the namespace's LimitRanges, as far as they are known. The resources of
	// the injected containers stay within these ranges.
	Limits []corev1.LimitRange
	// Kubernetes is the minor version of the cluster: 34 for Kubernetes 1.34, and zero for an
	// unknown version.
	Kubernetes int
	// Unknown refuses the pod, because its controllers or the Jobs of its conditions are not known.
	Unknown reason.Refusals
}

// Inject returns warnings, and the operations that gate a pod. A pod that is gated already gets no
// operation. A pod that claims nothing, but has conditions or a barrier, gets only the containers
// that wait for them. For any other pod that claims nothing, the operations only remove marks. The
// error is [reason.Refusals], [ErrMalformed] or [load.ErrOverloaded].
func Inject(ctx context.Context, s Subject, agentImage string, images image.Images) ([]jsonpatch.Operation, reason.Refusals, error) {
	if s.Pod == nil {
		s.Pod = new(corev1.Pod)
		if err := json.Unmarshal(s.Raw, s.Pod); err != nil {
			return nil, nil, Malformed(err)
		}
	}
	if HasHugeAnnotations(s.Pod) {
		return nil, nil, fmt.Errorf("%w: the annotations have more than %d KiB", ErrMalformed, maxAnnotations>>10)
	}
	request, mistakes := read(s.Pod.Annotations)
	if len(s.Unknown) > 0 {
		return nil, nil, append(mistakes, s.Unknown...)
	}
	request.After = api.InRuns(request.After, s.Runs)
	d, err := patch.Open(s.Raw)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	switch {
	case len(mistakes) > 0 && !request.Injects():
		return nil, nil, mistakes
	case !request.Claims():
		if refusals := feature.JudgeUnclaimed(s.Pod, request); len(refusals) > 0 {
			return nil, nil, append(mistakes, refusals...)
		}
	}
	if !request.Injects() {
		feature.RemoveMarks(d)
		return d.Operations(), nil, nil
	}
	if refusals := JudgeOrigin(s.Pod, s.Workload); len(refusals) > 0 {
		return nil, nil, append(mistakes, refusals...)
	}
	switch err := judgeNames(s.Pod); {
	case err != nil && len(mistakes) > 0:
		return nil, nil, mistakes
	case err != nil:
		return nil, nil, err
	}
	return gate(ctx, feature.Facts{
		Pod: s.Pod, Document: d, Request: request, Namespace: s.Namespace, Origin: s.Origin,
		Limits: s.Limits, Kubernetes: s.Kubernetes, AgentImage: agentImage,
	}, mistakes, images)
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

// HasHugeAnnotations reports whether a pod has more annotations than the API server allows. Inject
// refuses such a pod. No function may read an annotation of such a pod, because that could take
// long.
func HasHugeAnnotations(pod *corev1.Pod) bool {
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
