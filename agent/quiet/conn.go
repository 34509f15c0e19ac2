// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package quiet

import (
	"net"
	"syscall"
)

// Conn returns the connection with a quiet Read. Conn returns the same connection if its Read cannot
// be quiet: on a system other than Linux, or without a file descriptor.
func Conn(c net.Conn) net.Conn {
	owner, ok := c.(syscall.Conn)
	if !ok {
		return c
	}
	raw, err := owner.SyscallConn()
	if err != nil {
		return c
	}
	return wrap(c, raw)
}
