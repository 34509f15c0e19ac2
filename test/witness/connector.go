// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package witness

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// A message consists of nlmsghdr (16 bytes), cn_msg (20) and proc_event. The header of
// proc_event (what, cpu, timestamp) takes 16 bytes, and pid and tgid follow.
const (
	netlinkHeader   = 16
	connectorHeader = 20
	eventAt         = netlinkHeader + connectorHeader
	// After the header, the event of an exec or exit has the ids of one thread: pid and
	// tgid. The event of a fork has the ids of two threads, the parent and the child.
	eventLength = eventAt + 16 + 8
	forkLength  = eventAt + 16 + 16

	connectorProc = 1 // CN_IDX_PROC, CN_VAL_PROC
	listen        = 1 // PROC_CN_MCAST_LISTEN
	whatFork      = 0x00000001
	whatExec      = 0x00000002
	whatExit      = 0x80000000
)

// receiveBuffer has room for some ten thousand events. On a busy machine so many events occur in
// several seconds.
const receiveBuffer = 8 << 20

// connector is the kernel's process connector.
type connector struct{ socket int }

// notice is one message of the connector.
type notice struct {
	what uint32
	at   time.Duration
	// thread and pid identify the thread that the notice is about. If the notice is about a fork,
	// this thread is the new one.
	thread, pid int
	// parent is the parent of a new process.
	parent int
}

func connect() (connector, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, unix.NETLINK_CONNECTOR)
	if err != nil {
		return connector{}, fmt.Errorf("open the kernel's process connector: %w", err)
	}
	c := connector{fd}
	if err := c.subscribe(); err != nil {
		c.close()
		return c, fmt.Errorf("listen to the kernel's process connector (root and CONFIG_PROC_EVENTS are needed): %w", err)
	}
	return c, nil
}

func (c connector) close() { unix.Close(c.socket) }

func (c connector) subscribe() error {
	if err := unix.Bind(c.socket, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: connectorProc}); err != nil {
		return err
	}
	_ = unix.SetsockoptInt(c.socket, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer)
	// With a timeout the reader can check its context now and then.
	if err := unix.SetsockoptTimeval(c.socket, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 100_000}); err != nil {
		return err
	}
	message := make([]byte, 0, eventAt+4)
	message = binary.NativeEndian.AppendUint32(message, eventAt+4)
	message = binary.NativeEndian.AppendUint16(message, unix.NLMSG_DONE)
	message = append(message, make([]byte, 10)...)                     // flags, sequence, port
	message = binary.NativeEndian.AppendUint32(message, connectorProc) // cb_id.idx, of struct cn_msg
	message = binary.NativeEndian.AppendUint32(message, connectorProc) // cb_id.val
	message = append(message, make([]byte, 8)...)                      // seq, ack
	message = binary.NativeEndian.AppendUint16(message, 4)             // length of what follows
	message = binary.NativeEndian.AppendUint16(message, 0)             // flags
	message = binary.NativeEndian.AppendUint32(message, listen)        // enum proc_cn_mcast_op
	return unix.Sendto(c.socket, message, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
}

// run passes each notice to a function until ctx ends, and then closes the connector. A
// lost notice is an error.
func (c connector) run(ctx context.Context, take func(notice)) error {
	defer c.close()
	buffer := make([]byte, 4096)
	for ctx.Err() == nil {
		n, _, err := unix.Recvfrom(c.socket, buffer, 0)
		switch {
		case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.ENOBUFS):
			return errors.New("the kernel dropped process events: the machine is too busy for a record without gaps")
		case err != nil:
			return fmt.Errorf("read process events: %w", err)
		case n < eventLength:
			continue
		}
		take(decode(buffer[eventAt:n]))
	}
	return nil
}

func decode(event []byte) notice {
	number := func(at int) int { return int(binary.NativeEndian.Uint32(event[at:])) }
	n := notice{
		what: binary.NativeEndian.Uint32(event), at: time.Duration(binary.NativeEndian.Uint64(event[8:])),
		thread: number(16), pid: number(20),
	}
	if n.what == whatFork && len(event) >= forkLength-eventAt {
		n.parent, n.thread, n.pid = n.pid, number(24), number(28)
	}
	return n
}
