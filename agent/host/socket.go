// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package host

import (
	"fmt"
	"net"
	"os"
)

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
	if err = os.Chmod(fresh, mode); err == nil {
		err = os.Rename(fresh, path)
	}
	if err != nil {
		l.Close()
		return nil, fmt.Errorf("open socket: %w", err)
	}
	return l, nil
}

// makeRoom removes the temporary socket, and a directory at the path. A program that may write to the
// folder can make such a directory, and the rename cannot replace a directory.
func makeRoom(path, fresh string) error {
	if err := os.RemoveAll(fresh); err != nil {
		return err
	}
	if info, err := os.Lstat(path); err == nil && info.IsDir() {
		return os.RemoveAll(path)
	}
	return nil
}
