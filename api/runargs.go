// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"
)

// DefaultGrace is the default of Kubernetes for terminationGracePeriodSeconds.
const DefaultGrace = 30 * time.Second

// DefaultEndpointDelay covers the time until no node sends connections to a pod that has left
// its Services. A second may pass between two writes of EndpointSlices. Another second may pass
// between two updates of a node's rules (kube-proxy's minSyncPeriod).
const DefaultEndpointDelay = 2 * time.Second

// Settings are the settings that an annotation, the arguments of the agent, and the agent itself have in common, as
// the simulation's pods do. So a new one is a field here, and an argument below. A setting that the pod's other fields
// decide, too, such as the ports, is no part of Settings; neither is the endpoint delay, whose 0s is not its default.
type Settings struct {
	// LeaseDuration is the duration that the agent writes into its Leases.
	LeaseDuration time.Duration
	// Readiness selects which pods are Ready. In the arguments it is [Request.Standbys], or [ReadinessAll].
	Readiness Readiness
	// OnBusy selects what the pod does while another pod holds the slot; empty for a pod that waits.
	OnBusy OnBusy
	// WaitAtMost bounds each wait of a container for its slots; zero for no bound.
	WaitAtMost time.Duration
	// YieldAfter is the time for which the application may fail its readiness probe before the holder hands over; zero
	// for ever.
	YieldAfter time.Duration
	// Failsafe is the longest outage of the API server that the application survives; the zero value for what the
	// lease duration gives.
	Failsafe Failsafe
	// Prefer has the zero value if no pod is preferred. [PreferEnv] has the pod's own value of the label.
	Prefer Preference
}

// RunArgs are the arguments of the agent's sidecar. The webhook writes all of them except
// RunDir and Credentials, which only tests set. Code that composes arguments starts from
// [DefaultRunArgs].
type RunArgs struct {
	// Slots are the Leases to hold, in the order in which they are acquired.
	Slots []string
	// Any reports that the pod needs only one of the slots, whichever is free.
	Any bool
	Settings
	// Job is the UID of the Job of a pod that may skip; empty for any other pod.
	Job string
	// OnceKey is the key of the pod's once claim. For a pod that works through the shards of a
	// Job, OnceKey is the run. For any other pod, OnceKey is empty.
	OnceKey string
	// Shard is the number of the one shard that a pod of an Indexed Job takes; empty for any other
	// pod.
	Shard string
	// Grace is the time within which the application must end at a yield.
	Grace time.Duration
	// Containers are the gated containers.
	Containers []string
	// Workload is the pod's workload, as Kind/name. A pod without a controller is a workload of
	// its own. With generateName, the webhook does not know the name of such a pod. So the text
	// then contains a variable, which the kubelet replaces by the pod's name.
	Workload string
	// Revision identifies the template of the pod. A pod with the zero value takes no turns.
	Revision Revision
	// MinReady is the minReadySeconds of the pod's controller.
	MinReady time.Duration
	// ReplacesUnready reports that the pod's controller replaces each old pod that is not
	// Ready, however many pods are unavailable.
	ReplacesUnready bool
	// InitContainers are the gated init containers.
	InitContainers []string
	// Install is the path to which the agent copies the program of the shims. If Install is empty, the
	// agent copies nothing.
	Install string
	Gate    Gate
	// Ports are the ports that a standby forwards to the holder.
	Ports Ports
	// EndpointDelay is the time for which nodes may still send new connections to a pod
	// that has left its Services.
	EndpointDelay time.Duration
	// Probes are the probes of the gated containers, by container.
	Probes map[string]Probes
	// Listen is the address at which the agent serves metrics and probes; empty means
	// none.
	Listen string
	// OwnKernel reports that the pod may run in a virtual machine of its own. A changed
	// boot id then does not prove that an earlier child is dead.
	OwnKernel bool
	// Ends reports that the kubelet restarts no container of the pod, so that a lost or yielded slot
	// ends the pod.
	Ends bool

	// RunDir is the directory of the agent's sockets, its notes, and the file that the agent
	// locks by flock.
	RunDir string
	// Credentials is the directory of the service account token and the cluster's CA.
	Credentials string
}

// DefaultRunArgs returns the arguments with the default value of each.
func DefaultRunArgs() RunArgs {
	return RunArgs{
		Settings: Settings{LeaseDuration: DefaultLeaseDuration, Readiness: ReadinessForward}, Grace: DefaultGrace, Gate: GateContainer,
		EndpointDelay: DefaultEndpointDelay, Listen: defaultListen, RunDir: RunPath, Credentials: CredentialsPath,
	}
}

// defaultListen is the agent's port at every address of the pod.
var defaultListen = ":" + strconv.Itoa(AgentPort)

// ReadinessGateArg is the argument that selects the gate "readiness". CEL can parse no
// arguments, so the policies and podspec.HasGate compare each argument with this whole word.
// No other spelling is recognized, and the webhook writes no other.
const ReadinessGateArg = "-gate=" + string(GateReadiness)

// Args returns the words of the agent's container, as a pod's spec has them.
func (r RunArgs) Args() []string { return append([]string{RunRole}, runArguments.words(r)...) }

// ParseRunArgs reads the words that follow the role, as the kubelet has expanded them.
func ParseRunArgs(words []string) (RunArgs, error) {
	r := DefaultRunArgs()
	rest, err := runArguments.parse(RunRole, &r, words)
	if err == nil && len(rest) > 0 {
		err = fmt.Errorf("agent %s: unexpected arguments %q", RunRole, rest)
	}
	return r, err
}

// RecallRunArgs reads the words of [RunArgs.Args] back from a pod's spec, and ignores
// all other words.
func RecallRunArgs(words []string) RunArgs {
	r := DefaultRunArgs()
	runArguments.recall(&r, words)
	return r
}

// Need returns what the pod needs while its application runs, and the slots of its start locks.
func (r RunArgs) Need() (life Need, start []string) {
	life = Need{Any: r.Any, OnceKey: r.OnceKey}
	life.Slots, start = SplitSlots(r.Slots)
	if _, life.Shards = ShardsOf(r.Slots); life.Shards > 0 {
		life.OnceKey, life.Run = "", r.OnceKey
	}
	if r.Shard != "" { // the pod takes no other slot
		life.Slots = slices.DeleteFunc(life.Slots, func(slot string) bool {
			_, n, _ := ReadShard(slot)
			return strconv.Itoa(n) != r.Shard
		})
	}
	return life, start
}

var runArguments = arguments[RunArgs]{
	namesArg("slots", "Leases to hold, comma-separated, in the order of acquisition",
		func(r *RunArgs) *[]string { return &r.Slots }),
	optionArg("any", "one of the slots is enough, whichever it is", func(r *RunArgs) *bool { return &r.Any }),
	durationArg("lease-duration", "how long a holder that vanished blocks the others",
		func(r *RunArgs) *time.Duration { return &r.LeaseDuration }),
	textArg("readiness", "which standbys are Ready: forward, holder or all",
		func(r *RunArgs) *Readiness { return &r.Readiness }, ReadinessForward, ReadinessHolder, ReadinessAll),
	textArg("on-busy", "what the pod does while another pod holds the slot: wait or skip",
		func(r *RunArgs) *OnBusy { return &r.OnBusy }, OnBusyWait, OnBusySkip).
		written(func(r RunArgs) bool { return r.OnBusy == OnBusySkip }),
	textArg("job", "the UID of the pod's Job, if the pod may skip",
		func(r *RunArgs) *string { return &r.Job }).written(func(r RunArgs) bool { return r.Job != "" }),
	durationArg("wait-at-most", "how long a container waits for the slot; 0: without a bound",
		func(r *RunArgs) *time.Duration { return &r.WaitAtMost }).
		written(func(r RunArgs) bool { return r.WaitAtMost != 0 }),
	textArg("once", "the key under which the container's success is recorded",
		func(r *RunArgs) *string { return &r.OnceKey }).written(func(r RunArgs) bool { return r.OnceKey != "" }),
	textArg("shard", "the one shard that the pod takes: the index of the pod in its Job",
		func(r *RunArgs) *string { return &r.Shard }).written(func(r RunArgs) bool { return r.Shard != "" }),
	durationArg("grace", "the grace of the application at a yield",
		func(r *RunArgs) *time.Duration { return &r.Grace }),
	namesArg("containers", "gated containers, comma-separated",
		func(r *RunArgs) *[]string { return &r.Containers }),
	textArg("workload", "the pod's workload, as Kind/name",
		func(r *RunArgs) *string { return &r.Workload }).expanded(),
	{
		name: "revision", meaning: "the pod template that the pod was made from, as UID/NUMBER/HASH",
		where: func(r RunArgs) bool { return r.Revision != (Revision{}) },
		text:  func(r RunArgs) string { return r.Revision.String() },
		read: func(r *RunArgs, value string) error {
			revision, err := ParseRevision(value)
			if err == nil {
				r.Revision = revision
			}
			return err
		},
	},
	durationArg("min-ready", "for how long a new pod has to be Ready, by its controller",
		func(r *RunArgs) *time.Duration { return &r.MinReady }).
		written(func(r RunArgs) bool { return r.MinReady != 0 }),
	optionArg("replaces-unready", "the pod's controller replaces each old pod that is not Ready",
		func(r *RunArgs) *bool { return &r.ReplacesUnready }),
	namesArg("init-containers", "gated init containers, comma-separated",
		func(r *RunArgs) *[]string { return &r.InitContainers }).written(func(r RunArgs) bool { return len(r.InitContainers) > 0 }),
	textArg("install", "where the program of the shims is copied to; empty: nowhere",
		func(r *RunArgs) *string { return &r.Install }).written(func(r RunArgs) bool { return r.Install != "" }),
	textArg("gate", "what holds the application back: container, pod or readiness",
		func(r *RunArgs) *Gate { return &r.Gate }, GateContainer, GatePod, GateReadiness).
		written(func(r RunArgs) bool { return r.Gate != GateContainer }),
	{
		name: "ports", meaning: "ports to forward to the holder, comma-separated: 8080, 53/udp, and 8080? for one that may be in use",
		where: func(r RunArgs) bool { return len(r.Ports) > 0 },
		text:  func(r RunArgs) string { return r.Ports.String() },
		read: func(r *RunArgs, value string) error {
			ports, err := parsePorts(value)
			if err == nil {
				r.Ports = ports
			}
			return err
		},
	},
	durationArg("endpoint-delay", "how long a deleted standby still accepts connections",
		func(r *RunArgs) *time.Duration { return &r.EndpointDelay }).
		written(func(r RunArgs) bool { return r.EndpointDelay != DefaultEndpointDelay }),
	durationArg("yield-after", "how long the application may fail its readiness probe before the holder hands over; 0: without a bound",
		func(r *RunArgs) *time.Duration { return &r.YieldAfter }).
		written(func(r RunArgs) bool { return r.YieldAfter != 0 }),
	{
		name: "failsafe", meaning: "the longest outage of the API server that the application survives, as in the annotation",
		where: func(r RunArgs) bool { return r.Failsafe != (Failsafe{}) },
		text:  func(r RunArgs) string { return r.Failsafe.String() },
		read: func(r *RunArgs, value string) error {
			failsafe, problem := ParseFailsafe(value)
			if problem != "" {
				return errors.New(problem)
			}
			r.Failsafe = failsafe
			return nil
		},
	},
	{
		name: "prefer", meaning: "the label by which a pod is preferred as the holder, as KEY=VALUE",
		where: func(r RunArgs) bool { return r.Prefer != (Preference{}) },
		text:  func(r RunArgs) string { return r.Prefer.String() },
		read: func(r *RunArgs, value string) error {
			preference, problem := parsePreference(value)
			if problem != "" {
				return errors.New(problem)
			}
			r.Prefer = preference
			return nil
		},
	},
	{
		name: "probes", meaning: "probes of the gated containers, by container, as JSON",
		where: func(r RunArgs) bool { return len(r.Probes) > 0 },
		text:  func(r RunArgs) string { return mustJSON(r.Probes) },
		read: func(r *RunArgs, value string) error {
			var probes map[string]Probes
			err := json.Unmarshal([]byte(value), &probes)
			if err == nil {
				r.Probes = probes
			}
			return err
		},
	},
	textArg("listen", "where /metrics and /healthz are served; empty: nowhere",
		func(r *RunArgs) *string { return &r.Listen }).written(func(r RunArgs) bool { return r.Listen != defaultListen }),
	optionArg("own-kernel", "the pod may run in a virtual machine of its own: another boot id proves nothing",
		func(r *RunArgs) *bool { return &r.OwnKernel }),
	optionArg("ends", "a lost or yielded slot ends the pod, as its restartPolicy is Never",
		func(r *RunArgs) *bool { return &r.Ends }),
	textArg("run", "directory of the agent's socket, flock and notes",
		func(r *RunArgs) *string { return &r.RunDir }).written(func(r RunArgs) bool { return r.RunDir != RunPath }),
	textArg("credentials", "directory of the service account's token and the cluster's CA",
		func(r *RunArgs) *string { return &r.Credentials }).written(func(r RunArgs) bool { return r.Credentials != CredentialsPath }),
}

// mustJSON marshals a value of strings and numbers. Such a value always has a JSON text.
func mustJSON(of any) string {
	text, err := json.Marshal(of)
	if err != nil {
		panic(fmt.Sprintf("marshal %T: %v", of, err))
	}
	return string(text)
}

// ExecArgs are the arguments of the shim. The child's own command follows the arguments. Code that
// composes arguments starts from [DefaultExecArgs].
type ExecArgs struct {
	// Container is the name of the container in which the shim runs.
	Container string
	OnLoss    OnLoss
	// OnBusy with the value [OnBusySkip] permits the shim to end with exit code 0 before its
	// child has started. WaitAtMost above zero permits the shim to end with [ExitWaited].
	OnBusy     OnBusy
	WaitAtMost time.Duration
	// MayBeDone permits the shim to end with exit code 0 if the container's work is done already.
	MayBeDone bool
	// Unbounded permits the child to run without a deadline, because the pod holds no slot
	// while its application runs.
	Unbounded bool
	// Shards is the number of shards of the pod's work; zero for a pod without shards.
	Shards int
	// StopSignal is the name or number of the signal that asks the child to stop. If
	// StopSignal is empty, the image's stop signal applies, or SIGTERM if the image has
	// none.
	StopSignal string
	// Platforms has the image's command for each architecture, if the commands differ.
	Platforms Platforms
	// PostStart and PreStop are the container's hooks; nil for none.
	PostStart, PreStop *Handler
	// Grace is the time within which the child and its PreStop must end. The webhook writes
	// the pod's own grace period only if the container has a hook.
	Grace time.Duration

	// Socket is the path of the agent's socket. Only tests change the path.
	Socket string
}

// DefaultExecArgs returns the arguments with the default value of each.
func DefaultExecArgs() ExecArgs {
	return ExecArgs{OnLoss: OnLossStandby, Grace: DefaultGrace, Socket: Socket}
}

// IsShim reports whether a container's command starts the shim: the first two words are the
// shim's program and the role. The policies compare the same two words.
func IsShim(command []string) bool {
	return len(command) > 1 && command[0] == ShimProgram && command[1] == ExecRole
}

// Args returns the words of a container's command that follow the path of the program. The last
// word, "--", separates the shim's arguments from the child's command.
func (e ExecArgs) Args() []string {
	return append(append([]string{ExecRole}, execArguments.words(e)...), endOfArgs)
}

// endOfArgs ends the arguments of a role.
const endOfArgs = "--"

// ParseExecArgs reads the words that follow the role, as the kubelet has expanded
// them, and returns the child's command.
func ParseExecArgs(words []string) (e ExecArgs, child []string, err error) {
	e = DefaultExecArgs()
	child, err = execArguments.parse(ExecRole, &e, words)
	return e, child, err
}

// RecallExecArgs reads the words of [ExecArgs.Args] back from a container's command, and
// ignores all other words.
func RecallExecArgs(words []string) ExecArgs {
	e := DefaultExecArgs()
	execArguments.recall(&e, words)
	return e
}

var execArguments = arguments[ExecArgs]{
	textArg("container", "name of this container",
		func(e *ExecArgs) *string { return &e.Container }),
	textArg("on-loss", "after a lost slot: standby, restart or end",
		func(e *ExecArgs) *OnLoss { return &e.OnLoss }, OnLossStandby, OnLossRestart, OnLossEnd),
	textArg("on-busy", "what the container does while another pod holds the slot: wait or skip",
		func(e *ExecArgs) *OnBusy { return &e.OnBusy }, OnBusyWait, OnBusySkip).
		written(func(e ExecArgs) bool { return e.OnBusy == OnBusySkip }),
	durationArg("wait-at-most", "how long the container waits for the slot; 0: without a bound",
		func(e *ExecArgs) *time.Duration { return &e.WaitAtMost }).
		written(func(e ExecArgs) bool { return e.WaitAtMost != 0 }),
	optionArg("once", "the container ends with exit code 0 if its work is done already",
		func(e *ExecArgs) *bool { return &e.MayBeDone }),
	optionArg("unbounded", "the application may run without a deadline, because the pod holds no slot for life",
		func(e *ExecArgs) *bool { return &e.Unbounded }),
	{
		name: "shards", meaning: "how many shards the work of the pod has",
		where: func(e ExecArgs) bool { return e.Shards != 0 },
		text:  func(e ExecArgs) string { return strconv.Itoa(e.Shards) },
		read: func(e *ExecArgs, value string) error {
			claims, problem := parseShards(value)
			if problem != "" {
				return errors.New(problem)
			}
			e.Shards = claims[0].Size
			return nil
		},
	},
	textArg("stop-signal", "the signal that asks the child to stop, by name or number; SIGTERM by default",
		func(e *ExecArgs) *string { return &e.StopSignal }).written(func(e ExecArgs) bool { return e.StopSignal != "" }),
	{
		name: "platforms", meaning: "the image's command for each architecture, as JSON, before COMMAND",
		where: func(e ExecArgs) bool { return len(e.Platforms) > 0 },
		text:  func(e ExecArgs) string { return e.Platforms.String() },
		read: func(e *ExecArgs, value string) error {
			platforms, err := parsePlatforms(value)
			if err == nil {
				e.Platforms = platforms
			}
			return err
		},
	},
	hookArg("post-start", "the handler that runs when the application has started, as JSON",
		func(e *ExecArgs) **Handler { return &e.PostStart }),
	hookArg("pre-stop", "the handler that runs before the application is asked to stop, as JSON",
		func(e *ExecArgs) **Handler { return &e.PreStop }),
	durationArg("grace", "the grace of the application and its preStop hook",
		func(e *ExecArgs) *time.Duration { return &e.Grace }).
		written(func(e ExecArgs) bool { return e.PostStart != nil || e.PreStop != nil || e.Grace != DefaultGrace }),
	textArg("socket", "the agent's socket",
		func(e *ExecArgs) *string { return &e.Socket }).written(func(e ExecArgs) bool { return e.Socket != Socket }),
}

// hookArg returns the row of a hook for the table execArguments.
func hookArg(name, meaning string, field func(*ExecArgs) **Handler) argument[ExecArgs] {
	return argument[ExecArgs]{
		name: name, meaning: meaning,
		where: func(e ExecArgs) bool { return *field(&e) != nil },
		text:  func(e ExecArgs) string { return (*field(&e)).String() },
		read: func(e *ExecArgs, value string) error {
			hook, err := parseHandler(value)
			if err == nil {
				*field(e) = &hook
			}
			return err
		},
	}
}
