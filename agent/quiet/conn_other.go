// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

//go:build !linux || race

package quiet

import (
	"net"
	"syscall"
)

// wrap returns the connection unchanged. Only Linux runs agents. The race detector does not see that a
// quiet Read follows another goroutine's Write. So tests with that detector use the usual Read.
func wrap(c net.Conn, _ syscall.RawConn) net.Conn { return c }
