// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

//go:build !race

package linux

import (
	"io"
	"net"
	"syscall"
	"unsafe"
)

// quietConn is a connection with a quiet Read.
type quietConn struct {
	net.Conn
	raw syscall.RawConn
}

func wrap(c net.Conn, raw syscall.RawConn) net.Conn { return quietConn{c, raw} }

// SyscallConn returns the raw connection, for a caller that sets options of the socket.
func (c quietConn) SyscallConn() (syscall.RawConn, error) { return c.raw, nil }

// Read reads like the Read of the connection beneath. The errors for a deadline, a closed connection
// and the end of the stream are the same.
func (c quietConn) Read(p []byte) (n int, err error) {
	if len(p) == 0 {
		return 0, nil
	}
	n, err = read(c.raw, func(fd uintptr) (uintptr, syscall.Errno) {
		n, _, errno := syscall.RawSyscall(syscall.SYS_READ, fd, uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)))
		return n, errno
	})
	if err == nil && n == 0 {
		err = io.EOF
	}
	return n, err
}

// sent and received do nothing without the race detector.
func sent()     {}
func received() {}
