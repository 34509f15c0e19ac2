// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// cgroups are the host's hierarchies: one of version 2, or one for each
// controller of version 1, with perhaps an empty one of version 2 beside them.
type cgroups struct {
	joined  []string // those that processes are put into
	all     []string // those that programs may make directories in
	unified bool
}

const cgroupRoot = "/sys/fs/cgroup"

// hostCgroups reads the host's hierarchies from a table of mounts.
func hostCgroups(mounts string) (cgroups, error) {
	var groups cgroups
	for line := range strings.Lines(mounts) {
		fields := strings.Fields(line)
		if len(fields) < 3 {
			continue
		}
		switch at, kind := fields[1], fields[2]; {
		case kind == "cgroup2" && at == cgroupRoot:
			return cgroups{joined: []string{at}, all: []string{at}, unified: true}, nil
		case kind == "cgroup2":
			groups.all = append(groups.all, at)
		case kind == "cgroup":
			groups.joined = append(groups.joined, at)
			groups.all = append(groups.all, at)
		}
	}
	if len(groups.joined) == 0 {
		return groups, errors.New("no cgroup hierarchy is mounted")
	}
	return groups, nil
}

func openCgroups() (cgroups, error) {
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return cgroups{}, err
	}
	return hostCgroups(string(mounts))
}

// make makes the directories of a cgroup, such as "lab/n1/system", in every
// hierarchy, so that processes can be put into them.
func (g cgroups) make(name string) error {
	for _, root := range g.joined {
		parent := root
		for part := range strings.SplitSeq(name, "/") {
			if g.unified {
				if err := delegate(parent); err != nil {
					return err
				}
			}
			dir := filepath.Join(parent, part)
			if err := os.MkdirAll(dir, 0o755); err != nil {
				return err
			}
			if err := inheritCPUs(parent, dir); err != nil {
				return err
			}
			parent = dir
		}
	}
	return nil
}

// delegate passes on the controllers that a kubelet wants (version 2).
func delegate(dir string) error {
	for _, controller := range []string{"cpuset", "cpu", "memory", "pids"} {
		err := os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+"+controller), 0)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("delegate %s: %w", controller, err)
		}
	}
	return nil
}

// inheritCPUs fills the sets of a cpuset cgroup of version 1: a new one has
// none, and takes no process.
func inheritCPUs(parent, dir string) error {
	for _, name := range []string{"cpuset.cpus", "cpuset.mems"} {
		set, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil || strings.TrimSpace(string(set)) != "" {
			continue // another controller, or filled already
		}
		if set, err = os.ReadFile(filepath.Join(parent, name)); err != nil {
			return err
		}
		if strings.TrimSpace(string(set)) == "" {
			continue // version 2 inherits by itself
		}
		if err := os.WriteFile(filepath.Join(dir, name), set, 0); err != nil {
			return err
		}
	}
	return nil
}

// dirs are the directories to join for a cgroup.
func (g cgroups) dirs(name string) []string {
	dirs := make([]string, len(g.joined))
	for i, root := range g.joined {
		dirs[i] = filepath.Join(root, name)
	}
	return dirs
}

// freezeFile is the file that freezes a cgroup with all below it, and what to
// write and to read there.
func (g cgroups) freezeFile(name string, frozen bool) (file, write, read string) {
	if g.unified {
		value := map[bool]string{true: "1", false: "0"}[frozen]
		return filepath.Join(cgroupRoot, name, "cgroup.freeze"), value, "frozen " + value
	}
	for _, root := range g.joined {
		if filepath.Base(root) == "freezer" {
			file = filepath.Join(root, name, "freezer.state")
		}
	}
	value := map[bool]string{true: "FROZEN", false: "THAWED"}[frozen]
	return file, value, value
}

// freeze stops every process of a cgroup and those below, or lets them go on,
// and returns when that has happened.
func (g cgroups) freeze(ctx context.Context, name string, frozen bool) error {
	file, write, read := g.freezeFile(name, frozen)
	if file == "" {
		return errors.New("this machine has no freezer cgroup")
	}
	state := file
	if g.unified {
		state = filepath.Join(filepath.Dir(file), "cgroup.events")
	}
	return poll(ctx, 10*time.Second, "freezer of "+name, func() error {
		// Processes that fork meanwhile can need the request again.
		if err := os.WriteFile(file, []byte(write), 0); err != nil {
			return err
		}
		data, err := os.ReadFile(state)
		if err != nil {
			return err
		}
		if !strings.Contains(string(data), read) {
			return fmt.Errorf("%s: %s", state, strings.TrimSpace(string(data)))
		}
		return nil
	})
}

// isFrozen tells whether a cgroup was frozen by freeze.
func (g cgroups) isFrozen(name string) bool {
	file, write, _ := g.freezeFile(name, true)
	data, err := os.ReadFile(file)
	return err == nil && strings.TrimSpace(string(data)) == write
}

// drop removes a cgroup and those below it once their processes are gone,
// which is soon: they have been killed.
func (g cgroups) drop(ctx context.Context, name string) error {
	for _, root := range g.all {
		dir := filepath.Join(root, name)
		err := poll(ctx, 10*time.Second, "cgroup "+dir+" to be empty", func() error { return removeCgroup(dir) })
		if err != nil {
			return err
		}
	}
	return nil
}

func removeCgroup(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if entry.IsDir() {
			if err := removeCgroup(filepath.Join(dir, entry.Name())); err != nil {
				return err
			}
		}
	}
	if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// pollInterval is short beside what is waited for (tens of milliseconds and
// more) and long beside what one look costs.
const pollInterval = 20 * time.Millisecond

// poll waits for what sends no event, and names it when it does not come.
func poll(ctx context.Context, limit time.Duration, what string, done func() error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		err := done()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w", what, err)
		case <-tick.C:
		}
	}
}

// thawAll lets every process below a cgroup go on.
func (g cgroups) thawAll(ctx context.Context, name string) error {
	for _, root := range g.joined {
		file, _, _ := g.freezeFile(name, false)
		if !strings.HasPrefix(file, root+"/") {
			continue
		}
		nodes, err := filepath.Glob(filepath.Join(root, name, "*", filepath.Base(file)))
		if err != nil {
			return err
		}
		for _, node := range nodes {
			if err := g.freeze(ctx, filepath.Join(name, filepath.Base(filepath.Dir(node))), false); err != nil {
				return err
			}
		}
	}
	return nil
}
