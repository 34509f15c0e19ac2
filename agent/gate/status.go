// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package gate

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// processStatus holds a process's user and signals, as read from /proc.
type processStatus struct {
	// uid is the real user id.
	uid int
	// blocked, ignored and caught have one bit for each signal.
	blocked, ignored, caught uint64
}

// expects tells whether the process has decided what becomes of the signal.
func (p processStatus) expects(sig syscall.Signal) bool {
	return (p.blocked|p.ignored|p.caught)&(1<<(sig-1)) != 0
}

func readStatus(pid int) (processStatus, error) {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return processStatus{}, fmt.Errorf("read the status of process %d: %w", pid, err)
	}
	return parseStatus(string(text))
}

// parseStatus reads lines of "Name:\tvalue". The kernel escapes a newline in the
// process's own name.
func parseStatus(text string) (p processStatus, err error) {
	p.uid = -1
	masks := map[string]*uint64{"SigBlk": &p.blocked, "SigIgn": &p.ignored, "SigCgt": &p.caught}
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ":\t")
		if mask := masks[name]; mask != nil {
			if *mask, err = strconv.ParseUint(value, 16, 64); err != nil {
				return p, fmt.Errorf("read %s: %w", name, err)
			}
			delete(masks, name)
		}
		if name == "Uid" {
			own, _, _ := strings.Cut(value, "\t")
			if p.uid, err = strconv.Atoi(own); err != nil {
				return p, fmt.Errorf("read %s: %w", name, err)
			}
		}
	}
	if p.uid < 0 || len(masks) > 0 {
		return p, fmt.Errorf("read a status: %w", os.ErrInvalid)
	}
	return p, nil
}
