// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// facts are the properties that a process reads about itself.
type facts struct {
	Args      []string
	Directory string
	Env       []string
	// Status are the lines of /proc/self/status about rights and signals.
	Status []string
	// Limits are the lines of /proc/self/limits.
	Limits []string
	// Root is the error of a write to the root directory; empty if the write succeeded.
	Root string
	// Volume is the group ID of /volume, or -1 without that directory.
	Volume int
	// Input is the file behind standard input, as /proc/self/fd/0 names it.
	Input string
}

// statusLines are the names of the lines of /proc/self/status that the facts contain. Two processes
// with the same settings have the same text in these lines.
var statusLines = []string{"Umask", "Uid", "Gid", "Groups", "SigBlk", "SigIgn", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp"}

// tell prints the facts as one line of JSON.
func tell() error {
	f := facts{Args: os.Args, Env: os.Environ(), Volume: -1}
	slices.Sort(f.Env)
	var err error
	if f.Directory, err = os.Getwd(); err != nil {
		return err
	}
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(status)) {
		if name, _, _ := strings.Cut(line, ":"); slices.Contains(statusLines, name) {
			f.Status = append(f.Status, strings.TrimSpace(line))
		}
	}
	limits, err := os.ReadFile("/proc/self/limits")
	if err != nil {
		return err
	}
	f.Limits = strings.Split(strings.TrimSpace(string(limits)), "\n")
	file := filepath.Join("/", "written")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		f.Root = err.Error()
	}
	if info, err := os.Stat("/volume"); err == nil {
		f.Volume = int(info.Sys().(*syscall.Stat_t).Gid)
	}
	f.Input, _ = os.Readlink("/proc/self/fd/0") // empty if standard input is closed
	return json.NewEncoder(os.Stdout).Encode(f)
}
