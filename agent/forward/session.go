// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package forward

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync"
	"time"
)

// session is a Forwarder from Open to Close.
type session struct {
	*Forwarder
	ctx       context.Context
	cancel    context.CancelFunc
	listeners []*net.TCPListener
	// places are what a connection needs: one of heldPlaces until it has a
	// target, one of openPlaces until it ends.
	heldPlaces, openPlaces chan struct{}
	running                sync.WaitGroup
}

func newSession(f *Forwarder) (*session, error) {
	s := &session{
		Forwarder:  f,
		heldPlaces: make(chan struct{}, f.config.MaxHeld),
		openPlaces: make(chan struct{}, f.config.MaxOpen),
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	config := net.ListenConfig{KeepAliveConfig: keepAlive}
	for _, port := range f.config.Ports {
		// No host: both address families.
		listener, err := config.Listen(s.ctx, "tcp", net.JoinHostPort(f.listenHost, strconv.Itoa(port)))
		if err != nil {
			s.close()
			return nil, fmt.Errorf("listen on port %d: %w", port, err)
		}
		s.listeners = append(s.listeners, listener.(*net.TCPListener))
	}
	return s, nil
}

func (s *session) ports() []int {
	var ports []int
	for _, listener := range s.listeners {
		ports = append(ports, listener.Addr().(*net.TCPAddr).Port)
	}
	return ports
}

func (s *session) start() {
	for i, port := range s.ports() {
		s.running.Go(func() { s.accept(s.listeners[i], port) })
	}
}

// close returns when nothing of the session is left.
func (s *session) close() {
	s.cancel()
	for _, listener := range s.listeners {
		listener.Close()
	}
	s.running.Wait()
}

// acceptPause is how long accepting rests after an error that is not the end
// of the listener: no descriptors are left, and a second frees some.
const acceptPause = time.Second

// accept takes connections as long as there is a place for one more. What is
// not accepted waits in the kernel's queue, where it costs us nothing.
func (s *session) accept(listener *net.TCPListener, port int) {
	for s.take(s.openPlaces) && s.take(s.heldPlaces) {
		conn, err := listener.AcceptTCP()
		if err == nil {
			s.running.Go(func() { s.serve(conn, port) })
			continue
		}
		<-s.heldPlaces
		<-s.openPlaces
		if errors.Is(err, net.ErrClosed) || !s.pause(acceptPause, nil) {
			return
		}
	}
}

// take waits for a place; it reports false when the session ends first.
func (s *session) take(places chan<- struct{}) bool {
	select {
	case places <- struct{}{}:
		return true
	case <-s.ctx.Done():
		return false
	}
}

// pause waits for d or until wake is closed; it reports false when the session
// ends first.
func (s *session) pause(d time.Duration, wake <-chan struct{}) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-wake:
		return true
	case <-s.ctx.Done():
		return false
	}
}

// serve holds a connection until it has a target, and then is its relay.
func (s *session) serve(client *net.TCPConn, port int) {
	defer func() { <-s.openPlaces }()
	s.held.Add(1)
	backend, route := s.connect(port)
	s.held.Add(-1)
	<-s.heldPlaces
	if backend == nil {
		s.abandoned.Add(1)
		reset(client)
		return
	}
	s.forwarded.Add(1)
	s.open.Add(1)
	defer s.open.Add(-1)
	ctx, cancel := context.WithCancel(s.ctx)
	defer cancel()
	defer context.AfterFunc(route.ctx, cancel)()
	relay(ctx, client, backend)
}

// A target that refuses is asked again after firstRetry, then twice as long
// each time up to maxRetry. A new holder's application needs from some
// milliseconds to many seconds until it listens; either way the wait is at
// most twice what it had to be, and 256 held connections ask no more than 256
// times a second.
const (
	firstRetry = 10 * time.Millisecond
	maxRetry   = time.Second
)

// connect returns a connection to the target, once there is one that accepts
// it, and its route. It returns nil when the connection was held for long
// enough or the session ended.
func (s *session) connect(port int) (*net.TCPConn, *route) {
	end := time.Now().Add(s.config.Hold)
	retry := firstRetry
	for {
		wait := time.Until(end)
		if wait <= 0 {
			return nil, nil
		}
		route, changed := s.target()
		if route != nil {
			if conn := s.reach(route, port, end); conn != nil {
				return conn, route
			}
			wait = min(wait, retry)
			retry = min(2*retry, maxRetry)
		}
		if !s.pause(wait, changed) {
			return nil, nil
		}
	}
}

// reach dials the target of the route, for as long as both the route and the
// session live.
func (s *session) reach(r *route, port int, end time.Time) *net.TCPConn {
	ctx, cancel := context.WithDeadline(s.ctx, end)
	defer cancel()
	defer context.AfterFunc(r.ctx, cancel)()
	conn, err := dial(ctx, r.addr, port)
	if err != nil {
		return nil
	}
	return conn
}

// relay copies in both directions until both have ended, or one broke, or ctx
// ended. Both connections are closed when it returns.
func relay(ctx context.Context, a, b *net.TCPConn) {
	abort := func() { reset(a); reset(b) }
	aborted := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(aborted)
		abort()
	})
	back := make(chan struct{})
	go func() {
		defer close(back)
		carry(a, b, abort)
	}()
	carry(b, a, abort)
	<-back
	if !stop() {
		<-aborted
	}
	a.Close()
	b.Close()
}

// carry copies one direction and passes its end on, as an end or as a break.
// Between two TCP connections io.Copy is splice: no buffer of ours.
func carry(to, from *net.TCPConn, abort func()) {
	if _, err := io.Copy(to, from); err != nil {
		abort()
		return
	}
	// Of a peer that has gone meanwhile, the other direction learns.
	_ = to.CloseWrite()
}

// reset ends a connection at once and visibly: the peer reads an error, not an
// end, and the port is left without a TIME_WAIT.
func reset(conn *net.TCPConn) {
	_ = conn.SetLinger(0)
	conn.Close()
}
