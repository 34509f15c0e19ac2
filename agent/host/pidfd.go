// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package host

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// AwaitDeath returns nil once the pidfd's process is dead. AwaitDeath returns an error
// if ctx ends first, or if the pidfd cannot be watched.
func AwaitDeath(ctx context.Context, pidfd *os.File) error {
	stop := context.AfterFunc(ctx, func() { _ = pidfd.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	raw, err := pidfd.SyscallConn()
	if err == nil {
		err = raw.Read(readable)
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// readable reports to the Go runtime's poller whether a pidfd's process is dead. The poller calls
// readable once more when the process may have died.
func readable(fd uintptr) bool {
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	n, err := unix.Poll(fds, 0)
	return err == nil && n == 1 && fds[0].Revents&unix.POLLIN != 0
}

// SameProcess reports whether both pidfds are of one process. Since Linux 6.9 the pidfds of a process
// have an inode of their own. On an older kernel all pidfds have the same inode, so the result is
// true. The result is also true if the inodes cannot be read.
func SameProcess(a, b *os.File) bool {
	of, errOf := a.Stat()
	and, errAnd := b.Stat()
	return errOf != nil || errAnd != nil || os.SameFile(of, and)
}

// IsPidfd reports whether the file is a pidfd.
func IsPidfd(f *os.File) bool {
	raw, err := f.SyscallConn()
	if err != nil {
		return false
	}
	var link string
	errControl := raw.Control(func(fd uintptr) {
		link, err = os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
	})
	// The link of a pidfd is anon_inode:[pidfd], or pidfd:[inode] since Linux 6.9.
	return errors.Join(err, errControl) == nil && strings.Contains(link, "pidfd") && !strings.HasPrefix(link, "/")
}
