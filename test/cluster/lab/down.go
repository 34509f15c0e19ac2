// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"errors"
	"os"
)

// Down ends the cluster and removes everything of it but its logs: processes,
// mounts, namespaces, links, cgroups, state.
func (c *Cluster) Down(ctx context.Context) error {
	unlock, err := c.lockState(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	if err := c.clear(ctx); err != nil {
		return err
	}
	c.say("the cluster is down")
	return nil
}

// clear leaves the lock and the logs; the logs of an earlier run go when the
// next one starts.
func (c *Cluster) clear(ctx context.Context) error {
	groups, err := openCgroups()
	if err != nil {
		return err
	}
	if err := c.recall(); err != nil {
		return err
	}
	// A frozen process cannot even be killed.
	thaw := groups.thawAll(ctx, c.cgroup())
	if err := errors.Join(thaw, c.end(ctx, ControlPlane, holderName)); err != nil {
		return err
	}
	if err := groups.drop(ctx, c.cgroup()); err != nil {
		return err
	}
	entries, err := os.ReadDir(c.dir)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if name := entry.Name(); name != "lock" && name != "log" {
			if err := os.RemoveAll(c.path(name)); err != nil {
				return err
			}
		}
	}
	c.state = state{}
	return nil
}
