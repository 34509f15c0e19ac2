// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package host

import (
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/metaparticle-io/metaparticle/agent/quiet"
)

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
	return quiet.Send(c.raw, message, oob)
}

// Receive returns the next message, and the file that came with it, if any. The message is
// valid until the next call.
func (c *Conn) Receive() (message []byte, file *os.File, err error) {
	oob := make([]byte, unix.CmsgSpace(4*4))
	n, oobn, flags, err := quiet.Receive(c.raw, c.in, oob)
	if errors.Is(err, unix.ECONNRESET) {
		// The other end is gone, and has not read all messages of this end. The kernel reports
		// this reset once, before it returns the last messages of the other end.
		n, oobn, flags, err = quiet.Receive(c.raw, c.in, oob)
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
