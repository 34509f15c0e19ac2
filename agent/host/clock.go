// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package host

import (
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/metaparticle-io/metaparticle/agent/quiet"
)

// Now returns the instant of CLOCK_BOOTTIME: the time since boot, suspend included.
func Now() time.Duration {
	return quiet.Clock(unix.CLOCK_BOOTTIME) // Linux has had this clock since 2.6.39
}

// Wall returns the instant of CLOCK_REALTIME: the time since 1970.
func Wall() time.Duration {
	return quiet.Clock(unix.CLOCK_REALTIME)
}

// Ahead returns how far the wall clock is ahead of CLOCK_BOOTTIME.
func Ahead() time.Duration { return Wall() - Now() }

// BootID returns the id of the boot from which Now counts.
func BootID() (string, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("read boot id: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}
