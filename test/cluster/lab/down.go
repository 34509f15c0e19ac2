// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"errors"
	"os"

	"github.com/metaparticle-io/metaparticle/test/cluster/lab/cgroup"
	"github.com/metaparticle-io/metaparticle/test/cluster/lab/process"
	"github.com/metaparticle-io/metaparticle/test/cluster/lab/state"
)

// Down ends the cluster and removes its processes, mounts, namespaces, links, cgroups and
// state. Only its logs and its lock file stay.
func (c *Cluster) Down(ctx context.Context) error {
	unlock, err := c.lockState(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	if err := c.clear(ctx); err != nil {
		return err
	}
	c.Say("the cluster is down")
	return nil
}

// clear ends all processes, and removes all files except the lock file and the logs. The
// next start removes the logs.
func (c *Cluster) clear(ctx context.Context) error {
	groups, err := cgroup.Open()
	if err != nil {
		return err
	}
	if err := process.Recall(c.Lab); err != nil {
		return err
	}
	// With version 1 of cgroups a frozen process cannot be killed, so all processes are thawed
	// first.
	thaw := groups.ThawAll(ctx, c.Cgroup())
	if err := errors.Join(thaw, process.End(ctx, c.Lab, state.ControlPlane, state.Holder)); err != nil {
		return err
	}
	if err := groups.Drop(ctx, c.Cgroup()); err != nil {
		return err
	}
	entries, err := os.ReadDir(c.Root)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if name := entry.Name(); name != "lock" && name != "log" {
			if err := os.RemoveAll(c.Path(name)); err != nil {
				return err
			}
		}
	}
	c.Saved = state.Saved{}
	return nil
}
