// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package host

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// Status has the user of a process, and how the process treats signals, as read from /proc.
type Status struct {
	// UID is the real user id.
	UID int
	// blocked, ignored and caught have one bit for each signal.
	blocked, ignored, caught uint64
}

// Expects reports whether the process blocks, ignores or catches the signal.
func (s Status) Expects(sig syscall.Signal) bool {
	return (s.blocked|s.ignored|s.caught)&(1<<(sig-1)) != 0
}

// ReadStatus reads the status of a process.
func ReadStatus(pid int) (Status, error) {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return Status{}, fmt.Errorf("read the status of process %d: %w", pid, err)
	}
	return parseStatus(string(text))
}

// parseStatus reads lines of "Name:\tvalue". The kernel escapes a newline in the name of the
// process, so the name cannot add a line.
func parseStatus(text string) (s Status, err error) {
	s.UID = -1
	masks := map[string]*uint64{"SigBlk": &s.blocked, "SigIgn": &s.ignored, "SigCgt": &s.caught}
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ":\t")
		if mask := masks[name]; mask != nil {
			if *mask, err = strconv.ParseUint(value, 16, 64); err != nil {
				return s, fmt.Errorf("read %s: %w", name, err)
			}
			delete(masks, name)
		}
		if name == "Uid" {
			own, _, _ := strings.Cut(value, "\t")
			if s.UID, err = strconv.Atoi(own); err != nil {
				return s, fmt.Errorf("read %s: %w", name, err)
			}
		}
	}
	if s.UID < 0 || len(masks) > 0 {
		return s, fmt.Errorf("read a status: %w", os.ErrInvalid)
	}
	return s, nil
}
