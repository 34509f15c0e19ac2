// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package fault injects faults into a cluster that is up, and repairs the faults: a cut link, a
// crash, a freeze, a killed component.
//
// A process cannot tell an injected fault from a real one. Only the opposite call, or
// the end of the cluster, repairs a fault.
package fault

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/metaparticle-io/metaparticle/test/cluster/lab/cgroup"
	"github.com/metaparticle-io/metaparticle/test/cluster/lab/daemon"
	"github.com/metaparticle-io/metaparticle/test/cluster/lab/network"
	"github.com/metaparticle-io/metaparticle/test/cluster/lab/process"
	"github.com/metaparticle-io/metaparticle/test/cluster/lab/state"
	"github.com/metaparticle-io/metaparticle/test/cluster/lab/worker"
)

// Injector breaks the nodes of a cluster that is up, and repairs them.
type Injector struct{ *state.Lab }

// Cut takes down a worker's link, so no packet crosses the link in either direction. The
// worker's components and pods run on.
func (i Injector) Cut(ctx context.Context, name string) error {
	n, err := i.worker(name)
	if err != nil {
		return err
	}
	return network.IP(ctx, i.Lab, state.ControlPlane, "link set "+n.Link()+" down")
}

// Heal brings a worker's link up again.
func (i Injector) Heal(ctx context.Context, name string) error {
	n, err := i.worker(name)
	if err != nil {
		return err
	}
	return network.IP(ctx, i.Lab, state.ControlPlane, "link set "+n.Link()+" up")
}

// CutFromAPI drops all packets from a worker and its pods to the control plane. Other nodes reach the
// worker.
func (i Injector) CutFromAPI(ctx context.Context, name string) error {
	return i.route(ctx, name, "add")
}

// ReachAPI ends what CutFromAPI began.
func (i Injector) ReachAPI(ctx context.Context, name string) error { return i.route(ctx, name, "del") }

func (i Injector) route(ctx context.Context, name, change string) error {
	n, err := i.worker(name)
	if err != nil {
		return err
	}
	return network.IP(ctx, i.Lab, n.Name, "route "+change+" blackhole "+state.ControlAddress)
}

// ClosePods drops all packets from the pods of a worker to the control plane, as a NetworkPolicy that closes
// their egress does. The worker itself reaches the control plane.
func (i Injector) ClosePods(ctx context.Context, name string) error { return i.rule(ctx, name, "add") }

// OpenPods ends what ClosePods began.
func (i Injector) OpenPods(ctx context.Context, name string) error { return i.rule(ctx, name, "del") }

func (i Injector) rule(ctx context.Context, name, change string) error {
	n, err := i.worker(name)
	if err != nil {
		return err
	}
	return network.IP(ctx, i.Lab, n.Name, "rule "+change+" from "+n.Subnet()+" to "+state.ControlAddress+" blackhole")
}

// CutFromPods drops all packets from a worker and its pods to the pods of other workers.
func (i Injector) CutFromPods(ctx context.Context, name string) error {
	return i.routePods(ctx, name, func(other state.Node) string { return "blackhole " + other.Subnet() })
}

// ReachPods ends what CutFromPods began.
func (i Injector) ReachPods(ctx context.Context, name string) error {
	return i.routePods(ctx, name, func(other state.Node) string { return other.Subnet() + " via " + other.Address() })
}

func (i Injector) routePods(ctx context.Context, name string, to func(other state.Node) string) error {
	n, err := i.worker(name)
	if err != nil {
		return err
	}
	var commands []string
	for _, name := range i.Nodes() {
		if other, _ := i.Node(name); other.Name != n.Name && other.Number != 0 {
			commands = append(commands, "route del "+other.Subnet(), "route add "+to(other))
		}
	}
	return network.IP(ctx, i.Lab, n.Name, commands...)
}

// Crash ends a worker immediately, as a power failure does. The worker's files stay.
func (i Injector) Crash(ctx context.Context, name string) error {
	n, err := i.worker(name)
	if err != nil {
		return err
	}
	groups, err := cgroup.Open()
	if err != nil {
		return err
	}
	if groups.IsFrozen(i.NodeCgroup(n.Name)) {
		if err := groups.Freeze(ctx, i.NodeCgroup(n.Name), false); err != nil {
			return err
		}
	}
	return process.End(ctx, i.Lab, n.Name, state.Holder)
}

// Boot starts a worker that crashed.
func (i Injector) Boot(ctx context.Context, name string) error {
	n, err := i.worker(name)
	if err != nil {
		return err
	}
	if process.PID(i.Lab, n.Name, state.Holder) != 0 {
		return nil
	}
	if err := worker.Power(ctx, i.Lab, n); err != nil {
		return err
	}
	return worker.Serve(ctx, i.Lab, n)
}

// Kill ends a component with SIGKILL, and returns when the component is dead. If the node is
// frozen, Kill returns an error. Only Start starts the component again.
func (i Injector) Kill(ctx context.Context, name, component string) error {
	n, err := i.Component(name, component)
	if err != nil {
		return err
	}
	groups, err := cgroup.Open()
	if err != nil {
		return err
	}
	if groups.IsFrozen(i.NodeCgroup(n.Name)) {
		return fmt.Errorf("node %s is frozen: no process of it can end", name)
	}
	return process.End(ctx, i.Lab, n.Name, component)
}

// Start starts a component that does not run.
func (i Injector) Start(ctx context.Context, name, component string) error {
	n, err := i.Component(name, component)
	if err != nil {
		return err
	}
	return daemon.Start(ctx, i.Lab, n, component)
}

// Freeze freezes every process of a node, also in pods, and returns when all are
// frozen. The processes get no signal.
func (i Injector) Freeze(ctx context.Context, name string) error { return i.setFrozen(ctx, name, true) }

// Thaw lets the processes of a node continue.
func (i Injector) Thaw(ctx context.Context, name string) error { return i.setFrozen(ctx, name, false) }

// setFrozen freezes or thaws a node that is up.
func (i Injector) setFrozen(ctx context.Context, name string, frozen bool) error {
	n, err := i.Node(name)
	if err != nil {
		return err
	}
	if process.PID(i.Lab, n.Name, state.Holder) == 0 {
		return fmt.Errorf("node %s is down", name)
	}
	groups, err := cgroup.Open()
	if err != nil {
		return err
	}
	return groups.Freeze(ctx, i.NodeCgroup(n.Name), frozen)
}

// worker finds a worker by name. For the control plane, the result is an error.
func (i Injector) worker(name string) (state.Node, error) {
	if process.PID(i.Lab, state.ControlPlane, state.Holder) == 0 {
		return state.Node{}, state.ErrDown
	}
	n, err := i.Node(name)
	if err == nil && n.Number == 0 {
		err = fmt.Errorf("not possible with the control plane: kill its components instead (%s)",
			strings.Join(daemon.Of(i.Lab, state.ControlPlane), ", "))
	}
	return n, err
}

// Component returns the node with the given name. If the cluster is down, or if the node lacks the
// component, the result is an error.
func (i Injector) Component(name, component string) (state.Node, error) {
	if process.PID(i.Lab, state.ControlPlane, state.Holder) == 0 {
		return state.Node{}, state.ErrDown
	}
	n, err := i.Node(name)
	if err != nil {
		return n, err
	}
	if have := daemon.Of(i.Lab, name); !slices.Contains(have, component) {
		return n, fmt.Errorf("node %s has no component %q, but %s", name, component, strings.Join(have, ", "))
	}
	return n, nil
}
