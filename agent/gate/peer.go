// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package gate

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// peer is what the agent's end knows of one shim.
type peer struct {
	report  Report
	pid1    bool
	conn    *conn         // nil while there is none
	hungUp  chan struct{} // closed when the last conn was read to its end
	heard   time.Time
	granted string // the last hold granted to it
	drain   *pendingDrain
}

type pendingDrain struct {
	hold, reason string
	until        time.Duration
	end          bool
}

// phaseOver: the shim said that nothing lives under the hold, nor ever will.
func (p *peer) phaseOver(hold string) bool {
	return p.report.Phase == Ended || p.report.Phase == Waiting && p.report.Hold == hold
}

// empty: by its own word nothing lives, and nothing granted can have come after
// that word.
func (p *peer) empty() bool {
	return p.phaseOver(p.granted) || p.report.Phase == Waiting && p.granted == ""
}

func (p *peer) holdToDrain() string {
	if p.report.Phase == Running || p.report.Phase == Draining {
		return p.report.Hold
	}
	return p.granted
}

func (p *peer) sendDrain() error {
	d := drain{Hold: p.drain.hold, Reason: p.drain.reason, Grace: max(p.drain.until-Now(), 0), End: p.drain.end}
	if err := p.conn.send(order{Drain: &d}); err != nil {
		return fmt.Errorf("send drain: %w", err)
	}
	return nil
}

var errNotPID1 = errors.New("the shim is not PID 1 of its namespace: is it shared?")

// serve reads one connection to its end.
func (s *Server) serve(ctx context.Context, tasks *sync.WaitGroup, u *net.UnixConn) {
	defer u.Close()
	stop := context.AfterFunc(ctx, func() { u.Close() })
	defer stop()
	log := s.cfg.Log
	c, err := newConn(u)
	if err != nil {
		log.Warn("shim refused", "err", err)
		return
	}
	p, pidfd, err := s.welcome(c)
	if err != nil {
		log.Warn("shim refused", "err", err)
		return
	}
	if pidfd != nil {
		tasks.Go(func() { s.watch(ctx, p, pidfd) })
	}
	for s.wants(p, c) {
		b, file, err := c.receive()
		if file != nil {
			file.Close()
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil {
			err = s.hear(p, c, b)
		}
		if err != nil {
			log.Info("shim hung up on", "err", err)
			break
		}
	}
	s.hangUp(p, c)
}

// wants tells whether the connection has more to say: not if the shim has
// another by now, nor after its last word. Hanging up tells it that this was
// heard.
func (s *Server) wants(p *peer, c *conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return p.conn == c && p.report.Phase != Ended
}

// welcome takes the first message of a connection. The pidfd is returned for a
// shim that was not known before.
func (s *Server) welcome(c *conn) (*peer, *os.File, error) {
	b, pidfd, err := c.receive()
	if err != nil {
		return nil, nil, err
	}
	if pidfd, err = s.peerPidfd(c, pidfd); err != nil {
		return nil, nil, err
	}
	st, _, err := decodeMessage(b)
	switch {
	case err != nil:
	case st.BootID != s.bootID:
		err = fmt.Errorf("%w: boot id %q", errMessage, st.BootID)
	case s.cfg.RequirePID1 && !st.PID1:
		err = errNotPID1
	}
	if err != nil {
		pidfd.Close()
		return nil, nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.peers[st.Shim]
	if p == nil {
		p = &peer{pid1: st.PID1}
		if e := s.ledger.entries[st.Container]; e.Shim == st.Shim {
			p.granted = e.Hold
		}
		s.peers[st.Shim] = p
	} else {
		pidfd.Close() // of the process that is watched already
		pidfd = nil
		if p.report.Container != st.Container {
			return nil, nil, fmt.Errorf("%w: shim of %q says %q", errMessage, p.report.Container, st.Container)
		}
		if p.conn != nil {
			p.conn.Close()
			s.unanswered(p)
		}
	}
	p.conn, p.hungUp = c, make(chan struct{})
	s.learn(p, st)
	if p.drain != nil {
		// A failure shows as the end of the connection.
		_ = p.sendDrain()
	}
	return p, pidfd, nil
}

// hear takes a later message.
func (s *Server) hear(p *peer, c *conn, b []byte) error {
	st, answer, err := decodeMessage(b)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if answer != nil {
		s.answered(p, answer)
		return nil
	}
	if st.Shim != p.report.Shim || st.Container != p.report.Container {
		return fmt.Errorf("%w: shim of %q says %q", errMessage, p.report.Container, st.Container)
	}
	if p.conn == c {
		s.learn(p, st)
	}
	return nil
}

// learn makes the shim's state known. Called with the mutex held.
func (s *Server) learn(p *peer, st state) {
	p.heard = time.Now()
	p.report = Report{
		Shim: st.Shim, Container: st.Container, Phase: st.Phase, Hold: st.Hold,
		Slots: st.Slots, Began: st.Began, Since: st.Since, Starting: st.Starting, Trouble: st.Trouble, Completed: st.Completed, Leap: st.Leap, Connected: true,
	}
	if p.drain != nil && p.phaseOver(p.drain.hold) {
		p.drain = nil
	}
	s.settle(p)
	s.outbox.put(p.report, s.ledger)
	s.review(st.Container)
}

// settle clears the ledger's note about the shim if its hold is over. Called
// with the mutex held.
func (s *Server) settle(p *peer) {
	e := s.ledger.entries[p.report.Container]
	if e.Shim != p.report.Shim || !p.report.Dead && !p.phaseOver(e.Hold) {
		return
	}
	if err := s.ledger.clear(p.report.Container); err != nil {
		s.cfg.Log.Warn("note of a grant stays", "container", p.report.Container, "err", err)
	}
}

// review reports every shim of the container anew whose Unproven changed.
// Called with the mutex held.
func (s *Server) review(container string) {
	for _, p := range s.peers {
		if p.report.Container == container {
			s.outbox.put(p.report, s.ledger)
		}
	}
}

func (s *Server) hangUp(p *peer, c *conn) {
	c.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	if p.conn != c {
		return // it has another by now
	}
	close(p.hungUp)
	p.conn = nil
	s.unanswered(p)
	p.report.Connected, p.report.Silent = false, false
	s.outbox.put(p.report, s.ledger)
}

// watch waits for the shim's death, which needs no connection to be seen.
func (s *Server) watch(ctx context.Context, p *peer, pidfd *os.File) {
	defer pidfd.Close()
	stop := context.AfterFunc(ctx, func() { _ = pidfd.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	raw, err := pidfd.SyscallConn()
	if err == nil {
		err = raw.Read(readable)
	}
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		s.cfg.Log.Error("shim's death cannot be seen", "shim", p.report.Shim, "err", err)
		return
	}
	// Its last words may still be in the socket; nothing is added to them.
	s.mu.Lock()
	hungUp := p.hungUp
	s.mu.Unlock()
	select {
	case <-hungUp:
	case <-ctx.Done():
		return
	}
	s.bury(p)
}

// bury reports the shim dead, if its end proves that nothing of it lives.
func (s *Server) bury(p *peer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !p.pid1 && !p.empty() {
		s.cfg.Log.Warn("shim ended, which proves nothing: it was not PID 1 of its namespace",
			"shim", p.report.Shim, "container", p.report.Container)
		return
	}
	p.report.Dead = true
	s.settle(p)
	delete(s.peers, p.report.Shim)
	s.outbox.put(p.report, s.ledger)
	s.review(p.report.Container)
}

// readable tells whether a pidfd's process is dead (to the runtime's poller,
// which calls again when the file may have become readable).
func readable(fd uintptr) bool {
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	n, err := unix.Poll(fds, 0)
	return err == nil && n == 1 && fds[0].Revents&unix.POLLIN != 0
}

// peerPidfd decides which pidfd to watch: the kernel's own word on who
// connected (SO_PEERPIDFD, Linux 6.5) where there is one, else the one that the
// shim passed. The latter cannot be checked against the peer: in our PID
// namespace the shim's process has no number.
func (s *Server) peerPidfd(c *conn, passed *os.File) (*os.File, error) {
	var fd int
	err := error(unix.ENOPROTOOPT)
	if !s.cfg.oldKernel {
		errControl := c.raw.Control(func(socket uintptr) {
			fd, err = unix.GetsockoptInt(int(socket), unix.SOL_SOCKET, unix.SO_PEERPIDFD)
		})
		err = errors.Join(err, errControl)
	}
	if err == nil {
		if passed != nil {
			passed.Close()
		}
		unix.CloseOnExec(fd)
		_ = unix.SetNonblock(fd, true)
		return os.NewFile(uintptr(fd), "pidfd"), nil
	}
	if passed == nil {
		return nil, fmt.Errorf("%w: no pidfd", errMessage)
	}
	if !isPidfd(passed) {
		passed.Close()
		return nil, fmt.Errorf("%w: not a pidfd", errMessage)
	}
	return passed, nil
}

func isPidfd(f *os.File) bool {
	raw, err := f.SyscallConn()
	if err != nil {
		return false
	}
	var link string
	errControl := raw.Control(func(fd uintptr) {
		link, err = os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
	})
	// anon_inode:[pidfd], and pidfd:[inode] since Linux 6.9.
	return errors.Join(err, errControl) == nil && strings.Contains(link, "pidfd") && !strings.HasPrefix(link, "/")
}
