// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"net"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/metaparticle-io/metaparticle/agent/gate"
	"github.com/metaparticle-io/metaparticle/agent/linux"
)

// A shim that cannot connect tries again as soon as a socket appears. If no socket appears, the
// shim tries again after a pause of redialFirst. Each further pause is twice as long, but not
// longer than redialMost. An agent process takes about redialFirst to start. If the shim cannot
// watch the directory, it may connect up to redialMost after the socket has appeared.
const (
	redialFirst = 50 * time.Millisecond
	redialMost  = 2 * time.Second
)

// socketConn implements [Conn] for the type kernel.
type socketConn struct {
	*linux.Conn
	pidfds []int // the first message carries these pidfds
}

func (c *socketConn) Send(message []byte) error {
	fds := c.pidfds
	c.pidfds = nil
	return c.Conn.Send(message, fds...)
}

// connect keeps a connection to the desk for as long as the process lives. The channel "inputs"
// receives each connection, its end, and the desk's orders.
func connect(socket string, pidfd int, inputs chan<- Input) {
	pause := redialFirst
	for {
		c := dial(socket, &pause)
		began := linux.Now()
		up := &socketConn{Conn: c}
		if pidfd >= 0 {
			up.pidfds = []int{pidfd}
		}
		inputs <- Connection{up}
		for {
			o, err := receive(c)
			if err != nil {
				break
			}
			inputs <- o
		}
		inputs <- Connection{}
		c.Close()
		if linux.Now()-began > redialMost {
			pause = redialFirst
		} else {
			// The desk hung up after a short time, so the shim pauses before it connects again.
			pauseFor(nil, &pause)
		}
	}
}

func receive(c *linux.Conn) (gate.Order, error) {
	b, file, err := c.Receive()
	if file != nil {
		file.Close()
	}
	if err != nil {
		return gate.Order{}, err
	}
	return gate.DecodeOrder(b)
}

// dial tries to connect to the desk until a connection is up.
func dial(socket string, pause *time.Duration) *linux.Conn {
	watch := watchDir(filepath.Dir(socket)) // the watch begins before the first try, so no socket is missed
	if watch != nil {
		defer watch.Close()
	}
	for {
		u, err := net.DialUnix(linux.Network, nil, &net.UnixAddr{Name: socket, Net: linux.Network})
		if err == nil {
			c, err := linux.NewConn(u, gate.MaxMessage)
			if err == nil {
				return c
			}
			u.Close()
		}
		pauseFor(watch, pause)
	}
}

// watchDir watches for a socket that is moved into the directory. If the directory cannot be
// watched, the result is nil. (A node has a limited number of watches.)
func watchDir(dir string) *os.File {
	fd, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	if err != nil {
		return nil
	}
	if _, err := unix.InotifyAddWatch(fd, dir, unix.IN_MOVED_TO); err != nil {
		unix.Close(fd)
		return nil
	}
	return os.NewFile(uintptr(fd), "inotify")
}

// pauseFor waits until the pause is over, or until a file is moved into the watched directory.
// Then pauseFor doubles the pause, up to redialMost. The argument "watch" may be nil.
func pauseFor(watch *os.File, pause *time.Duration) {
	wait := *pause
	*pause = min(2*wait, redialMost)
	if watch != nil {
		var events [4096]byte
		if watch.SetReadDeadline(time.Now().Add(wait)) == nil {
			if _, err := watch.Read(events[:]); err == nil || os.IsTimeout(err) {
				return
			}
		}
	}
	<-time.After(wait)
}
