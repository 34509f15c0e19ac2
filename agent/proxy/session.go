// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// session is the state of a Forwarder between Open and Close.
type session struct {
	*Forwarder
	ctx       context.Context
	cancel    context.CancelFunc
	listeners []*net.TCPListener
	sockets   []*net.UDPConn
	// accepting is a context that ends when the session stops accepting connections.
	accepting     context.Context
	stopAccepting context.CancelFunc
	// left is closed when the linger is over; nil until the session lingers.
	left chan struct{}
	// began is the start of the session. The field "arrived" has the nanoseconds from then to the last
	// new connection or datagram.
	began   time.Time
	arrived atomic.Int64
	// Each connection occupies one of waitPlaces until it has a target, and one
	// of openPlaces until it ends.
	waitPlaces, openPlaces chan struct{}
	relays                 relays
	flows                  flows
	running                sync.WaitGroup
}

func newSession(f *Forwarder) (*session, error) {
	s := &session{
		Forwarder:  f,
		began:      time.Now(),
		waitPlaces: make(chan struct{}, f.config.MaxWaiting),
		openPlaces: make(chan struct{}, f.config.MaxOpen),
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.accepting, s.stopAccepting = context.WithCancel(s.ctx)
	if err := s.listen(); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

func (s *session) listen() error {
	config := net.ListenConfig{KeepAliveConfig: keepAlive}
	// Outside of tests listenHost is empty, so each port accepts IPv4 and IPv6.
	address := func(port int) string { return net.JoinHostPort(s.listenHost, strconv.Itoa(port)) }
	for i, port := range slices.Concat(s.config.Ports, s.config.Spare) {
		switch listener, err := config.Listen(s.ctx, "tcp", address(port)); {
		case err == nil:
			s.listeners = append(s.listeners, listener.(*net.TCPListener))
		case i < len(s.config.Ports):
			return fmt.Errorf("listen on port %d: %w", port, err)
		}
	}
	for _, port := range s.config.Datagrams {
		socket, err := listenPackets(s.ctx, address(port))
		if err != nil {
			return fmt.Errorf("listen on port %d/udp: %w", port, err)
		}
		s.sockets = append(s.sockets, socket)
	}
	return nil
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
	for _, socket := range s.sockets {
		s.running.Go(func() { s.receive(socket, socket.LocalAddr().(*net.UDPAddr).Port) })
	}
	if len(s.sockets) > 0 {
		s.running.Go(s.expireFlows)
	}
}

// close frees the ports and ends all connections, and waits until the session's
// goroutines have ended.
func (s *session) close() {
	s.cancel()
	s.stopListening()
	s.relays.cut(nil)
	s.running.Wait()
	if s.left != nil {
		<-s.left
	}
}

// stopListening closes the ports. The flows end, too, because their answers leave through these ports.
func (s *session) stopListening() {
	s.stopAccepting()
	for _, listener := range s.listeners {
		listener.Close()
	}
	for _, socket := range s.sockets {
		socket.Close()
	}
	s.flows.cut(nil)
}

// linger accepts connections until no new connection has come for the delay. Then linger closes the
// listeners. The resulting channel is closed once every accepted connection has ended. When a
// listener closes, the kernel resets the connections in the listener's queue. The accept loops run
// until then. So the queue is empty, unless the session already has as many connections as [Config]
// permits. On a busy machine the accept loops can also be late, so linger gives a queued connection the
// delay a second time.
func (s *session) linger(delay time.Duration) <-chan struct{} {
	if s.left != nil {
		return s.left
	}
	s.left = make(chan struct{})
	go func() {
		defer close(s.left)
		late := false
		for left := delay; left > 0 && s.pause(left, nil, nil); {
			left = delay - s.idle()
			if left <= 0 && !late && s.queued() {
				late, left = true, delay
			}
		}
		s.stopListening()
		s.running.Wait()
	}()
	return s.left
}

// idle returns the time since the last new connection, or since the start of the session.
func (s *session) idle() time.Duration {
	return time.Since(s.began) - time.Duration(s.arrived.Load())
}

// queued reports whether a connection is in the queue of a listener, or a datagram in that of a socket.
func (s *session) queued() bool {
	found := false
	var all []syscall.Conn
	for _, listener := range s.listeners {
		all = append(all, listener)
	}
	for _, socket := range s.sockets {
		all = append(all, socket)
	}
	for _, one := range all {
		raw, err := one.SyscallConn()
		if err != nil {
			continue
		}
		_ = raw.Control(func(fd uintptr) {
			n, _ := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0) //nolint:gosec // a descriptor fits
			found = found || n > 0
		})
	}
	return found
}

// acceptPause is the delay after an error of accept on an open listener. The usual cause is a lack
// of descriptors, of which some become free within a second.
const acceptPause = time.Second

// accept takes connections while there is a free place. Other connections wait in
// the kernel's queue, where they cost the agent nothing.
func (s *session) accept(listener *net.TCPListener, port int) {
	for s.take(s.openPlaces) && s.take(s.waitPlaces) {
		conn, err := listener.AcceptTCP()
		if err == nil {
			s.arrived.Store(int64(time.Since(s.began)))
			s.running.Go(func() { s.serve(conn, port) })
			continue
		}
		<-s.waitPlaces
		<-s.openPlaces
		if errors.Is(err, net.ErrClosed) || !s.pause(acceptPause, nil, nil) {
			return
		}
	}
}

// take waits for a place. The result is false if the session accepts no more connections.
func (s *session) take(places chan<- struct{}) bool {
	select {
	case places <- struct{}{}:
		return true
	case <-s.accepting.Done():
		return false
	}
}

// pause waits for the time d, or until one of the two channels is closed. The result is false
// if the session ends first.
func (s *session) pause(d time.Duration, wake, or <-chan struct{}) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-wake:
		return true
	case <-or:
		return true
	case <-s.ctx.Done():
		return false
	}
}

// serve lets a client's connection wait for a target, and then relays the connection. Without a
// target within [Config.Wait], the client gets a reset.
func (s *session) serve(client *net.TCPConn, port int) {
	s.waits.Add(1)
	backend, route := s.connect(port)
	s.waits.Add(-1)
	<-s.waitPlaces
	if backend == nil {
		<-s.openPlaces
		s.abandoned.Add(1)
		reset(client)
		return
	}
	s.forwarded.Add(1)
	s.open.Add(1)
	s.running.Add(1)
	r := &relay{route: route, over: s.over}
	r.client.TCPConn, r.backend.TCPConn = client, backend
	s.relays.add(r)
	// If the session or the route ended before the call of add, nothing has cut this relay.
	if s.ctx.Err() != nil || route.ctx.Err() != nil {
		r.cut()
	}
	r.start()
}

// The method "over" frees the place of a relay that has ended.
func (s *session) over(r *relay) {
	s.relays.remove(r)
	s.open.Add(-1)
	<-s.openPlaces
	s.running.Done()
}

// firstRetry and maxRetry bound [retryAfter]. Some applications listen milliseconds after their
// start, others only after many seconds.
const (
	firstRetry = 10 * time.Millisecond
	maxRetry   = 50 * time.Millisecond
)

// retryAfter returns the delay before the next dial to a port that has refused connections for the
// given time. The delay is a fiftieth of that time, within the bounds. So a connection waits little
// longer than the application needs to start. All connections together dial a port 85 times in the
// first second, and 20 times in each second from the fourth on.
func retryAfter(refused time.Duration) time.Duration {
	return min(max(refused/50, firstRetry), maxRetry)
}

// connect dials until a target accepts the connection, and returns the connection and its
// route. After [Config.Wait], or at the end of the session, the results are nil.
func (s *session) connect(port int) (*net.TCPConn, *route) {
	end := time.Now().Add(s.config.Wait)
	var refusedBy *route // the route that has refused connections since the instant "since"
	var since time.Time
	var scouts *door // the port that this connection dials for all waiting connections
	changes, number := s.queue(port), s.numbers.Add(1)
	var opened *ticket
	changed := changes.arrive(number)
	defer func() {
		scouts.leave()
		changed.leave()
		opened.leave()
	}()
	if changed != nil && !s.pause(s.config.Wait, changed.wait(), nil) {
		return nil, nil
	}
	for {
		wait := time.Until(end)
		if wait <= 0 {
			return nil, nil
		}
		next := changes.again(changed, number) // before the call of target, so that no change is missed
		route := s.target()
		var conn *net.TCPConn
		if route != nil {
			conn = s.reach(route, port, end)
		}
		if next != changed {
			changed.leave() // so that the next connection may dial
			changed = next
		}
		opened.leave()
		opened = nil
		if conn != nil {
			return conn, route
		}
		if route != nil {
			d := route.door(port)
			if scouts != d {
				scouts.leave()
				scouts, opened = d.scout(number)
			}
			if refusedBy != route {
				refusedBy, since = route, time.Now()
			}
			if scouts != nil {
				wait = min(wait, retryAfter(time.Since(since)))
			}
		}
		if !s.pause(wait, changed.wait(), opened.wait()) {
			return nil, nil
		}
	}
}

// report makes [Forwarder.Unanswered] deliver the address of the route's target. If an address
// already waits there, report does nothing.
func (s *session) report(r *route) {
	select {
	case s.unanswered <- r.addr.String():
	default:
	}
}

// reach dials the target of the route once, and returns nil if the dial fails. The dial also fails
// at the instant "end", and when the route or the session ends.
func (s *session) reach(r *route, port int, end time.Time) *net.TCPConn {
	ctx, cancel := context.WithDeadline(s.ctx, end)
	defer cancel()
	defer context.AfterFunc(r.ctx, cancel)()
	conn, err := dial(ctx, r.addr, port)
	if err != nil {
		if ctx.Err() == nil && !errors.Is(err, syscall.ECONNREFUSED) {
			s.report(r)
		}
		return nil
	}
	return conn
}
