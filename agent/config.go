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

	"github.com/metaparticle-io/metaparticle/agent/gate"
	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/agent/probe"
	"github.com/metaparticle-io/metaparticle/api"
)

// API has the agent's requests to the API server. agent/kube implements it.
type API interface {
	// GetLease is a consistent read.
	GetLease(ctx context.Context, name string) (*kube.Lease, error)
	// UpdateLease replaces exactly the object that was read.
	UpdateLease(ctx context.Context, lease *kube.Lease) (*kube.Lease, error)
	// WatchLease calls fn until the watch ends; nil is an end in good order.
	WatchLease(ctx context.Context, name, resourceVersion string, fn func(kube.WatchEvent)) error
	// PatchPodStatus returns the pod as it is then.
	PatchPodStatus(ctx context.Context, pod string, patch []byte) (kube.Pod, error)
	CreateEvent(ctx context.Context, event kube.Event) error
}

// Gate is the agent's end of the connections to the pod's shims. agent/gate
// implements it.
type Gate interface {
	// Reports carries the whole state of a shim whenever it changes.
	Reports() <-chan gate.Report
	Grant(shim gate.ShimID, grant gate.Grant) error
	Drain(shim gate.ShimID, reason string, grace time.Duration) error
}

// Showing is a Gate that holds nothing back but the pod's readiness. The agent tells it
// which readiness the API server has stored.
type Showing interface {
	Shown(ready bool)
}

// Forwarder lets a standby answer in the holder's stead, by forwarding the
// ports of the gated containers. No method blocks but Reachable. agent/forward
// implements it.
type Forwarder interface {
	// Open listens on the ports. Open does nothing if the ports are open.
	Open() error
	// SetTarget names the holder's address. Empty means that there is none at
	// the moment: new connections are held until there is.
	SetTarget(address string)
	// Reachable asks the pod at the address: an application that refuses a
	// connection has answered, silence has not.
	Reachable(ctx context.Context, address string) error
	// Close gives the ports back before it returns: the child needs them.
	Close()
}

// Config has the settings of an agent. Zero values mean the defaults.
type Config struct {
	// PodName, PodUID and PodIP are the pod's own.
	PodName, PodUID, PodIP string
	// Slots are the Leases to hold, in the order in which they are acquired.
	Slots []string
	// Any: one of the slots is enough, whichever it is. Otherwise all are needed.
	Any bool
	// Containers are the gated containers.
	Containers []string
	// InitContainers are the gated init containers. A hold is kept while they
	// end with success and until the application has started.
	InitContainers []string
	// Granted tells whether a note names a grant of the hold to a shim of such a
	// container. Once the container has succeeded, it never has another shim. Without
	// it, any may.
	Granted func(container, hold string) bool
	// Workload is the pod's, as Kind/name.
	Workload string
	// Revision is the pod's. The zero value has no order.
	Revision api.Revision
	// LeaseDuration is api.DefaultLeaseDuration if zero.
	LeaseDuration time.Duration
	// Grace is the time that a yield leaves the child to stop: the pod's own grace period.
	// api.DefaultGrace if zero.
	Grace time.Duration
	// Readiness is api.ReadinessForward if empty.
	Readiness api.Readiness
	// Ports are the ports that the gated containers declare.
	Ports []int
	// Probes are those of the gated containers, by container, as they were
	// declared.
	Probes map[string]api.Probes
	// KubeletStops: nothing stops the application but a kubelet that restarts all
	// containers, which it does not do in a pod that is being deleted.
	KubeletStops bool
	// BootID is the running kernel's.
	BootID string
	// OwnKernel: the pod may run in a virtual machine of its own. Another boot id is then
	// no proof that the children of the earlier boot are dead.
	OwnKernel bool

	API  API
	Gate Gate
	// Asides is needed where there are probes.
	Asides Asides
	// Probe carries out a probe that is no command; probe.Do if nil.
	Probe func(ctx context.Context, h api.Handler, address string, timeout time.Duration) probe.Result
	// Calm is called when a busy moment is over, and its status and Events are written.
	// nil does nothing.
	Calm func()
	// Forwarder is nil where nothing is to be forwarded.
	Forwarder Forwarder
	// Leaps yields a value after the wall clock leapt, where no shim tells of that:
	// the machine may have been paused. Nil for never.
	Leaps <-chan struct{}
	// Reconnect gives up idle connections to the API server, which a pause may
	// have outlasted. Nothing is done if nil.
	Reconnect func()
	// Clock is the time since boot (CLOCK_BOOTTIME): every decision is made by
	// it. Wall is written into the Lease for people, time.Now if nil.
	Clock func() time.Duration
	Wall  func() time.Time
	// Random is the one source of everything random, so that a simulation can repeat a
	// run. One goroutine alone uses it.
	Random rand.Source
	Log    *slog.Logger
}

// check refuses what cannot work and fills in the defaults.
func (c Config) check() (Config, error) {
	switch {
	case c.PodName == "" || c.PodUID == "":
		return c, errors.New("agent: no name or uid of the pod")
	case len(c.Slots) == 0:
		return c, errors.New("agent: no slots")
	case !slices.IsSorted(c.Slots) || len(slices.Compact(slices.Clone(c.Slots))) != len(c.Slots):
		return c, fmt.Errorf("agent: slots %q are not in the order of acquisition", c.Slots)
	case c.BootID == "":
		return c, errors.New("agent: no boot id")
	case c.API == nil || c.Gate == nil || c.Clock == nil || c.Random == nil:
		return c, errors.New("agent: an API, a gate, a clock and a random source are needed")
	case len(c.Probes) > 0 && c.Asides == nil:
		return c, errors.New("agent: probes, and nobody to run their commands")
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
		// A boot ends processes. A boot does not take the pod out of the endpoints.
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
