// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
)

// Cut takes a worker's network away: its daemons and pods run on, nothing
// crosses its link in either direction.
func (c *Cluster) Cut(ctx context.Context, name string) error {
	n, err := c.worker(name)
	if err != nil {
		return err
	}
	return c.ip(ctx, ControlPlane, "link set "+n.link()+" down")
}

// Heal gives a worker its network back.
func (c *Cluster) Heal(ctx context.Context, name string) error {
	n, err := c.worker(name)
	if err != nil {
		return err
	}
	return c.ip(ctx, ControlPlane, "link set "+n.link()+" up")
}

// Crash ends a worker at once, as a power failure does; its disk stays.
func (c *Cluster) Crash(ctx context.Context, name string) error {
	n, err := c.worker(name)
	if err != nil {
		return err
	}
	groups, err := openCgroups()
	if err != nil {
		return err
	}
	if groups.isFrozen(c.nodeCgroup(n.Name)) {
		if err := groups.freeze(ctx, c.nodeCgroup(n.Name), false); err != nil {
			return err
		}
	}
	return c.end(ctx, n.Name, holderName)
}

// Boot starts a worker that crashed.
func (c *Cluster) Boot(ctx context.Context, name string) error {
	n, err := c.worker(name)
	if err != nil {
		return err
	}
	if c.pid(n.Name, holderName) != 0 {
		return nil
	}
	if err := c.power(ctx, n); err != nil {
		return err
	}
	return c.serve(ctx, n)
}

// Kill ends a component with SIGKILL and returns when it is dead. Nothing
// starts it again but Start.
func (c *Cluster) Kill(ctx context.Context, name, component string) error {
	n, err := c.component(name, component)
	if err != nil {
		return err
	}
	groups, err := openCgroups()
	if err != nil {
		return err
	}
	if groups.isFrozen(c.nodeCgroup(n.Name)) {
		return fmt.Errorf("node %s is frozen: no process of it can end", name)
	}
	return c.end(ctx, n.Name, component)
}

// Start starts a component that does not run.
func (c *Cluster) Start(ctx context.Context, name, component string) error {
	n, err := c.component(name, component)
	if err != nil {
		return err
	}
	return c.startComponent(ctx, n, component)
}

// Freeze stops every process of a node, pods included, without a trace to
// them, and returns when all stand still.
func (c *Cluster) Freeze(ctx context.Context, name string) error { return c.setFrozen(ctx, name, true) }

// Thaw lets the processes of a node go on.
func (c *Cluster) Thaw(ctx context.Context, name string) error { return c.setFrozen(ctx, name, false) }

func (c *Cluster) setFrozen(ctx context.Context, name string, frozen bool) error {
	n, err := c.node(name)
	if err != nil {
		return err
	}
	if c.pid(n.Name, holderName) == 0 {
		return fmt.Errorf("node %s is down", name)
	}
	groups, err := openCgroups()
	if err != nil {
		return err
	}
	return groups.freeze(ctx, c.nodeCgroup(n.Name), frozen)
}

// PID is the host's process id of a component, 0 if it does not run.
func (c *Cluster) PID(name, component string) int { return c.pid(name, component) }

// Log is the file with what a component has said since the cluster came up.
func (c *Cluster) Log(name, component string) (string, error) {
	if component != holderName {
		if _, err := c.component(name, component); err != nil {
			return "", err
		}
	}
	file := c.logFile(name, component)
	_, err := os.Stat(file)
	return file, err
}

// worker finds a worker by name.
func (c *Cluster) worker(name string) (node, error) {
	if c.pid(ControlPlane, holderName) == 0 {
		return node{}, ErrDown
	}
	n, err := c.node(name)
	if err == nil && n.number == 0 {
		err = fmt.Errorf("not possible with the control plane: kill its components instead (%s)",
			strings.Join(c.components(ControlPlane), ", "))
	}
	return n, err
}

// component checks that a node has a component.
func (c *Cluster) component(name, component string) (node, error) {
	if c.pid(ControlPlane, holderName) == 0 {
		return node{}, ErrDown
	}
	n, err := c.node(name)
	if err != nil {
		return n, err
	}
	if have := c.components(name); !slices.Contains(have, component) {
		return n, fmt.Errorf("node %s has no component %q, but %s", name, component, strings.Join(have, ", "))
	}
	return n, nil
}
