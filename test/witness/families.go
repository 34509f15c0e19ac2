// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package witness

import (
	"context"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"time"
)

// Family is one process that a shim started, with all its descendants: the application
// with every thread and orphan.
type Family struct {
	// Pod is the UID of the pod, or the path of the kubectl plugin that runs the family under a
	// person's hold.
	Pod string
	// Start is the instant at which the shim forked the process.
	Start time.Duration
	// End is the instant at which the last process of the family ended; zero while a
	// process of the family lives.
	End time.Duration
	// Programs are the names of the executed programs. A process that a shim forks
	// without an exec is not an application, so [Families.Of] omits it.
	Programs []string
}

func (f Family) String() string {
	return fmt.Sprintf("%s in pod %s from %v until %v", strings.Join(f.Programs, "+"), f.Pod, f.Start, f.End)
}

// Families are the families of all pods since [ListenToFamilies]. Unlike a [Witness],
// Families needs no program's name, because Families recognizes shims by their command.
type Families struct {
	connector connector

	mu       sync.Mutex
	families []*Family
	gates    map[int]*gate            // by the process id of the shim
	threads  map[int]map[int]struct{} // the living threads of each process of a family, by process id
	of       map[int]*Family          // the family of each process, by process id
	living   map[*Family]int          // the number of living processes of each family
	err      error
}

// gate has the pod of a shim, and the last family that the shim started. A process that the
// shim starts while this family lives, such as a hook, is a part of the family.
type gate struct {
	pod    string
	family *Family
}

// ListenToFamilies begins to listen; the caller must call [Families.Run].
func ListenToFamilies() (*Families, error) {
	c, err := connect()
	if err != nil {
		return nil, err
	}
	return &Families{
		connector: c, gates: map[int]*gate{}, threads: map[int]map[int]struct{}{},
		of: map[int]*Family{}, living: map[*Family]int{},
	}, nil
}

// Run listens until ctx ends.
func (f *Families) Run(ctx context.Context) {
	err := f.connector.run(ctx, func(n notice) {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.take(n)
	})
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err = err
}

// Of returns the families of the given pods, in the order in which the families started. If the
// kernel dropped process events, Of also returns an error.
func (f *Families) Of(pods ...string) ([]Family, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var found []Family
	for _, family := range f.families {
		if len(family.Programs) > 0 && slices.Contains(pods, family.Pod) {
			found = append(found, *family)
		}
	}
	return found, f.err
}

func (f *Families) take(n notice) {
	switch n.what {
	case whatFork:
		f.fork(n)
	case whatExec:
		f.exec(n)
	case whatExit:
		f.exit(n)
	}
}

func (f *Families) fork(n notice) {
	if n.thread != n.pid {
		if threads := f.threads[n.pid]; threads != nil {
			threads[n.thread] = struct{}{}
		}
		return
	}
	family := f.of[n.parent]
	if g := f.gates[n.parent]; g != nil {
		if g.family == nil || g.family.End > 0 {
			g.family = &Family{Pod: g.pod, Start: n.at}
			f.families = append(f.families, g.family)
		}
		family = g.family
	}
	if family == nil {
		return
	}
	f.of[n.pid] = family
	f.threads[n.pid] = map[int]struct{}{n.thread: {}}
	f.living[family]++
}

func (f *Families) exec(n notice) {
	if family := f.of[n.pid]; family != nil {
		// The exec has ended all other threads, and the remaining thread has the process's id.
		f.threads[n.pid] = map[int]struct{}{n.pid: {}}
		name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", n.pid))
		program := strings.TrimSpace(string(name))
		if err != nil {
			program = "gone" // the process ended before its name could be read
		}
		if !slices.Contains(family.Programs, program) {
			family.Programs = append(slices.Clone(family.Programs), program)
		}
		return
	}
	line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", n.pid))
	if err != nil {
		return
	}
	args := strings.Split(string(line), "\x00")
	switch {
	case len(args) < 2:
	case path.Base(args[0]) == "agent" && args[1] == "exec":
		if pod := podAt(n.pid); pod != "" {
			f.gates[n.pid] = &gate{pod: pod}
		}
	case args[1] == "hold-guard": // of "kubectl metaparticle hold"
		f.gates[n.pid] = &gate{pod: args[0]}
	}
}

func (f *Families) exit(n notice) {
	if n.thread == n.pid {
		delete(f.gates, n.pid)
	}
	threads := f.threads[n.pid]
	delete(threads, n.thread)
	if threads == nil || len(threads) > 0 {
		return
	}
	family := f.of[n.pid]
	delete(f.threads, n.pid)
	delete(f.of, n.pid)
	if f.living[family]--; f.living[family] == 0 {
		family.End = n.at
		delete(f.living, family)
	}
}
