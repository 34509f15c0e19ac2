// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

//go:build !386 && !s390x

package quiet

import (
	"io"
	"syscall"
	"unsafe"
)

// Receive receives a message and its control data from a socket, like recvmsg(2). Received files
// are closed in a new program. At the end of the messages, Receive returns [io.EOF].
func Receive(raw syscall.RawConn, message, control []byte) (n, controls, flags int, err error) {
	header := head(message, control)
	n, err = read(raw, func(fd uintptr) (uintptr, syscall.Errno) {
		return exchange(syscall.SYS_RECVMSG, fd, header, syscall.MSG_CMSG_CLOEXEC)
	})
	received()
	if err == nil && n == 0 {
		err = io.EOF
	}
	return n, int(header.Controllen), int(header.Flags), err
}

// Send sends a message and its control data to a socket, like sendmsg(2). Send returns
// [syscall.EAGAIN] if the socket has no room. Send raises no SIGPIPE.
func Send(raw syscall.RawConn, message, control []byte) error {
	header := head(message, control)
	sent()
	var errno syscall.Errno
	err := raw.Write(func(fd uintptr) bool {
		_, errno = again(fd, func(fd uintptr) (uintptr, syscall.Errno) {
			return exchange(syscall.SYS_SENDMSG, fd, header, syscall.MSG_NOSIGNAL|syscall.MSG_DONTWAIT)
		})
		return true
	})
	if err == nil && errno != 0 {
		err = errno
	}
	return err
}

// head returns the header of a message for the kernel.
func head(message, control []byte) *syscall.Msghdr {
	part := new(syscall.Iovec)
	if len(message) > 0 {
		part.Base = &message[0]
		part.SetLen(len(message))
	}
	header := &syscall.Msghdr{Iov: part, Iovlen: 1}
	if len(control) > 0 {
		header.Control = &control[0]
		header.SetControllen(len(control))
	}
	return header
}

// exchange calls recvmsg(2) or sendmsg(2).
func exchange(call, fd uintptr, header *syscall.Msghdr, flags int) (uintptr, syscall.Errno) {
	n, _, errno := syscall.RawSyscall(call, fd, uintptr(unsafe.Pointer(header)), uintptr(flags))
	return n, errno
}
