// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package reason

import "github.com/metaparticle-io/metaparticle/api"

// All has each reason of the webhook once, in the order of docs/troubleshoot/reasons.md.
var All = []Explanation{
	{
		Reason:  BadAnnotation,
		Meaning: "An annotation is misspelt, malformed, not supported, or contradicts another one.",
		// The field "Do" is empty, because the text of each mistake tells what to do.
	},
	{
		Reason:  HostNetwork,
		Meaning: "The pod uses its node's network and declares a TCP port below 1024. A standby would forward that port. Its agent is not root, so it may not listen on such a port of the node's network.",
		Do:      "set metaparticle.io/readiness: holder, with which nothing is forwarded, or declare a port from 1024 on",
	},
	{
		Reason:  LocalAPIOnNode,
		Meaning: "The pod has `metaparticle.io/api`, uses its node's network, and has no volume for a socket. The local API would take its port from the node, and serve every process of the node.",
		Do:      "add an emptyDir volume metaparticle-api, in which the program finds the socket api.sock, or leave hostNetwork out",
		See:     "../reference/api.md",
	},
	{
		Reason:  SharedProcesses,
		Meaning: "The pod's containers share a process namespace (shareProcessNamespace or hostPID). In such a namespace the end of a container does not prove that its processes are dead.",
		Do:      "use metaparticle.io/gate: pod, which needs no such proof, or remove the setting or the claim",
	},
	{
		Reason:  Windows,
		Meaning: "The pod runs on Windows; the gate needs Linux.",
		Do:      "remove the claim",
	},
	{
		Reason:  Probes,
		Meaning: "A gated container has a probe that the agent cannot make in the kubelet's stead. The message says why. The probe may have a kind or a field that this version does not know, or values that Kubernetes itself would refuse. Or the probe uses HTTP/2 without TLS, a port that the container does not name, or a loopback address (which means the node).",
		Do:      "change the probe, or leave the container out by naming the others in metaparticle.io/containers",
	},
	{
		Reason:  Hooks,
		Meaning: "A gated container has a lifecycle hook that the agent cannot run in the kubelet's stead. The message says why. The hook may have a kind or a field that this version does not know, or values that Kubernetes itself would refuse. Or the hook uses a port that the container does not name, or a loopback address, which means the node. The pod does not reach the node's loopback address. Or the Go runtime of the shim itself uses the container's stop signal, so the shim does not receive the signal. Such signals are SIGCHLD, SIGURG, SIGPROF, SIGRTMIN, 32 and 33.",
		Do:      "change or remove the hook or the stop signal, or leave the container out by naming the others in metaparticle.io/containers",
	},
	{
		Reason:  InitContainer,
		Meaning: "`metaparticle.io/containers` names an init container that cannot be gated. Either the init container is a native sidecar, which the containers after it need. Or, without `metaparticle.io/once`, no main container is named, so nothing would keep the slot after the init container. Or `metaparticle.io/on-busy` is skip, and the containers after a skipped init container would start without its work. Or the pod claims a start lock, and would hold this lock while the init container runs.",
		Do:      "name ordinary init containers and the main containers after them; only main containers with on-busy: skip or start-lock; one ordinary init container with once",
	},
	{
		Reason:  ContainerLimit,
		Meaning: "The pod has more than 100 containers and init containers. The webhook may have to look up the image of each of them while the pod's creation waits. Or the claims of `metaparticle.io/api` and the names of the containers with shims are too long for the arguments of the agent.",
		Do:      "split the pod, or remove claims",
	},
	{
		Reason:  UnknownContainer,
		Meaning: "`metaparticle.io/containers` names a container that the pod does not have.",
		Do:      "name containers of the pod",
	},
	{
		Reason:  NameTaken,
		Meaning: "The pod has a container or volume of its own under a name that the injected parts need. Or a container mounts a volume of the injected parts.",
		Do:      "rename the container or volume, or mount another volume",
	},
	{
		Reason:  MountTaken,
		Meaning: "A gated container mounts something at /metaparticle, the path of the gate's shared volume, or has a device or its termination message there.",
		Do:      "use an absolute path outside of /metaparticle",
	},
	{
		Reason:  PortTaken,
		Meaning: "A container declares the port on which the agent serves its metrics (13132), or the local API (13131).",
		Do:      "use another port",
	},
	{
		Reason:  ImageUnreadable,
		Meaning: "A gated container has no explicit command, and the webhook could not read the image's command from the registry in time. The message names the class of failure. The webhook's log contains the registry's answer.",
		Do:      "write the container's command out, or make the image readable: pull secrets of the pod or its service account, registry, certificates",
	},
	{
		Reason:  ImagePlatforms,
		Meaning: "A gated container has no explicit command, and its image has different commands for variants of one architecture (such as arm/v6 and arm/v7). The shim cannot tell these variants apart.",
		Do:      "write the container's command out",
	},
	{
		Reason:  NoCommand,
		Meaning: "Neither a gated container nor its image has a command.",
		Do:      "write the container's command out",
	},
	{
		Reason:   NeedsPID1,
		Meaning:  "A gated container runs an init such as s6-overlay's /init, systemd or runit. Such a program refuses to run except as PID 1, which the shim is. So the container crashes.",
		Do:       "set metaparticle.io/gate: pod, which leaves the container PID 1, or name only other containers in metaparticle.io/containers",
		WarnOnly: true,
	},
	{
		Reason: NamesPID1, WarnOnly: true,
		Meaning: "A hook or an exec probe of a gated container names PID 1, as in jstack 1 or /proc/1/status. PID 1 is the shim, and the application is its child. So the tool finds no JVM, or reads the state of the shim, and kill -0 1 succeeds whatever the application does.",
		Do:      "let the command find the application, as in jstack $(pgrep -o java) or jcmd MAINCLASS Thread.print; or set metaparticle.io/gate: pod, which leaves the container PID 1",
		See:     "../guarantees/differences.md#the-shim-is-pid-1-of-a-gated-container",
	},
	{
		Reason:  KubernetesTooOld,
		Meaning: "With `metaparticle.io/gate: pod` a lost slot restarts all containers of the pod. That requires Kubernetes 1.36.",
		Do:      "leave metaparticle.io/gate out, or use another cluster; where the version is not known, see the webhook's log",
	},
	{
		Reason:  NeverRestarted,
		Meaning: "With `metaparticle.io/gate: pod` a lost slot restarts all containers of the pod, but the restartPolicy of the pod, or of one of its containers, is Never.",
		Do:      "leave metaparticle.io/gate out, or set restartPolicy OnFailure or Always",
	},
	{
		Reason:  RestartRule,
		Meaning: "With `metaparticle.io/on-loss: restart` or restartPolicy Never a lost slot ends a gated container with exit code 75. A restart rule of the container matches that code, and would treat it as the application's.",
		Do:      "leave 75 out of the rule, or let the container stand by instead (the default, where its restartPolicy is not Never)",
	},
	{
		Reason:  NeverEnds,
		Meaning: "`metaparticle.io/on-busy: skip` or `metaparticle.io/wait-at-most` is set on a pod that never ends: its restartPolicy, or the one of a gated container, is Always. Or, with skip, a restart rule matches exit code 0. Such a pod, or another one in its place, would end and start for ever.",
		Do:      "set the restartPolicy Never or OnFailure, as in a Job, or remove the annotation: pods that serve stand by without a bound",
	},
	{
		Reason:  OnceRestarts,
		Meaning: "`metaparticle.io/once`, or `metaparticle.io/shards` in a Job, gates a container that the kubelet starts again after its success. Such a container is a main container whose restartPolicy is Always, or has a restart rule for exit code 0. The container would skip and start for ever.",
		Do:      "name an ordinary init container in metaparticle.io/containers, or set the restartPolicy Never or OnFailure, as in a Job",
	},
	{
		Reason:  OnceContainers,
		Meaning: "`metaparticle.io/once` records the success of one container, and the pod has several gated containers. In a Job `metaparticle.io/shards` records the success of one main container.",
		Do:      "name one container in metaparticle.io/containers",
	},
	{
		Reason:  OnceIndexed,
		Meaning: "`metaparticle.io/once` gates a main container of an Indexed Job. Each index has work of its own, but after the success of one index all others would skip their work.",
		Do:      "leave metaparticle.io/once out, or name an init container in metaparticle.io/containers",
	},
	{
		Reason:  ShardsEnd,
		Meaning: "`metaparticle.io/shards` gives each shard to a pod that keeps running, or to a pod of a Job. This pod ends, because its restartPolicy is not Always, and no Job controls it. So its shard has no run in which its success could count.",
		Do:      "put the workers into a Job, or into a Deployment or StatefulSet",
	},
	{
		Reason:  ShardsLeft,
		Meaning: "In a Job each shard of `metaparticle.io/shards` runs until it succeeds, and each pod takes one shard. This Job would be complete although shards are not done. The Job has no completions, or fewer than shards, or its pods skip (`metaparticle.io/on-busy: skip`). In an Indexed Job each pod takes the shard of its index, so there must be as many completions as shards.",
		Do:      "set the completions of the Job to the number of shards, and leave metaparticle.io/on-busy out",
	},
	{
		Reason:  ShardsAlone,
		Meaning: "`metaparticle.io/shards` divides the work among the pods of a workload. This pod has no controller, so no other pod would have the other shards.",
		Do:      "put the pod into a Deployment, StatefulSet, DaemonSet or ReplicaSet",
	},
	{
		Reason:  NoRevision,
		Meaning: "`metaparticle.io/once: \"true\"` takes the revision of the pod's template as the key. This pod has no revision: its controller numbers no templates, or the pod has no controller.",
		Do:      "write a name and a key, as in metaparticle.io/once: schema=7",
	},
	{
		Reason:  NoProbe,
		Meaning: "`metaparticle.io/start-lock` lets one pod at a time start, until its application is ready. A gated container has neither a readiness nor a startup probe, so the agent could not see the end of the start.",
		Do:      "add a readiness or startup probe to the container, or leave the container out of metaparticle.io/containers",
	},
	{
		Reason:  NoReadinessProbe,
		Meaning: "With `metaparticle.io/yield-after` a holder hands over if its application fails its readiness probe. No gated container has a readiness probe, so the agent could not see that the application hangs. The probes of other containers do not count.",
		Do:      "add a readiness probe to a gated container, or remove metaparticle.io/yield-after",
	},
	{
		Reason:  NoHandover,
		Meaning: "With `metaparticle.io/yield-after` and `metaparticle.io/prefer` a holder hands over to a standby that answers. It answers in a second Lease, which each lock has, and the singleton of a " + api.KindsThatRoll("or") + ". `prefer` needs such a workload with a lock, too, and standbys that can be Ready. With a gated init container, or with a port that a standby cannot forward, only the holder is Ready.",
		Do:      "remove the annotation, or put the pods into a Deployment, StatefulSet or DaemonSet whose standbys can be Ready",
	},
	{
		Reason:  NoFailsafe,
		Meaning: "With `metaparticle.io/failsafe` an application that exits in an outage of the API server starts again under the same hold. A gated init container, which ran under that hold, does not run again. Without `alone` the holder needs the promises of standbys. They offer themselves in a second Lease, which the singleton of a " + api.KindsThatRoll("or") + " has. The holder asks them at the port of their agents. With `hostNetwork` the agents have no port, because two pods on one node would share it.",
		Do:      "leave the init container out of metaparticle.io/containers; without alone, use a Deployment, StatefulSet or DaemonSet without hostNetwork, or one replica and alone (10m,alone); or remove metaparticle.io/failsafe",
	},
	{
		Reason:  AfterItself,
		Meaning: "`metaparticle.io/after` names a slot, or the key of a once claim, which the pod itself claims. The pod would wait for itself, for ever.",
		Do:      "name the claim of another workload, or remove the condition",
	},
	{
		Reason:  BarrierNeedsJob,
		Meaning: "`metaparticle.io/barrier` lets the pods of one Job start together, once. `barrier/NAME=SIZE` in `metaparticle.io/api` lets their programs wait for each other, once. This pod belongs to no Job, so no run begins or ends with its pods. After a rollout or a failure the barrier would be open already, or would wait for pods that never come.",
		Do:      "put the pods into a Job, or use metaparticle.io/after to wait for other work",
	},
	{
		Reason:  BarrierNeverOpens,
		Meaning: "`metaparticle.io/barrier`, or `barrier/NAME=SIZE` in `metaparticle.io/api`, waits for more pods than the Job ever runs at once. So the barrier would never open.",
		Do:      "set parallelism, and completions, of the Job to at least the size of the barrier",
	},
	{
		Reason:  PodWithoutName,
		Meaning: "The slot of a pod without a controller is named after the pod. With generateName the pod has no name yet, and another one in each run.",
		Do:      "use metaparticle.io/lock; a pod with a name excludes only a pod of the same name",
	},
	{
		Reason:  WorkloadUnknown,
		Meaning: "The webhook could not read the workload of the pod, or the workload of that name has another UID than the pod's owner reference.",
		Do:      "wait until the pod's controller tries again; if the refusal comes again, see the webhook's log",
	},
	{
		Reason:  BadOwner,
		Meaning: "The pod's controller, or the workload above it, has a kind or a name that no object can have.",
		Do:      "let the workload's own controller create the pod, or correct its owner reference",
	},
	{
		Reason:  StaticPod,
		Meaning: "The pod mirrors a static pod, which its kubelet starts from a file without asking the API server. The kubelet runs the static pod already, so the webhook cannot gate it.",
		Do:      "run the application as a Deployment or DaemonSet, or take the annotation out of the file",
	},
	{
		Reason:  Leftover,
		Meaning: "The pod carries injected parts, but claims nothing, asks for another gate, or belongs to another workload than these parts. The pod was probably copied from a running pod. The copy would wait for ever, or take a slot of the original pod.",
		Do:      "add the annotation again, or remove the injected parts and restore the commands; instead of a copy, use kubectl debug -it POD --image=IMAGE --target=CONTAINER",
	},
	{
		Reason: LossFails, WarnOnly: true,
		Meaning: "A lost or yielded slot ends a pod with restartPolicy Never. The container then ends with exit code 75, and the pod has the condition DisruptionTarget. A rule of the Job's podFailurePolicy takes such an end for a failure of the application, and ends the Job, or the pod's index, for good.",
		Do:      "make {action: Ignore, onPodConditions: [{type: DisruptionTarget}]} the first rule",
	},
	{
		Reason: OwnSlot, WarnOnly: true,
		Meaning: "The slot is that of one Job, pod or workload alone, though other pods may have to compete for it. Either its name is new in each run, as with generateName, in a bare pod of Airflow or a CI runner, or in a hook of Helm or Argo CD. So two runs do not exclude each other, but only pods of the same name. Or the Job was made from a CronJob, or looks so, and does not name the CronJob as its owner. So its pods do not wait for the CronJob's runs. Or the pod has owners, and none of them is its controller. An Event: one object, such as an operator's, controls several workloads whose pods claim a singleton. Each of these workloads has a slot of its own, so one pod of each runs.",
		Do:      "claim metaparticle.io/lock, which pods of any owner can share. A Job can also name its CronJob in ownerReferences, as kubectl create job --from does",
	},
	{
		Reason: NoEffectHere, WarnOnly: true,
		Meaning: "An annotation or label with the prefix of Metaparticle is where nobody reads it: on a pod that exists already, on a workload whose pod template another object writes (an operator's StatefulSet, a ReplicaSet of a Deployment), on a ReplicationController, or on a Service, PersistentVolumeClaim, ConfigMap, Secret or ServiceAccount. The pods run as without it.",
		Do:      "annotate the workload or its pod template; if another object writes the template, such as an operator's, write it where that object has the annotations of its pods",
	},
	{
		Reason: JobImmutable, WarnOnly: true,
		Meaning: "A Job's template cannot change, so annotations count only at its creation.",
		Do:      "create the Job anew",
	},
	{
		Reason: TemplateDiffers, WarnOnly: true,
		Meaning: "The workload and its pod template have different values. The value of the template counts.",
		Do:      "remove one of the two",
	},
	{
		Reason: FewerPods, WarnOnly: true,
		Meaning: "`metaparticle.io/shards` divides the work into more shards than the workload has pods. A pod has one shard, so the other shards wait.",
		Do:      "set replicas to the number of shards at least; one pod more stands by",
	},
	{
		Reason: NoStandby, WarnOnly: true,
		Meaning: "`metaparticle.io/yield-after` or `metaparticle.io/prefer` moves the slot to a standby of the same workload. With one replica there is none, except during a rollout.",
		Do:      "set replicas to 2 at least",
	},
	{
		Reason: NobodySupports, WarnOnly: true,
		Meaning: "With `metaparticle.io/failsafe` without `alone` the application survives an outage of the API server by the promises of standbys. With one replica there is none, except during a rollout, so the application stops as without the annotation.",
		Do:      "write alone, as in metaparticle.io/failsafe: 10m,alone, or set replicas to 2 at least",
	},
	{
		Reason: SlowTakeover, WarnOnly: true,
		Meaning: "`metaparticle.io/failsafe: …,alone` is for one replica. With more, a standby waits for the slot of a dead node as long as a new pod would, which is longer than the whole outage that the annotation names.",
		Do:      "set replicas to 1, or leave out alone, as in metaparticle.io/failsafe: 10m",
	},
	{
		Reason: NobodyPreferred, WarnOnly: true,
		Meaning: "The label of `metaparticle.io/prefer` does not distinguish the pods of the workload, so the annotation has no effect. Either all of them have it, from the pod template or for their revision. Or none has it: the label is one of nodes (such as kubernetes.io/hostname, or the capacity type of a node), or one that only pods of another kind get. Pods have only two labels of their node, topology.kubernetes.io/zone and topology.kubernetes.io/region, and these only since Kubernetes 1.35.",
		Do:      "name a label that differs between the pods, such as the apps.kubernetes.io/pod-index of a StatefulSet or, since Kubernetes 1.35, topology.kubernetes.io/zone; or remove metaparticle.io/prefer. If a webhook of yours gives each pod the label, there is nothing to do",
		See:     "../how-to/prefer.md",
	},
	{
		Reason: HurriedRollout, WarnOnly: true,
		Meaning: "The `progressDeadlineSeconds` of the Deployment are shorter than the turn of a healthy version may take. The Deployment then reports ProgressDeadlineExceeded, and `kubectl rollout status`, Helm and Argo CD report a failure, although the rollout goes on. The webhook computes the seconds from the grace and the probes of the template. The least that matters is the minute for which an application serves between two turns.",
		Do:      "set progressDeadlineSeconds to the seconds that the message names at least",
	},
	{
		Reason: RolloutStalls, WarnOnly: true,
		Meaning: "A standby is not Ready with `metaparticle.io/readiness: holder`, a semaphore, the gate `pod` or `readiness`, or a gated init container (unless it runs once). With shards, a standby is not Ready if a gated container declares a port. The controller counts these standbys as unavailable. So its rollout keeps old pods for ever, or replaces all pods and never reports its end. The webhook computes which of the two from the replicas and the strategy.",
		Do:      "set what the message names, or leave out the annotation that keeps standbys from being Ready",
	},
	{
		Reason: VolumeOnOneNode, WarnOnly: true,
		Meaning: "Several pods mount the same PersistentVolumeClaim, and may get different nodes. A volume with the access mode ReadWriteOnce is attached to one node at a time. So a standby on another node does not start (`Multi-Attach error`), and cannot take over. With ReadWriteOncePod no standby starts at all. The webhook does not read the claim. `kubectl metaparticle explain` reads it.",
		Do:      "keep the pods together by a podAffinity to their own labels with topologyKey kubernetes.io/hostname, use a claim with ReadWriteMany, or keep one replica. If the claim is ReadWriteMany, or its volume exists on one node only, there is nothing to do",
	},
	{
		Reason: AddressShared, WarnOnly: true,
		Meaning: "The pod template asks the cluster's network for a fixed address (IP or MAC), and several of its pods can exist at once: as holder and standby, or in a rollout. A pod takes the address when it is made, long before it gets the slot. So two pods have the address at once, or the network refuses it to the second pod, which then does not start.",
		Do:      "take addresses from a pool, and let clients find the holder by a Service; or let the application add the address when it starts; or keep one replica, with the strategy Recreate",
	},
	{
		Reason: ClaimChanged, WarnOnly: true,
		Meaning: "An update adds, replaces or removes the claim of a workload that has pods. Until the rollout is over, pods of the earlier revision can run the application beside the new holder. Without a claim, all pods run the application. To replace a claim without that, let one rollout claim both slots. Once a pod holds both, let the next rollout claim only the new slot.",
		Do:      "if two at once do harm, scale the workload to 0, and back once its pods are gone",
	},
	{
		Reason: OnceWritesPod, WarnOnly: true,
		Meaning: "The container of `metaparticle.io/once` mounts a volume of the pod or its node (emptyDir, ephemeral, hostPath) for writing. A later container mounts the same volume. In every pod that skips the container, the volume stays empty.",
		Do:      "write these files in another init container, which runs in every pod, or leave metaparticle.io/once out",
	},
	{
		Reason:   WaitingCounts,
		Meaning:  "The time for which a pod waits counts towards the activeDeadlineSeconds of the pod and of its Job. So the deadline may be over before the application has run.",
		Do:       "bound the wait by metaparticle.io/wait-at-most, or make the deadline longer than wait and work together",
		WarnOnly: true,
	},
	{
		Reason: TokenInReach, WarnOnly: true,
		Meaning: "The pod mounts no service account token (automountServiceAccountToken is false), but its containers share a process namespace with the agent, which mounts one. A container that runs as root, or as the agent's user, can read the agent's service account token through /proc.",
		Do:      "give the pod a service account of its own, which has no other rights than the agent's, or do not share the process namespace",
	},
	{
		Reason: MarksKept, WarnOnly: true,
		Meaning: "An update of a gated pod left out the label metaparticle.io/gated or the annotation metaparticle.io/slots, for example by replacing all labels. The webhook restored them, because the Leases and rights of the pod's service account depend on them.",
		Do:      "include the marks in the next update; to remove them, remove the claim from the workload",
	},
	{
		Reason: ImageRestored, WarnOnly: true,
		Meaning: "Another webhook, or who made the pod, gave an injected container another image, which is neither the image of the webhook's setting in another registry nor its digest. An agent of another version would not understand its arguments, so the webhook wrote its own image back.",
		Do:      "let the other webhook keep the digest, or else the last part of the name and the tag; or let the webhook's own setting name the image that nodes can pull (the flag --agent-image)",
		See:     "../operate/network.md#webhooks-that-change-our-containers",
	},
	{
		Reason: AgentDoesNotFit, WarnOnly: true,
		Meaning: "A LimitRange of the namespace leaves no room for the agent, and the pod has none either. So the API server refuses the pod, or the kernel ends the agent for lack of memory.",
		Do:      "leave 100m of CPU and 64Mi of memory beside the pod's own containers (10m and 16Mi, if the pod is not Guaranteed), or change the LimitRange that the message names",
		See:     "../operate/resources.md",
	},
	{
		Reason: PortNotForwarded, WarnOnly: true,
		Meaning: "A gated container declares a port that a standby cannot forward: an SCTP port, or a UDP port below 1024 on the node's network. If the standbys were Ready, a Service would send them connections that nobody answers. So the agent acts as with `metaparticle.io/readiness: holder`, and only the holder is Ready.",
		Do:      "if no client uses this port through a Service, name the other ports in metaparticle.io/ports, and the standbys are Ready again. Otherwise let the rollout go on without a Ready standby (RolloutStalls)",
	},
	{
		Reason: MetricsForwarded, WarnOnly: true,
		Meaning: "Standbys forward the port of the metrics, as the name of the port or the annotation prometheus.io/scrape says. Prometheus scrapes each pod, and gets the holder's series from each of them. So sums over the pods are too high.",
		Do:      "name the other ports in metaparticle.io/ports, so that standbys do not forward this one; if clients use it, too, let Prometheus drop standbys",
		See:     "../operate/traffic.md#metrics-of-each-pod",
	},
}
