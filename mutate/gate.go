// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package mutate

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/version"

	"github.com/metaparticle-io/metaparticle/api"
)

// RestartsAll is the first minor version of Kubernetes 1 in which a container
// can have all of its pod restarted (KEP-5532, on by default). There the
// scheduler also keeps such pods from nodes that cannot.
const RestartsAll = 36

// MinorVersion is what a cluster says of itself, if it is a Kubernetes 1.
func MinorVersion(info *version.Info) (int, error) {
	// Some say 36+ of a build of their own.
	n, err := strconv.Atoi(strings.TrimRight(info.Minor, "+"))
	if err != nil || info.Major != "1" {
		return 0, fmt.Errorf("version %q.%q is not understood", info.Major, info.Minor)
	}
	return n, nil
}

// judgeOutside is what speaks against a gate that is outside of the containers.
func (p parts) judgeOutside(kubernetes int) Refusals {
	var refusals Refusals
	judgeWindows(p.pod, &refusals)
	judgeNames(p.pod, &refusals)
	for _, c := range slices.Concat(p.pod.Spec.InitContainers, p.pod.Spec.Containers) {
		if shimmed(c) {
			refusals.add(Leftover, "container %q starts with %s, which is for the gate %q", c.Name, api.AgentBinary, api.GateContainer)
		}
	}
	for _, c := range slices.Concat(p.pod.Spec.InitContainers, p.pod.Spec.Containers) {
		if ours(p.pod, c.Name) {
			continue
		}
		judgeMounts(c, false, &refusals)
		judgePorts(p.pod, c, &refusals)
	}
	if p.request.Gate == api.GatePod {
		judgeRestart(p.pod, kubernetes, &refusals)
	} else {
		judgeWaits(p.pod, &refusals)
	}
	return refusals
}

// judgeWaits refuses what is left of the gate "pod" in a pod with another one.
func judgeWaits(pod *corev1.Pod, refusals *Refusals) {
	if waits(pod) {
		refusals.add(Leftover, "init container %q waits for the gate %q", api.WaitContainer, api.GatePod)
	}
}

// judgeRestart is about pods whose containers are restarted, all at once,
// whenever the slot is lost.
func judgeRestart(pod *corev1.Pod, kubernetes int, refusals *Refusals) {
	switch {
	case kubernetes == 0:
		refusals.add(KubernetesTooOld, "%s is %q, and the cluster's version is not known", api.GateAnnotation, api.GatePod)
	case kubernetes < RestartsAll:
		refusals.add(KubernetesTooOld, "%s is %q, and the cluster is 1.%d", api.GateAnnotation, api.GatePod, kubernetes)
	}
	if pod.Spec.RestartPolicy == corev1.RestartPolicyNever {
		refusals.add(NeverRestarted, "%s is %q, and the pod's restartPolicy is Never", api.GateAnnotation, api.GatePod)
	}
	for _, c := range pod.Spec.Containers {
		if c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyNever {
			refusals.add(NeverRestarted, "%s is %q, and the restartPolicy of container %q is Never", api.GateAnnotation, api.GatePod, c.Name)
		}
	}
}

// judgeToken warns of an agent's token that the application can read, and was not
// meant to have. With its own token it has the same rights already; with a gate in the
// containers it shares no processes with the agent.
func judgeToken(spec *corev1.PodSpec, request api.Request) Refusals {
	var warnings Refusals
	shares := spec.HostPID || (spec.ShareProcessNamespace != nil && *spec.ShareProcessNamespace)
	without := spec.AutomountServiceAccountToken != nil && !*spec.AutomountServiceAccountToken
	if request.Claims() && !request.Shims() && shares && without {
		warnings.add(TokenInReach, "%s is %q, and the pod shares its processes", api.GateAnnotation, request.Gate)
	}
	return warnings
}

// waits: the pod has the init container of the gate "pod".
func waits(pod *corev1.Pod) bool {
	return injected(pod) && slices.ContainsFunc(pod.Spec.InitContainers, func(c corev1.Container) bool {
		return c.Name == api.WaitContainer
	})
}

// injected are the containers that the gate needs, in their order. The agent
// comes after the pod's own init containers: they run when they did, and
// sidecars are stopped in the reverse order of their start, so a mesh's proxy
// still carries the agent's last write.
func (p parts) injected() []corev1.Container {
	switch p.request.Gate {
	case api.GatePod:
		return []corev1.Container{p.turn(), p.agent(), p.wait()}
	case api.GateReadiness, api.GateContainer: // or empty
	}
	return []corev1.Container{p.agent()}
}

// volumes are those that the gate needs.
func (p parts) volumes() []corev1.Volume {
	if p.request.Gate == api.GateReadiness {
		return []corev1.Volume{credentialsVolume()}
	}
	return []corev1.Volume{sharedVolume(), credentialsVolume()}
}

// turn runs once before the pod's containers start, and again before all of them
// are started anew: so the agent tells that from a restart of its own.
func (p parts) turn() corev1.Container {
	return corev1.Container{
		Name:            api.TurnContainer,
		Image:           p.image,
		Args:            []string{api.TurnRole},
		Resources:       p.resources(),
		SecurityContext: p.security(),
		VolumeMounts:    []corev1.VolumeMount{{Name: api.Volume, MountPath: api.MountPath}},
	}
}

// wait ends when the slot is held; then the kubelet starts the application.
func (p parts) wait() corev1.Container {
	return corev1.Container{
		Name:            api.WaitContainer,
		Image:           p.image,
		Args:            []string{api.WaitRole},
		Resources:       p.resources(),
		SecurityContext: p.security(),
		VolumeMounts:    []corev1.VolumeMount{{Name: api.Volume, MountPath: api.MountPath, ReadOnly: true}},
	}
}

// restartRules have all containers restarted when the agent says so. The
// application may be a process that nobody may signal but the kubelet.
func (p parts) restartRules() []corev1.ContainerRestartRule {
	if p.request.Gate != api.GatePod {
		return nil
	}
	return []corev1.ContainerRestartRule{{
		Action: corev1.ContainerRestartRuleActionRestartAllContainers,
		ExitCodes: &corev1.ContainerRestartRuleOnExitCodes{
			Operator: corev1.ContainerRestartRuleOnExitCodesOpIn,
			Values:   []int32{api.RestartCode},
		},
	}}
}
