// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package host

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

var errNotSocket = errors.New("not a socket")

// Socket listens at a temporary path, and then moves the socket to the given path. So the new
// socket replaces an old one in one step, and no caller finds a socket that refuses
// connections. Gated containers may run as any user, so the argument "mode" decides which users may
// connect.
func Socket(network, path string, mode os.FileMode) (*net.UnixListener, error) {
	fresh := path + Unfinished
	if err := makeRoom(path, fresh); err != nil {
		return nil, fmt.Errorf("open socket: %w", err)
	}
	l, err := net.ListenUnix(network, &net.UnixAddr{Name: fresh, Net: network})
	if err != nil {
		return nil, fmt.Errorf("open socket %s: %w", path, err)
	}
	l.SetUnlinkOnClose(false) // by the time of the close, the path may belong to a later agent process
	if err = permit(fresh, mode); err == nil {
		err = os.Rename(fresh, path)
	}
	if err != nil {
		l.Close()
		return nil, fmt.Errorf("open socket: %w", err)
	}
	return l, nil
}

// permit sets the mode of the socket at the path. A program that may write to the folder can replace
// the socket by a link to another file of the agent. So permit opens the file at the path without
// following a link, and changes the mode of the opened file. The system call fchmod refuses a file
// that was opened with O_PATH, so permit uses the descriptor's path in /proc.
func permit(path string, mode os.FileMode) error {
	f, err := os.OpenFile(path, unix.O_PATH|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if info.Mode().Type() != os.ModeSocket {
		return &os.PathError{Op: "chmod", Path: path, Err: errNotSocket}
	}
	return os.Chmod("/proc/self/fd/"+strconv.Itoa(int(f.Fd())), mode)
}

// makeRoom removes the temporary socket, and a directory at the path. A program that may write to the
// folder can make such a directory, and the rename cannot replace a directory.
func makeRoom(path, fresh string) error {
	if err := putAside(fresh); err != nil {
		return err
	}
	if info, err := os.Lstat(path); err == nil && info.IsDir() {
		return putAside(path)
	}
	return nil
}

// putAside removes a file or a directory. If another user owns the directory, this process may be
// unable to empty the directory. Then putAside gives the directory another name.
func putAside(path string) error {
	err := os.RemoveAll(path)
	if err == nil {
		return nil
	}
	if os.Rename(path, path+".aside-"+rand.Text()) == nil {
		return nil
	}
	return err
}
