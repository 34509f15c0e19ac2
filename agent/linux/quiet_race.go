// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

//go:build race

package linux

import (
	"net"
	"runtime"
	"syscall"
	"unsafe"
)

// wrap returns the connection unchanged. The race detector does not see that a quiet Read follows another
// goroutine's Write. So tests with that detector use the usual Read.
func wrap(c net.Conn, _ syscall.RawConn) net.Conn { return c }

// order is the address by which the race detector knows the order of messages.
var order int

// sent tells the race detector that what follows the receipt of a message also follows this call.
func sent() { runtime.RaceReleaseMerge(unsafe.Pointer(&order)) }

// received tells the race detector that a message was received.
func received() { runtime.RaceAcquire(unsafe.Pointer(&order)) }
