// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package api

// Prefix starts every annotation, label and condition of this project.
const Prefix = "metaparticle.io/"

// The label by which a namespace opts in.
const (
	InjectionLabel   = Prefix + "injection"
	InjectionEnabled = "enabled"
)

// What a person writes on a workload or on its pod template.
const (
	SingletonAnnotation     = Prefix + "singleton"
	LockAnnotation          = Prefix + "lock"
	ContainersAnnotation    = Prefix + "containers"
	LeaseDurationAnnotation = Prefix + "lease-duration"
	OnLossAnnotation        = Prefix + "on-loss"
	ReadinessAnnotation     = Prefix + "readiness"
	GateAnnotation          = Prefix + "gate"
	InjectAnnotation        = Prefix + "inject"
)

// What the webhook puts into a pod.
const (
	// AgentContainer is the native sidecar that holds the lease. It puts its
	// own binary into the shared volume before gated containers start.
	AgentContainer = "metaparticle-agent"
	// TurnContainer is the init container in front of the agent in a pod with
	// the gate "pod": where it runs, the pod's containers begin anew.
	TurnContainer = "metaparticle-turn"
	// WaitContainer is the last init container of a pod with the gate "pod": it
	// ends when the slot is held, and the kubelet goes on to the application.
	WaitContainer = "metaparticle-wait"

	// Volume is the emptyDir that all of them share. Gated containers mount it
	// read-only; a socket can be connected to all the same.
	Volume    = "metaparticle"
	MountPath = "/metaparticle"

	// CredentialsVolume holds the service account's token and the cluster's
	// CA. It is mounted in the agent's container alone.
	CredentialsVolume = "metaparticle-credentials"
	CredentialsPath   = "/var/run/secrets/kubernetes.io/serviceaccount"

	// ImageBinary is where the agent is in its own image.
	ImageBinary = "/agent"
	// AgentBinary is where gated containers find the agent.
	AgentBinary = MountPath + "/bin/agent"
	// RunPath is where the agent keeps its socket, its lock and its notes.
	RunPath = MountPath + "/run"
	// Socket is where shims connect to the agent.
	Socket = RunPath + "/" + SocketName
	// WaitSocket is where "agent wait" connects to the agent.
	WaitSocket = RunPath + "/" + WaitSocketName
	// ProbeSocket is where exec probes ask the agent, by HTTP.
	ProbeSocket = RunPath + "/" + ProbeSocketName

	// SocketName, WaitSocketName and ProbeSocketName are the sockets' names in the
	// directory. Tests have the directory elsewhere.
	SocketName      = "agent.sock"
	WaitSocketName  = "wait.sock"
	ProbeSocketName = "probe.sock"

	// AgentPort serves the agent's /metrics and /healthz, and its answers to
	// the kubelet's probes.
	AgentPort = 13132
)

// Injected are the names of all the containers that the webhook puts into pods.
var Injected = []string{AgentContainer, TurnContainer, WaitContainer}

// What the agent writes to its own pod, through pods/status.
const (
	// ReadyCondition is the pod's readiness gate.
	ReadyCondition = Prefix + "ready"
	// RoleLabel marks the holder's pod.
	RoleLabel  = Prefix + "role"
	RoleHolder = "holder"
	// DeletionCostAnnotation makes the holder's pod the last that a
	// ReplicaSet deletes (KEP-2255).
	DeletionCostAnnotation = "controller.kubernetes.io/pod-deletion-cost"
	HolderDeletionCost     = "2147483647"
)

// What the webhook writes on a pod for the agent and for people.
const (
	// SlotsAnnotation names the Leases that the pod claims, comma-separated,
	// in the order in which they are acquired. Written by the webhook alone;
	// enroll makes Leases and roles from it.
	SlotsAnnotation = Prefix + "slots"
	// GatedLabel marks the pods that the webhook gated, so that who looks for
	// them (enroll, uninstall) watches and lists no others.
	GatedLabel = Prefix + "gated"
	Gated      = "true"
)

// What enroll and the agents write on Leases.
const (
	// ManagedLabel marks the Leases and Roles that enroll made.
	ManagedLabel = Prefix + "managed"

	// HoldAnnotation is a random number that names one hold of a slot; a new
	// agent process resumes a hold only if its shims report the same one.
	HoldAnnotation = Prefix + "hold"
	// TokenAnnotation is the fencing token of the hold (from the first renewal
	// on: the acquiring write cannot know its own resourceVersion).
	TokenAnnotation = Prefix + "token"
	// BootAnnotation is the boot id of the holder's kernel. After a reboot no
	// child of the hold can be alive.
	BootAnnotation = Prefix + "boot-id"
	// AddressAnnotation is the IP address of the holder's pod.
	AddressAnnotation = Prefix + "address"
	// WorkloadAnnotation is the workload of the holder's pod, as Kind/name.
	// Standbys of another workload do not forward to it.
	WorkloadAnnotation = Prefix + "workload"
	// ServingAnnotation is since when (RFC 3339) the holder's application runs.
	// Absent while it does not.
	ServingAnnotation = Prefix + "serving-since"
)

// What the application finds in its environment while it holds.
const (
	// FencingTokenEnv is the fencing token of the hold: a decimal number that
	// only grows. With several slots, one token each, comma-separated in the
	// order of SlotEnv.
	FencingTokenEnv = "METAPARTICLE_FENCING_TOKEN"
	// SlotEnv names the Leases held, comma-separated.
	SlotEnv = "METAPARTICLE_SLOT"
)

// What the webhook hands to the agent's container (downward API).
const (
	PodNameEnv      = "METAPARTICLE_POD_NAME"
	PodUIDEnv       = "METAPARTICLE_POD_UID"
	PodIPEnv        = "METAPARTICLE_POD_IP"
	PodNamespaceEnv = "METAPARTICLE_POD_NAMESPACE"
)

// Identity is what a pod writes into holderIdentity: the name alone would take
// a StatefulSet's new pod for its predecessor.
func Identity(podName, podUID string) string { return podName + "_" + podUID }
