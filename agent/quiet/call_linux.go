// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package quiet

import "syscall"

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
