// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/courier"
	"github.com/metaparticle-io/metaparticle/agent/gate"
	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/agent/probe"
	"github.com/metaparticle-io/metaparticle/api"
)

// API has the agent's requests to the API server. agent/kube implements API.
type API interface {
	courier.Leases
	// PatchPodStatus returns the pod as it is after the patch.
	PatchPodStatus(ctx context.Context, pod string, patch []byte) (kube.Pod, error)
	// ReadPod returns the pod as it is now.
	ReadPod(ctx context.Context, pod string) (kube.Pod, error)
	CreateEvent(ctx context.Context, event kube.Event) error
}

// Gate is the agent's end of the connections to the pod's shims. agent/desk implements
// Gate.
type Gate interface {
	// Reports delivers the whole state of a shim whenever that state changes.
	Reports() <-chan gate.Report
	Grant(shim gate.ShimID, grant gate.Grant) error
	Drain(shim gate.ShimID, reason string, grace time.Duration) error
}

// Showing is a Gate that controls only the pod's readiness. The agent tells the gate
// which readiness the API server has stored.
type Showing interface {
	Shown(ready bool)
}

// Forwarder lets a standby answer in the holder's stead, by forwarding the ports of the
// gated containers. Only Reachable blocks. agent/forward implements Forwarder.
type Forwarder interface {
	// Open listens on the ports. Open does nothing if the ports are open already.
	Open() error
	// SetTarget names the holder's address. While the address is empty, new connections
	// wait.
	SetTarget(address string)
	// Reachable asks whether the pod at the address answers. A refused connection is an
	// answer, but silence is not.
	Reachable(ctx context.Context, address string) error
	// Unanswered delivers the address of a target that did not answer a connection.
	Unanswered() <-chan string
	// Linger accepts connections for the delay, and then no more. The channel is
	// closed once no connection is left.
	Linger(delay time.Duration) (left <-chan struct{})
	// Close gives the ports back before it returns, because the child needs them.
	Close()
}

// Course is the decision of a pod that may skip. The pod decides once, and a new agent
// process keeps the decision. Otherwise a pod whose application was killed in the middle
// could still end with success.
type Course string

const (
	// CourseRun means that the application has started, or was about to. The pod never
	// skips.
	CourseRun Course = "run"
	// CourseSkip means that the application never starts in this pod.
	CourseSkip Course = "skip"
)

// Config has the settings of an agent. Zero values mean the defaults.
type Config struct {
	// PodName, PodUID and PodIP are those of the agent's own pod.
	PodName, PodUID, PodIP string
	// Slots are the Leases to hold for life, in the order in which they are acquired. A pod with a
	// start lock alone has none.
	Slots []string
	// Any reports that any one of the slots is enough. Otherwise the pod needs all of
	// them.
	Any bool
	// StartSlots are the Leases of start locks, which the pod holds during each start of a child.
	StartSlots []string
	// Shards is the number of shards of the pod's work; zero for other claims.
	Shards int
	// Containers are the gated containers.
	Containers []string
	// InitContainers are the gated init containers. A hold continues after their
	// success, until the application has started.
	InitContainers []string
	// Granted reports whether a note names a grant of the hold to a shim of the init
	// container. An init container that has succeeded never gets another shim that could
	// report. So the agent needs this note. If Granted is nil, any shim may have had the
	// grant.
	Granted func(container, hold string) bool
	// Workload is the pod's workload, as Kind/name.
	Workload string
	// Revision is the pod's revision. A pod with the zero value takes no turns.
	Revision api.Revision
	// MinReady is the time for which the pod's controller wants a new pod to be Ready.
	MinReady time.Duration
	// ReplacesUnready reports that the pod's controller replaces each old pod that is not
	// Ready, however many pods are unavailable.
	ReplacesUnready bool
	// LeaseDuration is api.DefaultLeaseDuration if zero.
	LeaseDuration time.Duration
	// Grace is the time that a yield gives the child to stop: the pod's own grace period.
	// Zero means api.DefaultGrace.
	Grace time.Duration
	// OnBusy selects what the pod does while another pod holds; empty means that the pod
	// waits. Course is the pod's earlier decision, and empty if there is none. NoteCourse
	// stores a decision for the next agent process. Without skipping, NoteCourse may be nil.
	OnBusy api.OnBusy
	// Job is the UID of the pod's Job. Pods of one Job do not skip because of each other.
	Job        string
	Course     Course
	NoteCourse func(Course) error
	// OnceKey is the key of the pod's once claim, which needs exactly one gated container;
	// empty for other claims. For shards, OnceKey is the run of a pod that ends: each shard runs
	// until its success in that run.
	OnceKey string
	// WaitAtMost bounds each wait of a container; zero means no bound.
	WaitAtMost time.Duration
	// Readiness is api.ReadinessForward if empty.
	Readiness api.Readiness
	// Ports are the ports that the gated containers declare.
	Ports []int
	// EndpointDelay is the time for which nodes may send connections to a pod that leaves
	// its Services. For that time a standby that is told to stop still accepts
	// connections, and a holder still serves.
	EndpointDelay time.Duration
	// Probes are the declared probes of the gated containers, by container.
	Probes map[string]api.Probes
	// KubeletStops reports that only the kubelet stops the application, by a restart of
	// all containers (the gate "pod"). The kubelet does not restart them in a pod that is
	// being deleted.
	KubeletStops bool
	// BootID is the boot id of the running kernel.
	BootID string
	// OwnKernel reports that the pod may run in a virtual machine of its own. Another
	// boot id is then no proof that the children of the earlier boot are dead.
	OwnKernel bool

	API  API
	Gate Gate
	// Asides runs the commands of probes. Asides may be nil only without probes.
	Asides Asides
	// Dismiss ends a waiting shim without a child. Dismiss may be nil only for a pod that
	// waits without a bound, and without a once claim.
	Dismiss func(gate.ShimID, gate.Dismiss) error
	// Probe carries out an HTTP, TCP or gRPC probe. The default is probe.Do.
	Probe func(ctx context.Context, h api.Handler, address string, timeout time.Duration) probe.Result
	// The agent calls Calm after each write of the pod's status or Events, because a burst of
	// requests is usually over then. The default does nothing.
	Calm func()
	// Forwarder is nil if the pod forwards nothing.
	Forwarder Forwarder
	// Leaps delivers a value after each leap of the wall clock. A shim reports leaps, too, but
	// between two containers of a pod no shim lives.
	Leaps <-chan struct{}
	// Reconnect closes the idle connections to the API server, because a pause may have
	// outlasted them. The default does nothing.
	Reconnect func()
	// Clock returns the time since boot (CLOCK_BOOTTIME), by which the agent decides
	// everything. Wall returns the time that the agent writes into the Lease for
	// people. The default of Wall is time.Now.
	Clock func() time.Duration
	Wall  func() time.Time
	// Random is the only source of randomness, so that a simulation can repeat a run.
	// Only one goroutine uses it.
	Random rand.Source
	Log    *slog.Logger
}

// run returns the run of a pod whose shard ends with a success; empty for any other pod.
func (c Config) run() string {
	if c.Shards == 0 {
		return ""
	}
	return c.OnceKey
}

// slotless reports that the pod needs no slot for life. Then a hold ends only with its children.
func (c Config) slotless() bool { return len(c.Slots) == 0 }

// check refuses settings that cannot work, and fills in the defaults.
func (c Config) check() (Config, error) {
	switch {
	case c.PodName == "" || c.PodUID == "":
		return c, errors.New("agent: no name or uid of the pod")
	case c.slotless() && len(c.StartSlots) == 0:
		return c, errors.New("agent: no slots")
	case !slices.IsSorted(c.Slots) || len(slices.Compact(slices.Clone(c.Slots))) != len(c.Slots):
		return c, fmt.Errorf("agent: slots %q are not in the order of acquisition", c.Slots)
	case c.Shards == 0 && slices.ContainsFunc(c.Slots, isShard):
		// Without the number, the claim would ignore the stamps.
		return c, fmt.Errorf("agent: slots %q are not all shards of one workload", c.Slots)
	case c.BootID == "":
		return c, errors.New("agent: no boot id")
	case c.API == nil || c.Gate == nil || c.Clock == nil || c.Leaps == nil || c.Random == nil:
		return c, errors.New("agent: an API, a gate, a clock, its leaps and a random source are needed")
	case len(c.Probes) > 0 && c.Asides == nil:
		return c, errors.New("agent: probes, and nobody to run their commands")
	case c.OnBusy == api.OnBusySkip && (c.Dismiss == nil || c.NoteCourse == nil), (c.WaitAtMost > 0 || c.OnceKey != "") && c.Dismiss == nil:
		return c, errors.New("agent: a wait that may end, and no Dismiss to end it")
	}
	if c.LeaseDuration == 0 {
		c.LeaseDuration = api.DefaultLeaseDuration
	}
	if c.Grace == 0 {
		c.Grace = api.DefaultGrace
	}
	if c.Readiness == "" {
		c.Readiness = api.ReadinessForward
	}
	if _, showing := c.Gate.(Showing); showing {
		// A reboot ends all processes, but the API server still shows the pod as Ready.
		// So with the gate "readiness" another boot id proves nothing.
		c.OwnKernel = true
	}
	if c.Calm == nil {
		c.Calm = func() {}
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
	return c, nil
}

// isShard reports whether the slot is a shard of a workload.
func isShard(slot string) bool {
	_, _, ok := api.ReadShard(slot)
	return ok
}
