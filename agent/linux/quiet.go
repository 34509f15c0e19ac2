// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"fmt"
	"io"
	"net"
	"syscall"
	"time"
	"unsafe"
)

// The calls in this file never block, and Go's scheduler does not know of them. An agent mostly sleeps,
// and its few wake-ups are short. Before each usual system call, Go's runtime wakes a thread (sysmon),
// which watches calls that block. In a process that has just been idle, this thread costs more processor
// time than the work itself: `go test -bench . ./agent/linux` shows the difference.

// clock returns the instant of a clock, such as CLOCK_BOOTTIME. It panics if the kernel lacks the clock.
func clock(id uintptr) time.Duration {
	var t syscall.Timespec
	if _, _, errno := syscall.RawSyscall(syscall.SYS_CLOCK_GETTIME, id, uintptr(unsafe.Pointer(&t)), 0); errno != 0 {
		panic(fmt.Sprintf("clock %d: %v", id, errno))
	}
	return time.Duration(t.Nano())
}

// Quiet returns the connection with a Read by such a call, or the same connection if it has no file
// descriptor.
func Quiet(c net.Conn) net.Conn {
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

// receive receives a message and its control data from a socket, like recvmsg(2). Received files
// are closed in a new program. At the end of the messages, receive returns [io.EOF].
func receive(raw syscall.RawConn, message, control []byte) (n, controls, flags int, err error) {
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

// send sends a message and its control data to a socket, like sendmsg(2). It returns
// [syscall.EAGAIN] if the socket has no room. It raises no SIGPIPE.
func send(raw syscall.RawConn, message, control []byte) error {
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

// read repeats a call until the descriptor has data. The descriptors of package net never block, so
// the call itself returns at once. Between two calls the goroutine waits in Go's poller.
func read(raw syscall.RawConn, call func(fd uintptr) (uintptr, syscall.Errno)) (int, error) {
	var n uintptr
	var errno syscall.Errno
	err := raw.Read(func(fd uintptr) bool {
		n, errno = again(fd, call)
		return errno != syscall.EAGAIN
	})
	switch {
	case err != nil:
		return 0, err
	case errno != 0:
		return 0, errno
	}
	return int(n), nil
}

// again makes a call once more after each interruption by a signal.
func again(fd uintptr, call func(fd uintptr) (uintptr, syscall.Errno)) (n uintptr, errno syscall.Errno) {
	for {
		if n, errno = call(fd); errno != syscall.EINTR {
			return n, errno
		}
	}
}
