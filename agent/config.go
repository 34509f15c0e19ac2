// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/elector"
	"github.com/metaparticle-io/metaparticle/agent/gate"
	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/agent/probe"
	"github.com/metaparticle-io/metaparticle/api"
)

// API has the requests that the agent sends to the API server. agent/kube implements API.
type API interface {
	elector.Leases
	// PatchPodStatus patches the pod's status, and returns the pod as it is after the patch.
	PatchPodStatus(ctx context.Context, pod string, patch []byte) (kube.Pod, error)
	// ReadDeletion returns the pod as the API server has it now.
	ReadDeletion(ctx context.Context, pod string) (kube.Pod, error)
	CreateEvent(ctx context.Context, event kube.Event) error
}

// Gate is the agent's end of the connections to the pod's shims, or the stand-in for the whole pod.
// agent/gate and agent/podgate implement Gate.
type Gate interface {
	// Reports delivers the whole state of a shim whenever that state changes.
	Reports() <-chan gate.Report
	Grant(shim gate.ShimID, grant gate.Grant) error
	Drain(shim gate.ShimID, reason string, grace time.Duration) error
}

// Shims has the orders and commands that only shims understand, and no stand-in. agent/gate
// implements Shims.
type Shims interface {
	// End orders the shim to stop its child as Drain does, and then to end its container.
	End(shim gate.ShimID, reason string, grace time.Duration) error
	// Dismiss orders a waiting shim to end without a child.
	Dismiss(shim gate.ShimID, dismissal gate.Dismiss) error
	// Notify writes a line into the log of a waiting shim's container.
	Notify(shim gate.ShimID, line string) error
	// RunAside runs a command beside the shim's child, and returns the command's result.
	RunAside(ctx context.Context, shim gate.ShimID, command []string, timeout time.Duration) (gate.Result, error)
}

// ReadinessGate is the additional method of a Gate that controls only the pod's readiness. The agent
// calls Shown with the readiness that the API server has stored.
type ReadinessGate interface {
	Shown(ready bool)
}

// Forwarder forwards connections from a standby's ports to the holder. Only Reachable blocks. agent/proxy implements Forwarder.
type Forwarder interface {
	// Open listens on the ports. After a successful Open, Open does nothing until Close is called.
	Open() error
	// SetTarget sets the address of the holder's pod. While the address is empty, new
	// connections wait.
	SetTarget(address string)
	// Reachable returns an error if the pod at the address does not answer. A refused
	// connection counts as an answer, but silence does not.
	Reachable(ctx context.Context, address string) error
	// Unanswered delivers the address of a target that did not answer a forwarded connection.
	Unanswered() <-chan string
	// Idle returns the time since the last new connection.
	Idle() time.Duration
	// Linger accepts connections until none has come for the delay, and no connection after that.
	// The result is a channel, which is closed once the delay is over and all connections have ended.
	Linger(delay time.Duration) (left <-chan struct{})
	// Close closes the ports before it returns, because the child needs them.
	Close()
}

// Course is the decision of a pod that may skip. The pod decides once, and a new agent process
// keeps the decision. If the new process decided again, a pod whose application was killed
// before its end could skip, and so end with success.
type Course string

const (
	// CourseRun means that the application has started, or was about to start. From then on the
	// pod never skips.
	CourseRun Course = "run"
	// CourseSkip means that the application never starts in this pod.
	CourseSkip Course = "skip"
)

// Config has the settings of an agent. A zero value means the default, unless the setting is
// required.
type Config struct {
	Pod
	Claims
	Past
	Outside
}

// Pod describes the agent's own pod, and the machine of the pod.
type Pod struct {
	PodName, PodUID, PodIP string
	// Workload is the pod's workload, as Kind/name.
	Workload string
	// Job is the UID of the pod's Job. Pods of one Job do not skip because of each other.
	Job string
	// Revision is the pod's revision. A pod with the zero value takes no turns.
	Revision api.Revision
	// MinReady is the controller's minReadySeconds: how long a new pod must be Ready before it
	// counts as available.
	MinReady time.Duration
	// ReplacesUnready reports that the pod's controller replaces each old pod that is not
	// Ready, however many pods are unavailable.
	ReplacesUnready bool
	// Containers are the gated containers.
	Containers []string
	// InitContainers are the gated init containers. After the success of an init container, the
	// agent keeps the hold for the next container.
	InitContainers []string
	// Contact is the address at which the agent's process gives [Agent.Answer] to other pods of its slot; the zero
	// value if it listens on none. Only pods that support each other need it ([api.Supporters]).
	Contact netip.AddrPort
	// Grace is the time that a yield gives the child to stop: the pod's termination grace
	// period. Zero means api.DefaultGrace.
	Grace time.Duration
	// Probes are the declared probes, by the name of the gated container.
	Probes map[string]api.Probes
	// Ports are the ports that a standby forwards.
	Ports api.Ports
	// KubeletStops reports that only the kubelet can stop the application, by a restart of all
	// containers (the gate "pod"). In a pod that is being deleted the kubelet does not restart
	// the containers. So such a pod keeps its hold even if a person requests a yield.
	KubeletStops bool
	// BootID identifies the boot of the running kernel. Boots are all boots of the pod's volume
	// ([lease.Self]).
	BootID string
	Boots  []string
	// OwnKernel reports that the pod may run in a virtual machine of its own. An earlier virtual
	// machine of the pod may still run. So a Lease with another boot id does not prove that the
	// children of that boot are dead.
	OwnKernel bool
	// Ends reports that an ordered drain ends the pod, because the kubelet restarts no container.
	Ends bool
}

// Claims has the slots that the pod claims, and the rules by which the pod waits and is Ready.
type Claims struct {
	// Need has the slots that the pod holds for as long as its application runs. A once claim needs
	// exactly one gated container.
	api.Need
	// StartSlots are the Leases of start locks, which the pod holds only during each start of a
	// child.
	StartSlots []string
	// Settings are those of the pod's annotations. The zero value means api.DefaultLeaseDuration and
	// api.ReadinessForward.
	api.Settings
	// EndpointDelay is the time for which nodes may still send connections to a pod that leaves
	// its Services. During that time a standby that is about to end still accepts connections,
	// and a holder still serves.
	EndpointDelay time.Duration
	// Preferred says what the setting Prefer means for this pod.
	Preferred Prefers
}

// Prefers says what the preference of a pod's template ([api.PreferAnnotation]) means for the pod.
type Prefers int

const (
	// PrefersNobody means that the template states no preference.
	PrefersNobody Prefers = iota
	// PrefersSelf means that the pod has the preferred label.
	PrefersSelf
	// PrefersOthers means that the pod lacks the preferred label.
	PrefersOthers
)

// Past has the notes of the pod's earlier agent processes.
type Past struct {
	// First reports that no earlier agent process of the pod has competed ([elector.Claim.First]).
	First bool
	// Granted reports whether a note on disk names the hold as granted to a shim of the init
	// container. The agent needs the note, because an init container that has succeeded gets no
	// further shim that could report. If Granted is nil, the agent acts as after the result true.
	Granted func(container, hold string) bool
	// Course is the pod's earlier decision; empty if there is none. NoteCourse stores a decision
	// for the next agent process, and may be nil in a pod that never skips.
	Course     Course
	NoteCourse func(Course) error
}

// Outside has the ways in which the agent acts on the world, and learns from the world.
type Outside struct {
	API  API
	Gate Gate
	// Shims may be nil only in a pod without shims. Such a pod has no probes, never skips, waits
	// without a bound, and has no once claim.
	Shims Shims
	// Probe carries out an HTTP, TCP or gRPC probe. The default is probe.Do.
	Probe func(ctx context.Context, h api.Handler, address string, timeout time.Duration) probe.Result
	// Forwarder is nil if the pod forwards nothing.
	Forwarder Forwarder
	// Ask sends a message to the contact of another pod, whose agent calls [Agent.Answer], and returns the
	// answer. If Ask is nil, the pod has no supporters.
	Ask func(ctx context.Context, contact netip.AddrPort, message string) (answer string, err error)
	// Idle is called after each write of the pod's status or Events, when a burst of requests
	// is usually over. The function may do postponed work, such as a garbage collection. The
	// default does nothing.
	Idle func()
	// Leaps delivers a value after each leap of the wall clock. A shim also reports leaps, but
	// no shim lives between the end of an init container and the start of the next container.
	Leaps <-chan struct{}
	// Ahead returns how far the wall clock is ahead of CLOCK_BOOTTIME. If KubeletStops is true, the
	// agent learns from Ahead how long the machine was paused before a leap. If Ahead is nil, the
	// agent knows no such length.
	Ahead func() time.Duration
	// Reconnect closes the idle connections to the API server. The agent calls Reconnect after
	// a leap. If the machine was suspended until the leap, the server may have closed these
	// connections meanwhile. The default does nothing.
	Reconnect func()
	// Clock returns the time since boot (CLOCK_BOOTTIME), by which the agent decides
	// everything. Wall returns the time that the agent writes into the Lease for
	// people. The default of Wall is time.Now.
	Clock func() time.Duration
	Wall  func() time.Time
	// Random is the only source of randomness, so that a simulation can be repeated exactly.
	// Only one goroutine uses Random.
	Random rand.Source
	Log    *slog.Logger
}

// work returns the key under which a Lease records that its work is done; empty for none.
func (c Config) work() string { return cmp.Or(c.OnceKey, c.Run) }

// slotless reports whether the pod has only a start lock. A hold of such a pod has no deadline, and
// ends only when its children are dead.
func (c Config) slotless() bool { return len(c.Slots) == 0 }

// gates reports whether the agent gates the container. If the agent knows no gated container, the
// result is true.
func (c Config) gates(container string) bool {
	gated := slices.Concat(c.Containers, c.InitContainers)
	return len(gated) == 0 || slices.Contains(gated, container)
}

// gatesReadiness reports whether the pod has the gate "readiness".
func (c Config) gatesReadiness() bool {
	_, is := c.Gate.(ReadinessGate)
	return is
}

// check returns an error if the settings are invalid.
func (c Config) check() error {
	switch {
	case c.PodName == "" || c.PodUID == "":
		return errors.New("agent: no name or uid of the pod")
	case c.slotless() && len(c.StartSlots) == 0:
		return errors.New("agent: no slots")
	case !slices.IsSorted(c.Slots) || len(slices.Compact(slices.Clone(c.Slots))) != len(c.Slots):
		return fmt.Errorf("agent: slots %q are not in the order of acquisition", c.Slots)
	case c.Shards == 0 && slices.ContainsFunc(c.Slots, isShard):
		// Only slots that are all shards of one workload have a number of shards. Without
		// that number, the claim would ignore the stamps of its Leases.
		return fmt.Errorf("agent: slots %q are not all shards of one workload", c.Slots)
	case c.BootID == "":
		return errors.New("agent: no boot id")
	case c.API == nil || c.Gate == nil || c.Clock == nil || c.Leaps == nil || c.Random == nil:
		return errors.New("agent: an API, a gate, a clock, its leaps and a random source are needed")
	case len(c.Probes) > 0 && c.Shims == nil:
		return errors.New("agent: probes, and no shims to run their commands")
	case c.OnBusy == api.OnBusySkip && (c.Shims == nil || c.NoteCourse == nil), (c.WaitAtMost > 0 || c.work() != "") && c.Shims == nil:
		return errors.New("agent: a wait that may end, and no shims whose wait could end")
	}
	return nil
}

// withDefaults returns the settings with the default of each setting that is not set.
func (c Config) withDefaults() Config {
	if c.LeaseDuration == 0 {
		c.LeaseDuration = api.DefaultLeaseDuration
	}
	if c.Grace == 0 {
		c.Grace = api.DefaultGrace
	}
	if c.Readiness == "" {
		c.Readiness = api.ReadinessForward
	}
	if c.gatesReadiness() {
		// With the gate "readiness", a hold may end only once the API server shows that the pod is
		// not Ready. A reboot alone does not make the pod not Ready. So a Lease with the boot id of
		// an earlier boot proves nothing, and the claim must ignore reboots as with an own kernel.
		c.OwnKernel = true
	}
	if c.Idle == nil {
		c.Idle = func() {}
	}
	if c.Reconnect == nil {
		c.Reconnect = func() {}
	}
	if c.Wall == nil {
		c.Wall = time.Now
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c
}

// isShard reports whether the slot is a shard of a workload.
func isShard(slot string) bool {
	_, _, ok := api.ReadShard(slot)
	return ok
}
