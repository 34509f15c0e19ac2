// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package cgroup makes, freezes and removes the cgroups of nodes, on hosts with
// version 1 or version 2 of the hierarchies.
package cgroup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/metaparticle-io/metaparticle/test/cluster/lab/wait"
)

// Groups are the host's cgroup hierarchies. A host has one hierarchy of version 2, or
// one for each controller of version 1. Some hosts with version 1 also have an empty
// hierarchy of version 2.
type Groups struct {
	joined  []string // hierarchies that processes join
	all     []string // hierarchies in which programs may make directories
	unified bool
}

const cgroupRoot = "/sys/fs/cgroup"

// parse reads the host's hierarchies from a table of mounts.
func parse(mounts string) (Groups, error) {
	var groups Groups
	for line := range strings.Lines(mounts) {
		fields := strings.Fields(line)
		if len(fields) < 3 {
			continue
		}
		switch at, kind := fields[1], fields[2]; {
		case kind == "cgroup2" && at == cgroupRoot:
			return Groups{joined: []string{at}, all: []string{at}, unified: true}, nil
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

// Open returns the hierarchies of this host.
func Open() (Groups, error) {
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return Groups{}, err
	}
	return parse(string(mounts))
}

// Make makes the directories of a cgroup, such as "lab/n1/system", in every hierarchy of the field
// "joined". Processes can join the cgroup afterwards.
func (g Groups) Make(name string) error {
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

// Weigh sets the processor weight of a cgroup beside its siblings, as a multiple of the usual one. With the usual one
// each thread outside of cgroups counts as much as the whole cgroup, so ten compilers would leave it an eleventh.
func (g Groups) Weigh(name string, times int) error {
	file, usual := "cpu.shares", 1024
	if g.unified {
		file, usual = "cpu.weight", 100
	}
	for _, dir := range g.Dirs(name) {
		if _, err := os.Stat(filepath.Join(dir, file)); err != nil {
			continue // the hierarchy of another controller
		}
		if err := os.WriteFile(filepath.Join(dir, file), fmt.Append(nil, times*usual), 0); err != nil {
			return err
		}
	}
	return nil
}

// delegate enables the controllers that a kubelet needs, in the cgroups directly below a cgroup.
// Only version 2 of cgroups needs this step.
func delegate(dir string) error {
	for _, controller := range []string{"cpuset", "cpu", "memory", "pids"} {
		err := os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+"+controller), 0)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("delegate %s: %w", controller, err)
		}
	}
	return nil
}

// inheritCPUs copies the parent's CPUs and memory nodes into a cpuset cgroup of version 1. In a new
// cgroup both sets are empty, and no process can join such a cgroup.
func inheritCPUs(parent, dir string) error {
	for _, name := range []string{"cpuset.cpus", "cpuset.mems"} {
		set, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil || strings.TrimSpace(string(set)) != "" {
			continue // dir belongs to another controller, or the set of dir is not empty
		}
		if set, err = os.ReadFile(filepath.Join(parent, name)); err != nil {
			return err
		}
		if strings.TrimSpace(string(set)) == "" {
			continue // version 2, in which a cgroup inherits the sets by itself
		}
		if err := os.WriteFile(filepath.Join(dir, name), set, 0); err != nil {
			return err
		}
	}
	return nil
}

// Dirs returns the directories of a cgroup, one in each hierarchy of the field "joined".
func (g Groups) Dirs(name string) []string {
	dirs := make([]string, len(g.joined))
	for i, root := range g.joined {
		dirs[i] = filepath.Join(root, name)
	}
	return dirs
}

// freezeFile returns the file that freezes a cgroup and the cgroups below; empty if the host has
// no freezer. Freeze writes the second result to this file. Then Freeze waits until the file with
// the cgroup's state contains the third result.
func (g Groups) freezeFile(name string, frozen bool) (file, write, read string) {
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

// Freeze freezes or thaws every process of a cgroup and of the cgroups below, and returns when
// the kernel has done so.
func (g Groups) Freeze(ctx context.Context, name string, frozen bool) error {
	file, write, read := g.freezeFile(name, frozen)
	if file == "" {
		return errors.New("this machine has no freezer cgroup")
	}
	state := file
	if g.unified {
		state = filepath.Join(filepath.Dir(file), "cgroup.events")
	}
	return wait.Poll(ctx, 10*time.Second, "freezer of "+name, func() error {
		// A process that forks during the freeze can make a second write necessary.
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

// IsFrozen reports whether Freeze has frozen a cgroup.
func (g Groups) IsFrozen(name string) bool {
	file, write, _ := g.freezeFile(name, true)
	data, err := os.ReadFile(file)
	return err == nil && strings.TrimSpace(string(data)) == write
}

// Drop removes a cgroup and the cgroups below. The caller has killed their processes, so the
// cgroups are empty soon.
func (g Groups) Drop(ctx context.Context, name string) error {
	for _, root := range g.all {
		dir := filepath.Join(root, name)
		err := wait.Poll(ctx, 10*time.Second, "cgroup "+dir+" to be empty", func() error { return removeCgroup(dir) })
		if err != nil {
			return err
		}
	}
	return nil
}

// removeCgroup removes a cgroup and the cgroups below, if no process is left in them.
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

// ThawAll thaws every cgroup directly below a cgroup.
func (g Groups) ThawAll(ctx context.Context, name string) error {
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
			if err := g.Freeze(ctx, filepath.Join(name, filepath.Base(filepath.Dir(node))), false); err != nil {
				return err
			}
		}
	}
	return nil
}
