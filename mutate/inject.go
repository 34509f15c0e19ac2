// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package mutate

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"gomodules.xyz/jsonpatch/v2"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/json"

	"github.com/metaparticle-io/metaparticle/api"
)

// ErrMalformed: what came is not the object that it should be.
var ErrMalformed = errors.New("malformed object")

// Subject is a pod on its way in, and what is known about it besides.
type Subject struct {
	// Raw is the pod as it came.
	Raw       []byte
	Namespace string
	// Workload is the pod's group.
	Workload api.Workload
	// Template is the pod template that this very pod was made from; nil if
	// that is not known for certain. Its containers are the ones that are
	// gated by default: those that other injectors added are not in it.
	Template *corev1.PodSpec
	// Limits are the namespace's LimitRanges, as far as they are known. The
	// injected containers' resources keep to them.
	Limits []corev1.LimitRange
	// Kubernetes is the cluster's minor version of Kubernetes 1; zero if that
	// is not known.
	Kubernetes int
	// pod is Raw decoded, by whoever had to look at it before.
	pod *corev1.Pod
}

// Inject decides about one pod: the operations that gate it (none if it claims
// nothing, or is gated already), or [api.Mistakes], [Refusals] or a
// [ErrMalformed].
func Inject(ctx context.Context, s Subject, agentImage string, images Images) ([]jsonpatch.Operation, error) {
	pod := s.pod
	if pod == nil {
		pod = new(corev1.Pod)
		if err := json.Unmarshal(s.Raw, pod); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
		}
	}
	request, err := api.Parse(pod.Annotations)
	if err != nil {
		return nil, err
	}
	if !request.Claims() {
		return unclaimed(s.Raw, pod)
	}
	if refusals := judgeOrigin(pod, s.Workload); len(refusals) > 0 {
		return nil, refusals
	}
	if len(pod.Spec.Containers) == 0 || hasEmptyName(pod) {
		return nil, fmt.Errorf("%w: no container, or one without a name", ErrMalformed)
	}
	if refusals := judgeNumber(pod); len(refusals) > 0 {
		return nil, refusals
	}
	gated, refusals := gatedContainers(pod, request, s.Template)
	parts := parts{
		pod: pod, request: request, workload: s.Workload,
		gated: gated, inits: gatedInits(pod, request), image: agentImage, limits: s.Limits,
	}
	refusals = append(refusals, parts.judge(s.Raw, s.Kubernetes)...)
	if claim, ok := request.Within(api.ScopeWorkload); ok && s.Workload.Name == "" {
		refusals.add(PodWithoutName, "the pod claims %s", claim.Kind.Key)
	}
	if of := parts.copied(); of != "" {
		refusals.add(Leftover, "the pod has no controller, and was gated for %s, whose holder it would run beside (without the annotation %s it is a group of its own)", of, api.SlotsAnnotation)
	}
	if len(refusals) > 0 {
		return nil, refusals
	}
	var shims []shim
	if request.Shims() {
		if shims, err = shimAll(ctx, pod, places(gated, parts.inits), s.Namespace, images); err != nil {
			return nil, err
		}
	}
	d, err := open(s.Raw)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	if request.Shims() {
		parts.probes = probesOf(pod, gated)
	}
	write(d, parts, shims)
	return d.ops, nil
}

// unclaimed is about a pod that claims nothing. It stays as it is, but for the
// marks by which others take a pod for a gated one: the roles are made from
// them. A copy of a gated pod that claims no more would wait for ever.
func unclaimed(raw []byte, pod *corev1.Pod) ([]jsonpatch.Operation, error) {
	var refusals Refusals
	for _, c := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
		if shimmed(c) {
			refusals.add(Leftover, "container %q starts with %s", c.Name, api.AgentBinary)
		}
	}
	if waits(pod) {
		refusals.add(Leftover, "init container %q waits for a slot", api.WaitContainer)
	}
	if len(refusals) > 0 {
		return nil, refusals
	}
	d, err := open(raw)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	d.remove("metadata", "annotations", api.SlotsAnnotation)
	d.remove("metadata", "labels", api.GatedLabel)
	return d.ops, nil
}

// copied returns the singleton of another workload that a pod without a controller
// was gated for, or nothing. Such a pod is a copy: tools that keep the annotations
// of a pod drop its controller. Locks are claimed by whoever has the annotation.
func (p parts) copied() string {
	if metav1.GetControllerOfNoCopy(p.pod) != nil {
		return ""
	}
	// What follows the first dot of a singleton's slot is its workload.
	_, own, _ := strings.Cut(api.SingletonLease(p.workload, ""), ".")
	for slot := range strings.SplitSeq(p.pod.Annotations[api.SlotsAnnotation], ",") {
		_, of, _ := strings.Cut(slot, ".")
		if api.IsSlot(slot) && !strings.HasPrefix(slot, api.LockLease("")) && of != own {
			return slot
		}
	}
	return ""
}

func hasEmptyName(pod *corev1.Pod) bool {
	return slices.ContainsFunc(pod.Spec.Containers, func(c corev1.Container) bool { return c.Name == "" })
}

// gatedContainers are the indices of the containers that wait for the slot.
// What a pod carries already counts before "all", so that a container which a
// later injector added stays as it came when the pod comes by again.
func gatedContainers(pod *corev1.Pod, request api.Request, template *corev1.PodSpec) ([]int, Refusals) {
	named := func(names []string) []int {
		return indices(pod, func(c corev1.Container) bool { return slices.Contains(names, c.Name) })
	}
	if len(request.Containers) > 0 {
		return named(request.Containers), absent(pod, request.Containers)
	}
	if names := containerNames(template); len(names) > 0 && len(absent(pod, names)) == 0 {
		return named(names), nil
	}
	if before := indices(pod, shimmed); len(before) > 0 {
		return before, nil
	}
	if own := indices(pod, func(c corev1.Container) bool { return !slices.Contains(proxies, c.Name) }); len(own) > 0 {
		return own, nil
	}
	return indices(pod, func(corev1.Container) bool { return true }), nil
}

// proxies are the containers that well-known injectors add to pods, by the names
// that these give them. Where the pod's template is not known, nothing else tells
// them from the application's. Gated, a mesh's proxy would carry no traffic, the
// agent's own least of all, and the pod would wait for itself.
var proxies = []string{
	"istio-proxy",      // Istio, Cloud Service Mesh
	"linkerd-proxy",    // Linkerd
	"consul-dataplane", // Consul
	"kuma-sidecar",     // Kuma, Kong Mesh
	"daprd",            // Dapr
	"vault-agent",      // Vault's injector
}

func indices(pod *corev1.Pod, match func(corev1.Container) bool) []int {
	var found []int
	for i, c := range pod.Spec.Containers {
		if match(c) {
			found = append(found, i)
		}
	}
	return found
}

func containerNames(spec *corev1.PodSpec) []string {
	if spec == nil {
		return nil
	}
	var names []string
	for _, c := range spec.Containers {
		names = append(names, c.Name)
	}
	return names
}

// absent refuses the names that are no container of the pod.
func absent(pod *corev1.Pod, names []string) Refusals {
	var refusals Refusals
	var have []string
	for _, c := range pod.Spec.Containers {
		have = append(have, c.Name)
	}
	all := strings.Join(have, ", ")
	for _, name := range names {
		switch {
		case slices.Contains(have, name):
		case slices.ContainsFunc(pod.Spec.InitContainers, func(c corev1.Container) bool { return c.Name == name && !ours(pod, name) }):
		default:
			refusals.add(UnknownContainer, "%s names %q, but the pod has %s", api.ContainersAnnotation, name, all)
		}
	}
	return refusals
}

// write makes every change. Each is written as a state that is to hold, so
// that there is nothing to do where it holds already.
func write(d *document, p parts, shims []shim) {
	for _, s := range shims {
		at := []any{"spec", s.list, s.index}
		d.set(s.command, append(at, "command")...)
		if len(s.args) > 0 {
			d.set(s.args, append(at, "args")...)
		}
		d.ensure("name", gateMount(), append(at, "volumeMounts")...)
		if s.list == "containers" {
			// An init container may have none of it; that is not ours to hide.
			takeHooks(d, append(at, "lifecycle"))
		}
	}
	for _, s := range shims {
		if s.list == "containers" {
			aim(d, p, s.index)
		}
	}
	for _, c := range p.injected() {
		p.put(d, c)
		i, _ := d.index("name", c.Name, "spec", "initContainers")
		for _, field := range foreign {
			d.remove("spec", "initContainers", i, field)
		}
		if hooks := []any{"spec", "initContainers", i, "lifecycle"}; c.Lifecycle == nil {
			d.remove(hooks...)
		} else {
			d.set(c.Lifecycle, hooks...) // and no other
		}
	}
	for _, v := range p.volumes() {
		d.ensure("name", v, "spec", "volumes")
	}
	if p.opensLowPorts() {
		d.ensure("name", unprivilegedPorts, "spec", "securityContext", "sysctls")
	}
	d.ensure("conditionType", corev1.PodReadinessGate{ConditionType: api.ReadyCondition}, "spec", "readinessGates")
	d.set(strings.Join(p.slots(), ","), "metadata", "annotations", api.SlotsAnnotation)
	d.set(api.Gated, "metadata", "labels", api.GatedLabel)
	// A copy of a holder is no holder.
	d.remove("metadata", "labels", api.RoleLabel)
	if p.pod.Annotations[api.DeletionCostAnnotation] == api.HolderDeletionCost {
		d.remove("metadata", "annotations", api.DeletionCostAnnotation)
	}
	if _, ok := p.pod.Annotations[defaultContainer]; !ok {
		d.set(p.pod.Spec.Containers[p.gated[0]].Name, "metadata", "annotations", defaultContainer)
	}
}

// foreign are fields that the injected containers never have: the image knows
// its command, and with a startup probe crashed main containers never restart
// after the kubelet did (kubernetes#137146).
var foreign = []string{"command", "livenessProbe", "readinessProbe", "startupProbe"}

// defaultContainer is what kubectl logs and exec look at where no container is
// named.
const defaultContainer = "kubectl.kubernetes.io/default-container"
