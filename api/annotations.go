// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"maps"
	"slices"
	"strings"
)

// Annotation describes one annotation that a person writes.
type Annotation struct {
	Key string
	// Value is the syntax, as the documentation shows it.
	Value string
	// Default is the value that applies if the annotation is absent.
	Default string
	// Meaning is the text about the effect, as the documentation shows it.
	Meaning string
	// Examples are valid values of the annotation. Tests of the parser and of the policies use
	// them.
	Examples []string
	// Kind is the kind of the claims that the annotation makes; nil for a setting, which
	// only modifies the claims of the pod.
	Kind *Kind
	// Alone reports that the setting is also valid in a pod without a claim.
	Alone bool
	// Local reports that the setting is valid only in a pod with [LocalAnnotation].
	Local bool

	// parse reads the value of an annotation that makes claims of several kinds; nil for any other
	// annotation.
	parse func(value string) ([]Claim, string)
	// set reads the value of a setting into a request. The result says what is wrong with the
	// value; it is empty for a valid value.
	set func(r *Request, value string) string
}

// claims returns the claims that a value of the annotation makes, or says what is wrong with
// the value.
func (a Annotation) claims(value string) ([]Claim, string) {
	if a.parse != nil {
		return a.parse(value)
	}
	return a.Kind.claims(value)
}

// valid reports whether the annotation can have the value.
func (a Annotation) valid(value string) bool {
	if a.Kind == nil {
		return a.set(new(Request), value) == ""
	}
	_, problem := a.claims(value)
	return problem == ""
}

// table is a list of annotations, in the order in which the documentation has them.
type table []Annotation

// Annotations are all annotations that this version of Metaparticle supports. Parsing, hints for a
// misspelt key, docs/reference/annotations.md and the tests of the policies come from this table.
// A new annotation needs one row here, and its effect in the webhook or the agent.
var Annotations = table{
	{
		Key: SingletonAnnotation, Value: "`\"true\"` or a name", Default: "no claim", Kind: Singleton,
		Meaning: "One pod of this workload runs. " +
			"A name instead of `true` makes a separate slot; `\"false\"` claims nothing.",
		Examples: []string{"true", "writer", "main-2", strings.Repeat("y", maxLabel)},
	},
	{
		Key: LockAnnotation, Value: "`name[,name…]`", Default: "no claim", Kind: Lock,
		Meaning: "Of all pods in the namespace that name the lock, whatever their workload, one runs. " +
			"A pod takes several locks in a global order, so no deadlock is possible. At most 32 locks.",
		Examples: []string{"nightly", "a,b.c", "1.a-b"},
	},
	{
		Key: SemaphoreAnnotation, Value: "`name=size`", Default: "no claim", Kind: Semaphore,
		Meaning: "Of all pods in the namespace that name the semaphore, whatever their workload, as many run as it has " +
			"slots: 1 to 64. Only the holders are Ready. A pod that declares no ports stays Ready for a tenth of a second after " +
			"its hold. A pod of a semaphore has no other claim.",
		Examples: []string{"pool=3", "db.pool=1", "a=64"},
	},
	{
		Key: ShardsAnnotation, Value: "a number", Default: "no claim", Kind: Shards,
		Meaning: "The value is the number of shards, 1 to 64. Each shard runs in exactly one pod, and further " +
			"pods stand by. The application finds the number of its shard, from 0, in `METAPARTICLE_SHARD`, and the number of all shards in " +
			"`METAPARTICLE_SHARDS`. The label `metaparticle.io/shard` of a holder's pod has the same number. A standby forwards " +
			"nothing: it is Ready if its gated containers declare no ports and `metaparticle.io/readiness` is not set. " +
			"A new number begins to count when a pod with that number runs. First all shards of the old number stop, " +
			"and then the first shard of the new number starts. In a Job each shard runs until it succeeds (exit code 0), once for each Job. Each pod takes one shard that is " +
			"not done. A pod that finds all of them done skips. The completions of the Job must be the number of shards, or more " +
			"without indexes. In an Indexed Job each pod takes the shard of its index. " +
			"Only for pods of a Job, or of a workload that keeps its pods running, and with the gate `container`. A pod with shards has no other claim.",
		Examples: []string{"1", "8", "64"},
	},
	{
		Key: OnceAnnotation, Value: "`\"true\"` or `name=key`", Default: "no claim", Kind: Once,
		Meaning: "Of all pods in the namespace with the same name, one pod at a time runs the gated container, whatever the key. " +
			"With `true` the pods are those of this workload, and each revision of its pod template has its own key. " +
			"A " + KindsThatRoll("and") + " have revisions. For pods of a Job, the Job itself " +
			"is the key. Other pods need a name and a key. `\"false\"` claims nothing. " +
			"A success (exit code 0) makes the key done in the Lease. From then on every pod of that key skips the container. " +
			"A failure is repeated, and the work may run more than once (docs/guarantees.md#23-work-once). The claim gates one ordinary init " +
			"container, which `metaparticle.io/containers` names, or the one container of a pod that ends. The pod's readiness " +
			"stays as it was. A pod of a once claim has no other claim. `kubectl metaparticle forget` lets the work run again.",
		Examples: []string{"true", "schema=7", "db.migrate=v1.2_a", "a=" + strings.Repeat("z", maxLabel)},
	},
	{
		Key: StartLockAnnotation, Value: "`name`", Default: "no claim", Kind: StartLock,
		Meaning: "Of all pods in the namespace that name the start lock, whatever their workload, one at a time starts its " +
			"application. The others wait, and are not Ready. The start is over when the application is ready, or proven dead. Then the " +
			"application runs beside the others, and no part of Metaparticle stops it. Each start of a container is a new start. Each gated container needs " +
			"a readiness or startup probe. Only with the gate `container`, and without gated init containers. Beside a " +
			"singleton, locks or a semaphore, the pod takes the start lock last.",
		Examples: []string{"db", "warm.cache", "1.a-b"},
	},
	{
		Key: LocalAnnotation, Value: "`claim[,claim…]`", Default: "no claim", Kind: Election,
		Meaning: "The program itself asks for these claims, over HTTP at `localhost:13131` (the local API): `lock/NAME`, " +
			"`election/NAME`, `semaphore/NAME=SIZE`, `rwlock/NAME=SIZE`, `barrier/NAME=SIZE` or `variable/NAME`. All pods in the namespace that name a slot compete for it, whatever " +
			"their workload. All of them use a Variable together. At a barrier the pods of one Job wait for each other, with the limits of `metaparticle.io/barrier`. A lock of `metaparticle.io/lock` with the same name is the same slot. The containers start without a wait, " +
			"and stay as they are. No part of Metaparticle stops the program, and the pod's readiness stays as it was. The program " +
			"must stop its work when it loses a claim, or the pod has `metaparticle.io/on-api-loss: kill`. Beside the annotation only " +
			"this one, `metaparticle.io/lease-duration`, " +
			"`metaparticle.io/after` and `metaparticle.io/barrier` have an effect. A pod with hostNetwork needs an emptyDir volume `metaparticle-api`, " +
			"in which its programs find the socket (docs/reference/api.md). At most 8 claims.",
		Examples: []string{"lock/a", "lock/a, election/main, semaphore/pool=3", "election/db.main", "rwlock/catalog=8", "barrier/warm=5", "variable/hits"}, parse: parseLocals,
	},
	{
		Key: AfterAnnotation, Value: "`condition[,condition…]`", Default: "no condition", Alone: true,
		Meaning: "The pod waits in an init container (`metaparticle-after`) until each condition has been met once. " +
			"The pod needs no claim. `once.NAME=KEY` is met when the key is done (`metaparticle.io/once`). The name of a singleton's or " +
			"a lock's Lease (`singleton.deployment.db`, `lock.a`) is met when its holder serves. A holder serves if its application passes its " +
			"probes, and the holder has renewed since the wait began. The Leases are those of the pod's namespace. `shards.job.NAME` is met when all shards of that Job are done (`metaparticle.io/shards`). The Job that " +
			"exists when the pod is created counts, and no earlier or later Job with its name. A Lease that does " +
			"not exist yet means \"not yet\". A condition that is no longer met later stops no pod. A key counts until 50 newer keys are done. At most 8 conditions.",
		Examples: []string{"once.schema=7", "shards.job.map", "lock.a,singleton.deployment.db", "singleton-writer.statefulset.a.b"}, set: setAfter,
	},
	{
		Key: BarrierAnnotation, Value: "`name=size`", Default: "no barrier", Alone: true,
		Meaning: "No pod of a Job starts its application before as many pods of the Job as the size wait at the barrier. A size is 1 to 32. Each Job has " +
			"a barrier of its own, also if another Job has the same name or the same annotation. The pod waits in an init container " +
			"(`metaparticle-barrier`), after its conditions and before it competes for its slots. The pod needs no claim. A pod that " +
			"is gone counts for one lease duration at most. Once open, the barrier stays open for its Job: a pod that replaces another " +
			"one passes it without a wait. Only for pods of a Job whose `parallelism` and `completions` are not below the size. " +
			"`metaparticle.io/lease-duration` and `metaparticle.io/wait-at-most` count.",
		Examples: []string{"warm=5", "a.b=1", "1.a-b=32"}, set: setBarrier,
	},
	{
		Key: ContainersAnnotation, Value: "`name[,name…]`", Default: "the containers of the workload's own template; without a known template, all containers but well-known proxies",
		Meaning: "The containers that wait for the slot. Ordinary init containers wait, too, if they are named. All other containers start without a wait. " +
			"Only with the gate `container`.",
		Examples: []string{"app", "app,migrate"}, set: setContainers,
	},
	{
		Key: LeaseDurationAnnotation, Value: "`30s`, `2m`, …", Default: "`30s`; with `once` `2m`",
		Meaning: "The time for which a holder that vanished without a release blocks the others. " +
			"The value is in whole seconds, from `10s` to `1h`.",
		Examples: []string{"30s", "2m"}, set: setLeaseDuration,
	},
	{
		Key: OnLossAnnotation, Value: "`standby` or `restart`", Default: "`standby`",
		Meaning: "After a lost slot the pod stands by in the same container (`standby`), or in a restarted one (`restart`). " +
			"The container that restarts ends with the exit code 75. So does a container with the restartPolicy `Never`, without the annotation and with either value. " +
			"With the gate `pod` only `restart` is allowed, and with the gate `readiness` neither value.",
		Examples: []string{"standby", "restart"},
		set:      oneOf(func(r *Request) *OnLoss { return &r.OnLoss }, OnLossStandby, OnLossRestart),
	},
	{
		Key: OnAPILossAnnotation, Value: "`tell` or `kill`", Default: "`tell`",
		Meaning: "The consequence when a program loses a hold of `metaparticle.io/api`, or does not give the hold back in time. With `tell` the local API " +
			"tells the program, and the program must stop itself. With `kill` each main container starts through a shim, and the shim kills " +
			"all processes of its container before another pod can acquire the slot. The container ends with the exit code 75. " +
			"The loss of one hold kills the programs of all these containers, and so does the end of the agent's process (docs/reference/api.md). " +
			"Well-known proxies, init containers, and containers of other injectors have no shim.",
		Examples: []string{"tell", "kill"}, Local: true,
		set: oneOf(func(r *Request) *OnAPILoss { return &r.OnAPILoss }, OnAPILossTell, OnAPILossKill),
	},
	{
		Key: OnBusyAnnotation, Value: "`wait` or `skip`", Default: "`wait`",
		Meaning: "With `skip` a pod does not wait while the application of another pod runs under the slot and passes its " +
			"probes. Instead, the gated containers end with the exit code 0, and the application never starts. So a nightly job does not " +
			"overlap. In any other case the pod waits. Pods of one Job do not skip because of each other. A pod whose " +
			"application has started once never skips. Only for pods that end (restartPolicy `Never` or `OnFailure`), without " +
			"gated init containers, and with the gate `container`.",
		Examples: []string{"wait", "skip"},
		set:      oneOf(func(r *Request) *OnBusy { return &r.OnBusy }, OnBusyWait, OnBusySkip),
	},
	{
		Key: WaitAtMostAnnotation, Value: "`30s`, `10m`, …", Default: "no bound",
		Meaning: "The time for which a container waits for its slot, from `1s` to `8760h`. Then the container ends with the exit " +
			"code 69: with the restartPolicy `Never` the pod fails, and with `OnFailure` the container starts and waits again. " +
			"Each container, and each wait, has a time of its own. A Job's `backoffLimit` counts each pod that failed. " +
			"Only for pods that end, with the gate `container`.",
		Examples: []string{"30s", "10m", "1h30m"}, set: setWaitAtMost,
	},
	{
		Key: ReadinessAnnotation, Value: "`forward` or `holder`", Default: "`forward`",
		Meaning: "With `forward` a standby is Ready while a holder serves and answers it, and forwards its " +
			"ports (`metaparticle.io/ports`) to the holder. So the application sees the address of the standby instead of the client's " +
			"(docs/operate/traffic.md has the ways out). The standbys of a StatefulSet forward only if this annotation or `metaparticle.io/ports` is written out. " +
			"With `holder` only the holder is Ready.",
		Examples: []string{"forward", "holder"},
		set:      oneOf(func(r *Request) *Readiness { return &r.Readiness }, ReadinessForward, ReadinessHolder),
	},
	{
		Key: PortsAnnotation, Value: "`port[,port…]`", Default: "the TCP and UDP ports that the gated containers declare, and the TCP ports that their probes name",
		Meaning: "The ports that a standby forwards to the holder. `8080` is a TCP port, and `53/udp` a UDP port. " +
			"A port that is left out, such as that of the metrics, refuses connections in every standby. At most 32 ports.",
		Examples: []string{"8080", "8080,53,53/udp", "443/tcp, 443/udp"}, set: setPorts,
	},
	{
		Key: EndpointDelayAnnotation, Value: "`2s`, `500ms`, `0s`, …", Default: "`2s`",
		Meaning: "How long the cluster's proxies and load balancers may need to stop routing to a pod, from `0s` to `5m`. " +
			"A deleted standby that forwards accepts new connections until none has come for that time. The standby forwards " +
			"open connections until they end. Two seconds before the end of the pod's grace period, the standby closes all connections. A holder that " +
			"is to stop leaves its Services first, and then serves for the same time (docs/operate/traffic.md). While new connections " +
			"reach its successor, the holder serves for up to five seconds more. A deleted holder serves for at most half of its grace period.",
		Examples: []string{"2s", "500ms", "0s", "0"}, set: setEndpointDelay,
	},
	{
		Key: YieldAfterAnnotation, Value: "`60s`, `5m`, …", Default: "a holder that hangs keeps its slot",
		Meaning: "A holder that hangs hands over. If its application has served, and then fails its readiness probe for this time, from `5s` to `1h`, " +
			"the holder asks the standbys. Once a standby answers, the application stops with its pod's grace, and the slot is free. " +
			"For twice this time the pod takes no slot that another pod can take. Without an answer the application goes on. " +
			"A slot moves in this way at most once a minute, and each time the wait doubles, up to an hour. So a " +
			"database that fails for all pods does not make the slot wander. Only the readiness probes of gated containers count, and one of these containers must have one. " +
			"Only for pods with one claim, a lock or the singleton of a " + KindsThatRoll("or") + ", and with the gate `container`.",
		Examples: []string{"60s", "5s", "1h"}, set: setYieldAfter,
	},
	{
		Key: FailsafeAnnotation, Value: "`10m` or `10m,alone`", Default: "the application stops when the API server has been away for about nine seconds (a third of the lease duration)",
		Meaning: "The longest outage of the API server that the application survives, from `1m` to `45m`: with the promises of up to two standbys, or in a workload of one replica (`alone`). " +
			"Meanwhile a container that exits starts again. The price: a node that dies blocks the slot for longer, with `10m` for 12 min 30 s instead of 30 s. " +
			"The standbys that promise still take its slot after 30 s, and so does every standby while the holder has no promise. A holder that stops " +
			"in order frees the slot at once, as ever. A person's yield, and every other planned end, waits until the API server answers again (docs/how-to/failsafe.md). " +
			"Only for pods with one claim, a singleton, with the gate `container`, and without gated init containers. Without `alone` only for the pods of a " +
			KindsThatRoll("or") + ", and not with hostNetwork.",
		Examples: []string{"10m", "10m,alone", "1m", "45m,alone"}, set: setFailsafe,
	},
	{
		Key: PreferAnnotation, Value: "`key=value`", Default: "no pod is preferred",
		Meaning: "A label by which pods are preferred as the holder, such as `topology.kubernetes.io/zone=zone-a` or (for a StatefulSet) `apps.kubernetes.io/pod-index=0`. " +
			"A standby with this label that has been Ready for five minutes gets the slot from a holder of the same pod template without it: " +
			"at most once in five minutes, and never during a rollout. A standby without the label takes over as ever if the holder ends. " +
			"The agent reads the labels of its pod once, when its container starts. The labels `topology.kubernetes.io/zone` and `topology.kubernetes.io/region` " +
			"are those of the node, which pods carry since Kubernetes 1.35. In an older cluster no pod has them, so nobody is preferred. " +
			"Only for pods with one claim, a singleton or a lock, of a " + KindsThatRoll("or") + ", " +
			"with the gate `container`, without gated init containers, and without `metaparticle.io/readiness: holder`.",
		Examples: []string{"topology.kubernetes.io/zone=zone-a", "apps.kubernetes.io/pod-index=0", "tier=a_B.c"}, set: setPrefer,
	},
	{
		Key: GateAnnotation, Value: "`container`, `pod` or `readiness`", Default: "`container`",
		Meaning: "The gate that holds the application back. With `container` each gated container's program runs only while " +
			"the slot is held, and is proven dead before the slot is released. With `pod` the application's containers " +
			"stay unchanged. All of them start once the slot is held, and restart when the slot is lost " +
			"(for images that must be PID 1; Kubernetes 1.36). With `readiness` the application runs in all pods, and only " +
			"the holder is Ready. The last two gates guarantee less (docs/guarantees/gates.md).",
		Examples: []string{"container", "pod", "readiness"},
		set:      oneOf(func(r *Request) *Gate { return &r.Gate }, GateContainer, GatePod, GateReadiness),
	},
	{
		Key: InjectAnnotation, Value: "`\"true\"` or `\"false\"`", Default: "`\"true\"`", Alone: true,
		Meaning:  "`\"false\"` opts a pod out. An opt-out together with a claim is an error.",
		Examples: []string{"true", "false"}, set: setInject,
	},
}

// The list "written" has the annotations that only the webhook or the agent writes. The webhook
// writes SlotsAnnotation on pods, and the agent writes WorkloadAnnotation on Leases. The
// webhook may see a pod a second time, and the pod then already has SlotsAnnotation. On a pod,
// neither annotation counts as a claim or as a mistake. The policy on gates lists the same
// keys.
var written = []string{SlotsAnnotation, WorkloadAnnotation}

// Written reports whether only the webhook or the agent writes the annotation.
func Written(key string) bool { return slices.Contains(written, key) }

// Known reports whether this version of Metaparticle supports the annotation.
func Known(key string) bool { return Annotations.known(key) }

func (all table) known(key string) bool { return all.of(key).Key != "" }

// of returns the row of a key; the zero value if the table has none.
func (all table) of(key string) Annotation {
	if i := slices.IndexFunc(all, func(a Annotation) bool { return a.Key == key }); i >= 0 {
		return all[i]
	}
	return Annotation{}
}

// Carried reports whether the webhook carries the annotation from a workload to the pod
// template. The webhook also carries an unknown key with our prefix, and then refuses the
// pods. So no pod of a misspelt claim runs without a gate.
func Carried(key string) bool { return strings.HasPrefix(key, Prefix) && !Written(key) }

// Asks reports whether the annotations of an object ask for a gate. If an annotation has a mistake,
// nothing but the keys tell what a person wanted, as [Asking] returns them.
func Asks(annotations map[string]string) bool {
	request, err := Parse(annotations)
	if err == nil {
		return request.Injects() && !request.OptOut
	}
	return len(Asking(annotations)) > 0
}

// Asking returns the keys of the annotations that ask for a gate, whatever their values: those of
// claims and conditions, and each key with our prefix that this version does not know, as in the
// policy "gate". With an opt-out there are none.
func Asking(annotations map[string]string) (keys []string) {
	if annotations[InjectAnnotation] == "false" {
		return nil
	}
	for _, key := range slices.Sorted(maps.Keys(annotations)) {
		a := Annotations.of(key)
		setting := a.Key != "" && a.Kind == nil && key != LocalAnnotation && key != AfterAnnotation
		if Carried(key) && !setting && annotations[key] != "false" {
			keys = append(keys, key)
		}
	}
	return keys
}

// Effective returns the annotations of the pods that the workload creates from now on. These
// are the template's annotations, and those that the webhook carries from the workload. If the
// workload and the template have the same key, the result has the template's value.
func Effective(workload, template map[string]string) map[string]string {
	all := make(map[string]string, len(template))
	for key, value := range workload {
		if Carried(key) {
			all[key] = value
		}
	}
	maps.Copy(all, template)
	return all
}
