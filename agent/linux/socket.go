// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"syscall"

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

// errTruncated means that a message was longer than the Conn can receive.
var errTruncated = errors.New("truncated message")

// Network is the type of socket that carries whole messages (SOCK_SEQPACKET).
const Network = "unixpacket"

// Conn is a connection that carries whole messages, and files with them.
type Conn struct {
	*net.UnixConn
	raw syscall.RawConn
	in  []byte
}

// NewConn makes a Conn for messages of at most the given number of bytes.
func NewConn(c *net.UnixConn, most int) (*Conn, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	return &Conn{UnixConn: c, raw: raw, in: make([]byte, most+1)}, nil
}

// Send sends a message, and files with it. Send never blocks, because an end that reads nothing
// must not delay the other end. If the other end is gone, Send returns an error, and
// raises no SIGPIPE.
func (c *Conn) Send(message []byte, fds ...int) error {
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	return send(c.raw, message, oob)
}

// Receive returns the next message, and the file that came with it, if any. The message is
// valid until the next call.
func (c *Conn) Receive() (message []byte, file *os.File, err error) {
	oob := make([]byte, unix.CmsgSpace(4*4))
	n, oobn, flags, err := receive(c.raw, c.in, oob)
	if errors.Is(err, unix.ECONNRESET) {
		// The other end is gone, and has not read all messages of this end. The kernel reports
		// this reset once, before it returns the last messages of the other end.
		n, oobn, flags, err = receive(c.raw, c.in, oob)
	}
	if err != nil {
		return nil, nil, err
	}
	file = firstFile(oob[:oobn])
	if flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 || n == len(c.in) {
		if file != nil {
			file.Close()
		}
		return nil, nil, fmt.Errorf("%w: more than %d bytes", errTruncated, len(c.in)-1)
	}
	return c.in[:n], file, nil
}

// PeerPidfd returns a pidfd of the process that connected (SO_PEERPIDFD, Linux 6.5).
func (c *Conn) PeerPidfd() (*os.File, error) {
	var fd int
	var err error
	errControl := c.raw.Control(func(socket uintptr) {
		fd, err = unix.GetsockoptInt(int(socket), unix.SOL_SOCKET, unix.SO_PEERPIDFD)
	})
	if err = errors.Join(err, errControl); err != nil {
		return nil, err
	}
	unix.CloseOnExec(fd)
	_ = unix.SetNonblock(fd, true)
	return os.NewFile(uintptr(fd), "pidfd"), nil
}

// firstFile returns the first file of the control message, and closes any others.
func firstFile(oob []byte) *os.File {
	var first *os.File
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil
	}
	for i := range messages {
		fds, err := unix.ParseUnixRights(&messages[i])
		if err != nil {
			continue
		}
		for _, fd := range fds {
			if first != nil {
				unix.Close(fd)
				continue
			}
			// The file must be non-blocking, so that the Go runtime's poller takes it.
			_ = unix.SetNonblock(fd, true)
			first = os.NewFile(uintptr(fd), "pidfd")
		}
	}
	return first
}
