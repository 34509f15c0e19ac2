// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"errors"
	"io"
	"net"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// move copies data from the connection "from" to the connection "to", until "from" ends. The kernel
// moves the data through a pipe, so the data bypasses this process. An idle connection has no
// pipe: once data has arrived, move takes a pipe from the pool, and returns it afterwards. The
// function io.Copy would keep a pipe for each direction as long as the connection lasts. Each
// idle connection would then cost four more descriptors, and 20 KB of kernel memory.
func move(to, from *net.TCPConn) error {
	in, err := from.SyscallConn()
	if err != nil {
		return err
	}
	out, err := to.SyscallConn()
	if err != nil {
		return err
	}
	m := &mover{}
	fill, drain := m.fill, m.drain
	for {
		if err := in.Read(fill); err != nil {
			return err
		}
		switch {
		case m.err != nil && unsupported(m.err):
			return copyThrough(to, from)
		case m.err != nil:
			return m.err
		case m.filled == 0:
			return nil
		}
		if err := errors.Join(out.Write(drain), m.err); err != nil {
			// The data in the pipe must not reach another connection.
			m.pipe.close()
			return err
		}
	}
}

// unsupported reports whether splice failed before it took any data. A sandbox may not permit
// splice, and a process may have no descriptor left for a pipe.
func unsupported(err error) bool {
	switch {
	case errors.Is(err, syscall.EINVAL), errors.Is(err, syscall.ENOSYS), errors.Is(err, syscall.EPERM),
		errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE):
		return true
	default:
		return false
	}
}

// copyThrough copies without splice, through the memory of this process.
func copyThrough(to io.Writer, from io.Reader) error {
	_, err := io.Copy(struct{ io.Writer }{to}, struct{ io.Reader }{from})
	return err
}

// mover moves data from one connection to another. The Go runtime calls fill and drain with the
// descriptor of a connection. When one of these two methods returns false, the runtime waits until
// the descriptor is ready.
type mover struct {
	pipe *pipe
	// filled is the number of bytes in the pipe.
	filled int
	err    error
}

// fill moves the arrived data into a pipe. If no data has arrived, fill gives the pipe back to
// the pool.
func (m *mover) fill(from uintptr) bool {
	if m.pipe == nil {
		if m.pipe, m.err = pipes.take(); m.err != nil {
			return true
		}
	}
	m.filled, m.err = splice(m.pipe.write, int(from), pipeSize)
	if m.filled > 0 {
		return true
	}
	pipes.give(m.pipe)
	m.pipe = nil
	return !errors.Is(m.err, syscall.EAGAIN)
}

// drain moves the data in the pipe to the other connection.
func (m *mover) drain(to uintptr) bool {
	for m.filled > 0 {
		var n int
		if n, m.err = splice(int(to), m.pipe.read, m.filled); m.err != nil {
			return !errors.Is(m.err, syscall.EAGAIN)
		}
		m.filled -= n
	}
	return true
}

// splice moves up to size bytes, and never waits.
func splice(to, from, size int) (int, error) {
	for {
		n, err := unix.Splice(from, nil, to, nil, size, unix.SPLICE_F_NONBLOCK)
		if err == nil || !errors.Is(err, syscall.EINTR) {
			return int(max(n, 0)), err
		}
	}
}

const (
	// pipeSize is four times the kernel's default. A pipe has a place for each packet, and
	// a pipe of this size takes 64 packets. The kernel lets a user have 256 such pipes.
	pipeSize = 256 << 10
	// maxIdlePipes bounds the empty pipes that the pool keeps. More pipes are in use at once
	// only while receivers are slow.
	maxIdlePipes = 16
)

// pipe is a pipe of the kernel, by its descriptors.
type pipe struct{ read, write int }

func (p *pipe) close() {
	_ = unix.Close(p.read)
	_ = unix.Close(p.write)
}

// pipePool keeps a few empty pipes.
type pipePool struct {
	// open makes a pipe. Tests replace open.
	open func() (*pipe, error)
	mu   sync.Mutex
	idle []*pipe
}

var pipes = pipePool{open: openPipe}

// take returns an empty pipe.
func (all *pipePool) take() (*pipe, error) {
	all.mu.Lock()
	if last := len(all.idle) - 1; last >= 0 {
		p := all.idle[last]
		all.idle = all.idle[:last]
		all.mu.Unlock()
		return p, nil
	}
	all.mu.Unlock()
	return all.open()
}

func openPipe() (*pipe, error) {
	var ends [2]int
	if err := unix.Pipe2(ends[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return nil, err
	}
	// If the kernel refuses this size, the pipe stays smaller. Splice then only needs more calls.
	_, _ = unix.FcntlInt(uintptr(ends[0]), unix.F_SETPIPE_SZ, pipeSize)
	return &pipe{read: ends[0], write: ends[1]}, nil
}

// give puts an empty pipe into the pool; if the pool is full, give closes the pipe.
func (all *pipePool) give(p *pipe) {
	all.mu.Lock()
	keep := len(all.idle) < maxIdlePipes
	if keep {
		all.idle = append(all.idle, p)
	}
	all.mu.Unlock()
	if !keep {
		p.close()
	}
}
