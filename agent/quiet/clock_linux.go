// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package quiet

import (
	"fmt"
	"syscall"
	"time"
	"unsafe"
)

// Clock returns the instant of a clock, such as CLOCK_BOOTTIME. Clock panics if the kernel lacks
// the clock.
func Clock(id uintptr) time.Duration {
	var t syscall.Timespec
	if _, _, errno := syscall.RawSyscall(syscall.SYS_CLOCK_GETTIME, id, uintptr(unsafe.Pointer(&t)), 0); errno != 0 {
		panic(fmt.Sprintf("clock %d: %v", id, errno))
	}
	return time.Duration(t.Nano())
}
