// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package feature

import (
	"regexp"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/mutate/reason"
)

// judgeLeftovers refuses shims in a pod whose gate needs no shims. Such a pod is probably the
// copy of a running pod.
func judgeLeftovers(p *Pod) reason.Refusals {
	var refusals reason.Refusals
	if api.HasShims(p.Request) {
		return nil
	}
	for _, name := range shimmed(p.Pod) {
		refusals.Add(reason.Leftover, "container %q starts with %s, which is for the gate %q", name, api.ShimProgram, api.GateContainer)
	}
	return refusals
}

// JudgeUnclaimed refuses injected parts in a pod that claims nothing, unless the pod's conditions
// or barrier need these parts. Such a pod is probably the copy of a gated pod, but without the
// annotation of the claim. If the copy were admitted, its injected parts would wait for ever.
func JudgeUnclaimed(pod *corev1.Pod, request api.Request) reason.Refusals {
	var refusals reason.Refusals
	for _, name := range shimmed(pod) {
		refusals.Add(reason.Leftover, "container %q starts with %s", name, api.ShimProgram)
	}
	if hasInjected(pod, api.WaitContainer) {
		refusals.Add(reason.Leftover, "init container %q waits for a slot", api.WaitContainer)
	}
	if slices.ContainsFunc(pod.Spec.InitContainers, servesLocal) {
		refusals.Add(reason.Leftover, "init container %q serves the local API", api.AgentContainer)
	}
	if len(request.After) == 0 && slices.ContainsFunc(pod.Spec.InitContainers, waitsForConditions) {
		refusals.Add(reason.Leftover, "init container %q waits for conditions", api.AfterContainer)
	}
	if request.Barrier.Size == 0 && slices.ContainsFunc(pod.Spec.InitContainers, waitsAtBarrier) {
		refusals.Add(reason.Leftover, "init container %q waits at a barrier", api.BarrierContainer)
	}
	if len(refusals) > 0 {
		return refusals
	}
	for _, name := range []string{api.TurnContainer, api.AgentContainer} {
		if hasInjected(pod, name) {
			refusals.Add(reason.Leftover, "init container %q is for a claim", name)
		}
	}
	return refusals
}

// servesLocal reports whether the container is the agent that serves the local API.
func servesLocal(c corev1.Container) bool { return c.Name == api.AgentContainer && api.IsLocal(c.Args) }

// restoreLabel is the label that Velero writes on everything that it restores.
const restoreLabel = "velero.io/restore-name"

// generated matches a name that the API server has completed after a controller's generateName.
var generated = regexp.MustCompile(`-[bcdfghjklmnpqrstvwxz2456789]{5}$`)

// RestoredOrigin returns the origin of a pod that Velero restores: without a controller, which
// comes later and adopts the pod by its labels, and with the injected parts of the pod in the backup.
// The agent's arguments name the workload, and count only if the pod's marks are those of this
// workload. So the pod competes for the workload's own slots, and cannot run beside their holder.
//
// A copy of a restored pod may have the label, too. But a person has chosen its name.
func RestoredOrigin(pod *corev1.Pod, request api.Request) (Origin, bool) {
	named := generated.MatchString(pod.Name) || pod.Name != "" && pod.Labels[appsv1.StatefulSetPodNameLabel] == pod.Name
	if pod.Labels[restoreLabel] == "" || !named {
		return Origin{}, false
	}
	i := slices.IndexFunc(pod.Spec.InitContainers, func(c corev1.Container) bool { return c.Name == api.AgentContainer })
	if i < 0 {
		return Origin{}, false
	}
	args := api.RecallRunArgs(pod.Spec.InitContainers[i].Args)
	workload, ok := api.ParseWorkload(args.Workload)
	// A Job never adopts its restored pods, so they would do its work a second time. A core kind but
	// this one is a forgery, by which a pod would hold a workload's slot under another name.
	if api.BuiltinOwner(workload.Kind).Runs || workload.Group == "" && workload.Kind != "ReplicationController" || workload.String() != args.Workload {
		return Origin{}, false
	}
	if !ok || pod.Annotations[api.SlotsAnnotation] != strings.Join(request.Marks(workload), ",") {
		return Origin{}, false
	}
	return Origin{Workload: workload, Revision: args.Revision, MinReady: args.MinReady, ReplacesUnready: args.ReplacesUnready}, true
}

// copied returns a slot in the pod's marks that belongs to the singleton of another workload, or an
// empty text. A pod with such a slot is a copy of that workload's pod. A pod with a controller is
// no copy, because tools that copy a pod drop its controller. The function ignores slots of a whole
// namespace, because any pod of the namespace may claim them.
func (f Facts) copied() string {
	if metav1.GetControllerOfNoCopy(f.Pod) != nil {
		return ""
	}
	// The part after the first dot in the name of a singleton's slot names the workload.
	_, own, _ := strings.Cut(api.SingletonLease(f.Workload, ""), ".")
	for slot := range strings.SplitSeq(f.Annotations[api.SlotsAnnotation], ",") {
		_, of, _ := strings.Cut(slot, ".")
		if api.ScopeOf(slot) == api.ScopeWorkload && of != own {
			return slot
		}
	}
	return ""
}

// shimmed returns the names of the containers that have a shim already.
func shimmed(pod *corev1.Pod) []string {
	var names []string
	for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range list {
			if hasShim(&list[i]) {
				names = append(names, list[i].Name)
			}
		}
	}
	return names
}

// hasInjected reports whether the pod has the injected container of this name.
func hasInjected(pod *corev1.Pod, name string) bool {
	return isInjected(pod, name) && slices.ContainsFunc(pod.Spec.InitContainers, func(c corev1.Container) bool { return c.Name == name })
}
