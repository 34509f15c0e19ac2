// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package mutate

import (
	"fmt"
	"strings"

	"github.com/metaparticle-io/metaparticle/api"
)

// Reason is the name of a "no": the same in warnings, errors, Events and
// metrics. The set is closed; [Reasons] lists it.
type Reason string

// The reasons.
const (
	BadAnnotation    Reason = "BadAnnotation"
	HostNetwork      Reason = "HostNetwork"
	SharedProcesses  Reason = "SharedProcesses"
	Windows          Reason = "Windows"
	Probes           Reason = "Probes"
	Hooks            Reason = "Hooks"
	InitContainer    Reason = "InitContainer"
	ContainerLimit   Reason = "ContainerLimit"
	UnknownContainer Reason = "UnknownContainer"
	NameTaken        Reason = "NameTaken"
	MountTaken       Reason = "MountTaken"
	PortTaken        Reason = "PortTaken"
	ImageUnreadable  Reason = "ImageUnreadable"
	ImagePlatforms   Reason = "ImagePlatforms"
	NoCommand        Reason = "NoCommand"
	KubernetesTooOld Reason = "KubernetesTooOld"
	NeverRestarted   Reason = "NeverRestarted"
	RestartRule      Reason = "RestartRule"
	PodWithoutName   Reason = "PodWithoutName"
	WorkloadUnknown  Reason = "WorkloadUnknown"
	BadOwner         Reason = "BadOwner"
	StaticPod        Reason = "StaticPod"
	Leftover         Reason = "Leftover"
	JobImmutable     Reason = "JobImmutable"
	TemplateDiffers  Reason = "TemplateDiffers"
	RolloutStalls    Reason = "RolloutStalls"
	TokenInReach     Reason = "TokenInReach"
	MarksKept        Reason = "MarksKept"
)

// Explanation says what a reason means and what to do about it.
type Explanation struct {
	Reason  Reason
	Meaning string
	Do      string
	// WarnOnly: the reason never refuses anything.
	WarnOnly bool
}

// Reasons are all reasons there are.
var Reasons = []Explanation{
	{
		Reason:  BadAnnotation,
		Meaning: "An annotation is misspelt, malformed, not supported, or contradicts another one.",
		// Each mistake says itself what to do.
	},
	{
		Reason:  HostNetwork,
		Meaning: "The pod uses its node's network and declares a TCP port below 1024. A standby would forward that port, but its agent is not root, and on a node's network nothing lets it listen there.",
		Do:      "set metaparticle.io/readiness: holder, with which nothing is forwarded, or declare a port from 1024 on",
	},
	{
		Reason:  SharedProcesses,
		Meaning: "The pod's containers share a process namespace (shareProcessNamespace or hostPID), in which the end of a container does not prove that its processes are dead.",
		Do:      "use metaparticle.io/gate: pod, which needs no such proof, or remove the setting or the claim",
	},
	{
		Reason:  Windows,
		Meaning: "The pod runs on Windows; the gate needs Linux.",
		Do:      "remove the claim",
	},
	{
		Reason:  Probes,
		Meaning: "A gated container has a probe that the agent cannot make in the kubelet's stead. The message says why: a kind or a field that this version does not know, HTTP/2 without TLS, a port that the container does not name, a loopback address (which means the node), or values that Kubernetes itself would refuse.",
		Do:      "change the probe, or leave the container out by naming the others in metaparticle.io/containers",
	},
	{
		Reason:  Hooks,
		Meaning: "A gated container has a lifecycle hook that the agent cannot run in the kubelet's stead. The message says why: a kind or a field that this version does not know, a port that the container does not name, a loopback address (which means the node, and is not reached from the pod), or values that Kubernetes itself would refuse. Or the container is stopped by a signal that Go's runtime keeps for itself, so that a gate is not told of it: SIGCHLD, SIGURG, SIGPROF, SIGRTMIN, or 32 and 33.",
		Do:      "change or remove the hook or the stop signal, or leave the container out by naming the others in metaparticle.io/containers",
	},
	{
		Reason:  InitContainer,
		Meaning: "`metaparticle.io/containers` names an init container that cannot be gated: it is a native sidecar, and the containers after it count on its running; or no main container is named beside it, so that nothing would keep the slot after it.",
		Do:      "name ordinary init containers, and the main containers that run after them",
	},
	{
		Reason:  ContainerLimit,
		Meaning: "The pod has more than 100 containers and init containers, each of which the webhook may have to look up while the pod's creation waits.",
		Do:      "split the pod, or remove the claim",
	},
	{
		Reason:  UnknownContainer,
		Meaning: "`metaparticle.io/containers` names a container that the pod does not have.",
		Do:      "name containers of the pod",
	},
	{
		Reason:  NameTaken,
		Meaning: "The pod has a container or volume of its own under a name that the injected parts need.",
		Do:      "rename it",
	},
	{
		Reason:  MountTaken,
		Meaning: "A gated container mounts something at /metaparticle, where the gate's binary goes.",
		Do:      "mount it elsewhere",
	},
	{
		Reason:  PortTaken,
		Meaning: "A container declares the port that the agent serves its metrics on.",
		Do:      "use another port",
	},
	{
		Reason:  ImageUnreadable,
		Meaning: "A gated container has no explicit command, and its image's own could not be read from the registry in time. The message names the class of failure; the webhook's log has the registry's own words.",
		Do:      "write the container's command out, or make the image readable: pull secrets of the pod or its service account, registry, certificates",
	},
	{
		Reason:  ImagePlatforms,
		Meaning: "A gated container has no explicit command, and its image runs different ones on variants of one architecture (such as arm/v6 and arm/v7), which cannot be told apart when the container starts.",
		Do:      "write the container's command out",
	},
	{
		Reason:  NoCommand,
		Meaning: "A gated container has no command, and its image has none either.",
		Do:      "write the container's command out",
	},
	{
		Reason:  KubernetesTooOld,
		Meaning: "With `metaparticle.io/gate: pod` a lost slot restarts all containers of the pod, which needs Kubernetes 1.36.",
		Do:      "leave metaparticle.io/gate out, or use another cluster; where the version is not known, see the webhook's log",
	},
	{
		Reason:  NeverRestarted,
		Meaning: "With `metaparticle.io/gate: pod` a lost slot restarts all containers of the pod, but the restartPolicy of the pod, or of one of its containers, is Never.",
		Do:      "leave metaparticle.io/gate out, or set restartPolicy OnFailure or Always",
	},
	{
		Reason:  RestartRule,
		Meaning: "With `metaparticle.io/on-loss: restart` or restartPolicy Never a lost slot ends a gated container with exit code 75. A restart rule of the container matches that code, and would take it for the application's.",
		Do:      "leave 75 out of the rule, or let the container stand by instead (the default, where its restartPolicy is not Never)",
	},
	{
		Reason:  PodWithoutName,
		Meaning: "A pod without a controller is a group of its own, by its name; but with generateName it has none yet.",
		Do:      "give the pod a name, or use metaparticle.io/lock",
	},
	{
		Reason:  WorkloadUnknown,
		Meaning: "The workload that the pod belongs to could not be read, or is not the object that the pod's owner reference means.",
		Do:      "wait, the pod's controller tries again; if it lasts, see the webhook's log",
	},
	{
		Reason:  BadOwner,
		Meaning: "The pod's controller, or the workload above it, has a kind or a name that no object can have.",
		Do:      "let the workload's own controller create the pod, or correct its owner reference",
	},
	{
		Reason:  StaticPod,
		Meaning: "The pod mirrors a static pod, which its kubelet starts from a file without asking the API server. Nothing that happens here gates it: the static pod runs already, and goes on.",
		Do:      "run the application as a Deployment or DaemonSet, or take the annotation out of the file",
	},
	{
		Reason:  Leftover,
		Meaning: "The pod carries injected parts, but claims nothing, asks for another gate, or belongs to another workload than the pod that they are of. It was probably copied from a running pod, and would wait for ever, or take a slot of the original's.",
		Do:      "add the claim again, or remove the injected parts and restore the containers' commands; to look into a gated pod, kubectl debug -it POD --image=IMAGE --target=CONTAINER needs no copy",
	},
	{
		Reason: JobImmutable, WarnOnly: true,
		Meaning: "A Job's template cannot change, so annotations count at its creation only.",
		Do:      "create the Job anew",
	},
	{
		Reason: TemplateDiffers, WarnOnly: true,
		Meaning: "The workload and its pod template carry different values; the template's counts.",
		Do:      "remove one of the two",
	},
	{
		Reason: RolloutStalls, WarnOnly: true,
		Meaning: "A standby is not Ready with `metaparticle.io/readiness: holder`, with a gated init container, and with the gates `pod` and `readiness`. The workload's rollout waits until each new pod is Ready, so the first new pod that stands by stops it.",
		Do:      "let the rollout go on without it (a Deployment's maxUnavailable of at least 1 or its strategy Recreate, a DaemonSet's maxUnavailable of 100%, a StatefulSet's or DaemonSet's updateStrategy OnDelete), or leave the annotation out",
	},
	{
		Reason: TokenInReach, WarnOnly: true,
		Meaning: "The pod mounts no token of its service account (automountServiceAccountToken is false), but its containers share a process namespace with the agent, which has one. A container that runs as root, or as the agent's user, reads it through /proc.",
		Do:      "give the pod a service account of its own, which has no other rights than the agent's, or do not share the process namespace",
	},
	{
		Reason: MarksKept, WarnOnly: true,
		Meaning: "An update of a gated pod left out the label metaparticle.io/gated or the annotation metaparticle.io/slots, as one does that replaces all labels. They were put back: the Leases and rights of its service account hang on them.",
		Do:      "nothing; to be rid of them, take the claim off the workload",
	},
}

// Elsewhere are the reasons of the admission policies, which refuse in the API
// server's own process, and of enroll. Their texts are in manifests/policies;
// here they are explained. A test holds both together.
var Elsewhere = []Explanation{
	{
		Reason:  "NamespaceNotOptedIn",
		Meaning: "A pod claims a slot in a namespace in which nothing is injected; it would run ungated.",
		Do:      "label the namespace, or remove the claim",
	},
	{
		Reason:  "NotInjected",
		Meaning: "A pod claims a slot and has no gate, or lacks a part of it: the webhook's configuration is missing or was changed, or another webhook added the annotation after ours had passed.",
		Do:      "annotate the workload or its template; reinstall if the configuration is gone",
	},
	{
		Reason:  "OptedOut",
		Meaning: "A pod claims a slot and opts out of injection.",
		Do:      "remove one of the two",
	},
	{
		Reason:  "NotCarried",
		Meaning: "An annotation of a workload, put on, changed or taken off, has not reached its pod template, because the webhook did not answer. The pods go by the template.",
		Do:      "try again when the webhook answers, or make the same change in the pod template",
	},
	{
		Reason:  "NotGated",
		Meaning: "An Event: a workload claims a slot, but its pods are from before its namespace was opted in and run ungated.",
		Do:      "restart the workload",
	},
	{
		Reason:  "TooManySlots",
		Meaning: "An Event: a service account claims more slots in one namespace (16,000) than its Roles have room for; the slot waits.",
		Do:      "give workloads service accounts of their own, or delete what is not needed",
	},
	{
		Reason:  "ImageChangedInPlace",
		Meaning: "The image of a gated or an injected container was to change in a pod that exists; the old image's command would run in the new one, or no agent would.",
		Do:      "change the workload's template instead",
	},
	{
		Reason:  "MarksForged",
		Meaning: "A pod carries the label metaparticle.io/gated or the annotation metaparticle.io/slots, by which rights are given, and was not gated by the webhook.",
		Do:      "remove both, from the template too; claim a slot instead",
	},
	{
		Reason:  "MarksChanged",
		Meaning: "The label metaparticle.io/gated or the annotation metaparticle.io/slots of a pod that exists was to change; the Leases and rights of its service account hang on them.",
		Do:      "change the workload's claim instead",
	},
	{
		Reason:  "NotYourIdentity",
		Meaning: "An agent may write only its own identity into a Lease, and take only its own out.",
		Do:      "nothing, if it was an agent, which stands by; to free a slot yourself, delete the pod that holds it",
	},
	{
		Reason:  "SlotHeld",
		Meaning: "A Lease that somebody holds is not deleted: the next pod would start beside the holder.",
		Do:      "delete the pod that holds, or wait until the lease has run out; shorten leaseDurationSeconds in the Lease if that is too long",
	},
	{
		Reason:  "NotYourself",
		Meaning: "With an agent's rights a pod changes only its own status, and of it only the parts that are ours.",
		Do:      "use an account with the right to update pods/status",
	},
	{
		Reason:  "NoIdentity",
		Meaning: "A Lease was to be written with an agent's rights, but by a token that is bound to no pod, while a slot is held by a pod.",
		Do:      "use the token that is mounted in the pod, or an account of your own",
	},
	{
		Reason:  "NotYours",
		Meaning: "With the rights of an agent, or of the webhook's service account, something was to be written that is not theirs; the message says what is.",
		Do:      "use an account of your own that has the right to write it",
	},
	{
		Reason:  "DurationTooLong",
		Meaning: "A slot's Lease was to be written with a duration of more than one hour, for which nobody may block a slot.",
		Do:      "write a shorter duration",
	},
}

// explain is the entry of a reason.
func explain(r Reason) Explanation {
	for _, e := range Reasons {
		if e.Reason == r {
			return e
		}
	}
	return Explanation{Reason: r}
}

// Refusal is one "no".
type Refusal struct {
	Reason Reason
	// Detail says what it is about: which container, which field.
	Detail string
}

func (r Refusal) Error() string {
	text := fmt.Sprintf("%s: %s", r.Reason, r.Detail)
	if do := explain(r.Reason).Do; do != "" {
		text += ": " + do
	}
	return text
}

// Refusals are everything that speaks against a pod, the first one first.
type Refusals []Refusal

func (r Refusals) Error() string { return strings.Join(r.told(), "; ") }

// told is one sentence for each of the first refusals, and the number of the
// others: a pod may have thousands of containers.
func (r Refusals) told() []string {
	const most = 20
	var all []string
	for i, refusal := range r {
		if i == most {
			return append(all, fmt.Sprintf("and %d more", len(r)-most))
		}
		all = append(all, refusal.Error())
	}
	return all
}

const (
	// mostName keeps every name whole that Kubernetes allows, of at most 253
	// bytes, and most names of images.
	mostName = 256
	// mostCause keeps the cause of a failure readable: a name or two, and what
	// was tried.
	mostCause = 1024
)

// add formats a refusal. Names and causes are cut: what is on its way in has
// names of any length.
func (r *Refusals) add(reason Reason, format string, args ...any) {
	for i, arg := range args {
		switch arg := arg.(type) {
		case string:
			args[i] = api.Brief(arg, mostName)
		case error:
			// Several things may have failed; a refusal is one line all the same.
			args[i] = api.Brief(strings.ReplaceAll(arg.Error(), "\n", "; "), mostCause)
		}
	}
	*r = append(*r, Refusal{Reason: reason, Detail: fmt.Sprintf(format, args...)})
}
