// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"slices"
	"strings"
	"time"
)

// Prefix starts the keys of this project's annotations and labels, and the types of this project's
// pod conditions.
const Prefix = "metaparticle.io/"

// Repository is the address below which people read the repository's files. Messages name documents
// by it, because who reads a message has no checkout.
const Repository = "https://github.com/metaparticle-io/metaparticle/blob/main/"

// InjectionLabel is the label by which a namespace opts in. InjectionEnabled is the label's value.
const (
	InjectionLabel   = Prefix + "injection"
	InjectionEnabled = "enabled"
)

// These constants are the keys of annotations that a person writes on a workload or on its pod
// template. The key of a kind's own annotation is in the file of that kind.
const (
	LocalAnnotation         = Prefix + "api"
	AfterAnnotation         = Prefix + "after"
	BarrierAnnotation       = Prefix + "barrier"
	ContainersAnnotation    = Prefix + "containers"
	LeaseDurationAnnotation = Prefix + "lease-duration"
	OnLossAnnotation        = Prefix + "on-loss"
	OnAPILossAnnotation     = Prefix + "on-api-loss"
	OnBusyAnnotation        = Prefix + "on-busy"
	WaitAtMostAnnotation    = Prefix + "wait-at-most"
	ReadinessAnnotation     = Prefix + "readiness"
	PortsAnnotation         = Prefix + "ports"
	EndpointDelayAnnotation = Prefix + "endpoint-delay"
	YieldAfterAnnotation    = Prefix + "yield-after"
	FailsafeAnnotation      = Prefix + "failsafe"
	PreferAnnotation        = Prefix + "prefer"
	GateAnnotation          = Prefix + "gate"
	InjectAnnotation        = Prefix + "inject"
)

// These constants name the containers, volumes, paths and ports of injected pods, and the port of
// the console.
const (
	// AgentContainer is the native sidecar that holds the slots. Before gated containers
	// start, the agent copies the program of the shims into the shared volume.
	AgentContainer = "metaparticle-agent"
	// TurnContainer is the init container in front of the agent in a pod with the gate "pod".
	// This container runs at the pod's start, and again whenever all containers of the pod
	// start again. Each time, the container renames a file that the agent has written. So the agent
	// can tell a restart of all containers from a restart of itself alone.
	TurnContainer = "metaparticle-turn"
	// WaitContainer is the last init container of a pod with the gate "pod". The container
	// ends once the slot is held, and then the kubelet starts the application.
	WaitContainer = "metaparticle-wait"
	// AfterContainer is the init container of a pod with conditions. The container ends once each
	// condition has been met.
	AfterContainer = "metaparticle-after"
	// BarrierContainer is the init container of a pod with a barrier. The container ends once
	// the barrier is open.
	BarrierContainer = "metaparticle-barrier"

	// Volume is the emptyDir that the agent and the gated containers share. The gated containers
	// mount the volume read-only, but a process can connect to a socket in a read-only volume.
	Volume    = "metaparticle"
	MountPath = "/metaparticle"

	// CredentialsVolume has the service account token and the cluster's CA. Only the agent, and
	// the containers that wait for conditions or at a barrier, mount this volume.
	CredentialsVolume = "metaparticle-credentials"
	CredentialsPath   = "/var/run/secrets/kubernetes.io/serviceaccount"

	// LocalVolume is the emptyDir for the socket of the local API. In a pod that declares the
	// volume, each container that mounts the volume can use the socket.
	LocalVolume    = "metaparticle-api"
	LocalMountPath = MountPath + "/api"
	// LocalSocket is the path of the local API's socket in the agent's container.
	LocalSocket = LocalMountPath + "/api.sock"

	// AgentProgram is the path of the agent's program in the agent's image.
	AgentProgram = "/agent"
	// ShimProgram is the path of the shim's program in gated containers. The name
	// of the file is the agent's, because pods of earlier versions have it in their commands.
	ShimProgram = MountPath + "/bin/agent"
	// HookProgram is the name of the agent's program beside [ShimProgram]. Only hooks that send
	// HTTP requests need that program, so in most pods the file does not exist.
	HookProgram = "hooks"
	// RunPath is the directory of the agent's sockets, its notes, and the file that the agent
	// locks by flock.
	RunPath = MountPath + "/run"
	// Socket is the path of the socket to which shims connect.
	Socket = RunPath + "/" + SocketName
	// WaitSocket is the path of the socket to which the container [WaitContainer] connects.
	WaitSocket = RunPath + "/" + WaitSocketName
	// ProbeSocket is the path of the socket to which exec probes send HTTP requests.
	ProbeSocket = RunPath + "/" + ProbeSocketName

	// SocketName, WaitSocketName and ProbeSocketName are the file names of [Socket], [WaitSocket]
	// and [ProbeSocket], without the directory [RunPath]. Tests use another directory.
	SocketName      = "agent.sock"
	WaitSocketName  = "wait.sock"
	ProbeSocketName = "probe.sock"

	// ConsolePort serves the page of the console, on the loopback interface of the console's
	// pod.
	ConsolePort = 13133
	// AgentPort serves the agent's /metrics and /healthz, and its answers to
	// the kubelet's probes.
	AgentPort = 13132
)

// Injected are the names of the containers that the webhook puts into pods.
var Injected = []string{AgentContainer, TurnContainer, WaitContainer, AfterContainer, BarrierContainer}

// These constants are the words that the agent writes to its own pod, through pods/status.
const (
	// ReadyCondition is the pod condition that the readiness gate of a gated pod names.
	ReadyCondition = Prefix + "ready"
	// DisruptionCondition is Kubernetes' own condition of a pod that something other than its
	// application ends. A Job's podFailurePolicy can ignore the failure of such a pod.
	DisruptionCondition = "DisruptionTarget"
	// RoleLabel marks the holder's pod.
	RoleLabel  = Prefix + "role"
	RoleHolder = "holder"
	// ShardLabel has the number of the holder's shard, so that a Service can select a shard.
	ShardLabel = Prefix + "shard"
	// DeletionCostAnnotation is on the holder's pod. A ReplicaSet deletes the Ready pod
	// with the highest cost last (KEP-2255).
	DeletionCostAnnotation = "controller.kubernetes.io/pod-deletion-cost"
	HolderDeletionCost     = "2147483647"
)

// These constants are the marks that the webhook writes on a gated pod.
const (
	// SlotsAnnotation names the Leases that the pod claims, comma-separated, in the order in
	// which the agent acquires them. The list also has an entry for each Variable and each
	// barrier of the local API, as [Request.Marks] returns it. Enroll makes Leases and Roles
	// from this annotation.
	SlotsAnnotation = Prefix + "slots"
	// InstantiateAnnotation is Kubernetes' mark of a Job that a person made from a CronJob.
	InstantiateAnnotation = "cronjob.kubernetes.io/instantiate"
	// GatedLabel marks the pods into which the webhook injected containers. Enroll and the
	// uninstaller watch and list only pods with this label. Gated is the value for a pod that
	// claims. GatedAfter is the value for a pod that has conditions or a barrier, and claims
	// nothing.
	GatedLabel = Prefix + "gated"
	Gated      = "true"
	GatedAfter = "after"
)

// These constants are the words that enroll and the agents write on Leases.
const (
	// ManagedLabel marks the Leases, Roles and RoleBindings that enroll made.
	ManagedLabel = Prefix + "managed"

	// HoldAnnotation is a random number that names one hold of a slot. A new agent
	// process resumes a hold only if its shims report the same number.
	HoldAnnotation = Prefix + "hold"
	// TokenAnnotation is the fencing token of the hold. The first renewal adds the token,
	// because the acquiring write cannot know its own resourceVersion.
	TokenAnnotation = Prefix + "token"
	// BootAnnotation is the boot id of the holder's kernel. If the holder's node has
	// another boot id later, the node was rebooted, so no child of the hold can be alive.
	BootAnnotation = Prefix + "boot-id"
	// AddressAnnotation is the IP address of the holder's pod.
	AddressAnnotation = Prefix + "address"
	// WorkloadAnnotation is the workload of the holder's pod, as Kind/name.
	// Standbys of another workload do not forward to that pod.
	WorkloadAnnotation = Prefix + "workload"
	// JobAnnotation is present only if the holder's pod may skip. Its value is the number of
	// the hold, a space, and the UID of the pod's Job.
	JobAnnotation = Prefix + "job"
	// RevisionAnnotation is the revision of the holder's pod, as UID/NUMBER/HASH.
	RevisionAnnotation = Prefix + "revision"
	// DoneAnnotation has the done keys of a once claim, as [Done]. The write that releases
	// the Lease after a success adds the holder's key.
	DoneAnnotation = Prefix + "done"
	// OpenedAnnotation, on the first Lease of a barrier, records that the barrier is open. Its
	// value is the number of pods that had arrived. The holder of that Lease writes the
	// annotation when it releases the Lease.
	OpenedAnnotation = Prefix + "opened"
	// FailuresAnnotation counts the failures of a once claim, as [Failures]. The write that
	// releases the Lease after a failure adds one failure of the holder's key. The release
	// after a success removes the failures of that key.
	FailuresAnnotation = Prefix + "failures"
	// RolloutAnnotation is the holders' record of a rollout, as JSON: the
	// proven revision, the turns of other revisions, and whether the holder yields.
	RolloutAnnotation = Prefix + "rollout"
	// ServingAnnotation is the time (RFC 3339) since which the holder's application runs
	// and passes its probes. While the application does not serve, the Lease lacks the
	// annotation.
	ServingAnnotation = Prefix + "serving-since"
	// SuccessorAnnotation is the identity of the pod that a release names. Each other standby
	// waits for one second after that standby has seen the release, so that the named pod can
	// acquire first. The next acquiring write removes the annotation.
	SuccessorAnnotation = Prefix + "successor"
	// LeavingAnnotation is the holder's announcement that its hold ends. The first word of the value
	// identifies the announcement: the number of the hold, a dot, and a number. The second word is
	// [LeavingSoon] until enough pods have answered, or if the holder leaves its Services without a
	// successor; [LeavingSoon], a colon and an identity if only the answer of that pod counts; and
	// then the identity of the successor, which leaves its Services, too.
	LeavingAnnotation = Prefix + "leaving"
	LeavingSoon       = "soon"
	// StampAnnotation is on the Lease of a shard. Enroll alone writes the annotation, whose
	// value is a [Stamp].
	StampAnnotation = Prefix + "stamp"
	// WordsAnnotation is on a next Lease, and has what the pods of the slot say to the holder. Its
	// value is [Words].
	WordsAnnotation = Prefix + "words"
	// SupportersAnnotation is on the Lease of a holder that rides out outages of the API server by the promises
	// of standbys. Its value is [Supporters].
	SupportersAnnotation = Prefix + "supporters"
	// AloneAnnotation, on a next Lease with the value [AloneTrue], is enroll's hint that the workloads of
	// the slot declare one replica together. A second pod then lives only for a while, in a rollout, and
	// speaks in the next Lease itself. So a holder to whom no pod speaks leaves without a wait for answers.
	// A wrong hint costs those answers, and nothing else.
	AloneAnnotation = Prefix + "alone"
	AloneTrue       = "true"
)

// Other tools read these words in the agent's Events, and in [ReadyCondition] on the pod. An
// Event with the reason Acquired or Released names the slot.
const (
	ReasonAcquired = "Acquired"
	ReasonReleased = "Released"
	// ReasonChildRunning means that a pod does not compete, because a child of an
	// earlier hold may still run.
	ReasonChildRunning = "ChildOfEarlierHold"
	// ReasonWaitsForItsTurn means that a pod of a newer revision may not yet ask the holder to
	// yield.
	ReasonWaitsForItsTurn = "WaitsForItsTurn"
	// ReasonAsksForItsTurn means that a pod of a newer revision wishes for the slot.
	ReasonAsksForItsTurn = "AsksForItsTurn"
	// ReasonInTurn means that the revision is in its turn, but has not served for long enough.
	ReasonInTurn = "InItsTurn"
	// ReasonEnded is the reason of a hold whose application has ended by itself, also in a deleted pod.
	ReasonEnded = "Ended"
	// Draining is in the message of each Event that reports the drain of an application. The word
	// begins the message, or follows a colon.
	Draining = "draining"
	// NotServedYet ends the message of the condition of a holder whose application runs, and has not served in this hold.
	NotServedYet = "has not passed its probes yet"
	// FreeAgain follows the slot in the message of an Event with the reason Released. If the
	// application has ended without an order of the agent, a colon and the cause follow.
	FreeAgain = "is free again"
	// AgentReporter is the name that the agent's Events state as their author.
	AgentReporter = "metaparticle-agent"
)

// These constants are the annotations that a person writes on the Lease of a slot.
const (
	// PausedAnnotation keeps every pod from acquiring the slot. Its value is a [Pause].
	PausedAnnotation = Prefix + "paused"
	// YieldAnnotation asks one hold to end. Its value is a [Yield]. The release removes the
	// annotation, and so does the next acquiring write.
	YieldAnnotation = Prefix + "yield"
)

// These constants are names in the environment of an application whose pod holds its slots.
const (
	// FencingTokenEnv is the fencing token of the hold: a decimal number that only grows.
	// For several slots, the value has a token for each, comma-separated, in the order of
	// SlotEnv.
	FencingTokenEnv = "METAPARTICLE_FENCING_TOKEN"
	// SlotEnv names the Leases that the pod holds, comma-separated.
	SlotEnv = "METAPARTICLE_SLOT"
	// ShardEnv is the number of the shard that the pod holds, from 0. ShardsEnv is the number
	// of all shards.
	ShardEnv  = "METAPARTICLE_SHARD"
	ShardsEnv = "METAPARTICLE_SHARDS"
)

// These constants are names in the environment of the agent's container (downward API).
const (
	PodNameEnv      = "METAPARTICLE_POD_NAME"
	PodUIDEnv       = "METAPARTICLE_POD_UID"
	PodIPEnv        = "METAPARTICLE_POD_IP"
	PodNamespaceEnv = "METAPARTICLE_POD_NAMESPACE"
	// PreferEnv has the pod's value of the label that [PreferAnnotation] names. It is empty if the
	// pod had no such label when the agent's container started.
	PreferEnv = "METAPARTICLE_PREFER"
)

// Identity returns the holderIdentity of a pod. The identity contains the UID, because a
// StatefulSet's new pod has the name of its predecessor.
func Identity(podName, podUID string) string { return podName + "_" + podUID }

// IsIdentity reports whether the holder of a Lease can be the identity of a pod: each identity of
// a pod has an underscore. The result is false for "unknown", which enroll writes into a new
// Lease, and for the empty text of a release.
func IsIdentity(holder string) bool { return strings.Contains(holder, "_") }

// These are the holders of new Leases, which all wait out. Enroll writes UnknownHolder, and frees the Lease at
// once if no Role ever named it. Nothing remembers a person's holds, so whoever holds a lock without a Lease
// makes it with UnknownPerson, and nobody frees that. The policy metaparticle-person has the same text.
const (
	UnknownHolder = "unknown"
	UnknownPerson = "unknown-person"
)

// personPrefix begins the identity of a person who holds a lock by the plugin. No pod's name has a
// colon, so no identity is that of a pod and of a person. The policy metaparticle-person has the same
// form.
const personPrefix = "person:"

// PersonIdentity returns the holderIdentity of a person. The process is random, because one person can
// run several commands, and on several machines. It has 16 hexadecimal digits.
func PersonIdentity(process, user string) string { return Identity(personPrefix+process, user) }

// PersonOf returns the name of the person in an identity; false for any other identity.
func PersonOf(identity string) (user string, ok bool) {
	rest, ok := strings.CutPrefix(identity, personPrefix)
	_, user, named := strings.Cut(rest, "_")
	return user, ok && named
}

// PodOf returns the pod's name in an identity, or "person" and the name of a person. Any other identity
// without an underscore belongs to no agent, and stays unchanged.
func PodOf(identity string) string {
	if user, ok := PersonOf(identity); ok {
		return "person " + user
	}
	if i := strings.LastIndex(identity, "_"); i > 0 {
		return identity[:i]
	}
	return identity
}

// Marks returns the entries of [SlotsAnnotation] for a pod of the workload. The entries are the
// slots of [Request.Slots], and a text for each Variable and each barrier that the pod's program
// uses. No Lease of a slot has such a text as its name.
func (r Request) Marks(of Workload) []string {
	marks := r.Slots(of)
	for _, name := range r.Variables() {
		marks = append(marks, variableMark(name))
	}
	for _, b := range BarriersOf(r.Claimed) {
		marks = append(marks, localBarrier(b))
	}
	slices.Sort(marks)
	return marks
}

// BarriersOf returns the barriers at which the pod's program waits by the local API.
func BarriersOf(claims []Claim) (barriers []Barrier) {
	for _, c := range claims {
		if c.Kind == Arrivals {
			barriers = append(barriers, Barrier{Name: c.Name, Size: c.Size})
		}
	}
	return barriers
}

// localBarrier returns the text of the barrier in the annotation of the local API.
func localBarrier(b Barrier) string { return "barrier/" + b.String() }

// ServesInHold reports whether the value of [ServingAnnotation] belongs to the hold that began at
// the time "acquired". A client that is no agent can acquire the Lease, and leave the annotation
// unchanged. So a time before the acquisition belongs to an earlier hold. The value may lack
// fractions of a second, so ServesInHold ignores the fraction in the time of the acquisition.
func ServesInHold(serving string, acquired time.Time) bool {
	since, err := time.Parse(time.RFC3339, serving)
	return err == nil && !acquired.IsZero() && !since.Before(acquired.Truncate(time.Second))
}

// Token is one slot (a Lease's name) and the fencing token of its hold.
type Token struct {
	Slot  string `json:"slot"`
	Token string `json:"token"`
}
