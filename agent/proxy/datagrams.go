// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"container/list"
	"errors"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"
)

const (
	// defaultMaxFlows bounds the memory of flows. A flow costs 6.3 KB in this process
	// (BenchmarkMemoryOfAFlow), and half as much in the kernel, so 1024 flows take 10 MiB of the
	// container's limit of 64 MiB. Most clients of a DNS server use a new port for each query. So at
	// 1,000 queries a second, a flow has a second for its answer before newer flows displace it.
	defaultMaxFlows = 1024
	// defaultFlowIdle is the time for which the kernel's conntrack remembers a UDP flow with answers. The
	// nodes forget such a flow as soon as the standby does.
	defaultFlowIdle = 2 * time.Minute
)

// flowKey tells flows apart: the datagrams of one client to one address and port of this pod.
type flowKey struct {
	port   int
	client netip.AddrPort
	at     netip.Addr
}

// flow forwards the datagrams of one client through a socket of its own. So the holder's application
// sees each client at a port of its own, and its answers find their client.
type flow struct {
	key     flowKey
	route   *route
	backend *net.UDPConn
	used    time.Time
	place   *list.Element
}

// flows are the flows of a session.
type flows struct {
	mu  sync.Mutex
	all map[flowKey]*flow
	// order has the flow that was used last in front.
	order list.List
	// fresh has the flows that were added since the instant second.
	fresh  int
	second time.Time
}

// touch marks the flow as used, and returns false if the flow has ended.
func (all *flows) touch(f *flow) bool {
	all.mu.Lock()
	defer all.mu.Unlock()
	if all.all[f.key] != f {
		return false
	}
	f.used = time.Now()
	all.order.MoveToFront(f.place)
	return true
}

// freshPerSecond bounds the new flows of a second: twice the queries of new clients that a standby is
// to forward.
const freshPerSecond = 2048

// add adds a flow. If there are as many flows as permitted, the one that was idle for longest ends. In one
// second, add takes at most freshPerSecond: a datagram that a forged address leads in circles makes a flow
// at each hop.
func (all *flows) add(f *flow, most int) bool {
	all.mu.Lock()
	defer all.mu.Unlock()
	if now := time.Now(); now.Sub(all.second) >= time.Second {
		all.second, all.fresh = now, 0
	}
	if all.fresh++; all.fresh > freshPerSecond {
		return false
	}
	for len(all.all) >= most {
		all.end(all.order.Back().Value.(*flow))
	}
	if all.all == nil {
		all.all = map[flowKey]*flow{}
	}
	f.used = time.Now()
	f.place = all.order.PushFront(f)
	all.all[f.key] = f
	return true
}

// end ends a flow. The caller holds the mutex.
func (all *flows) end(f *flow) {
	if all.all[f.key] == f {
		delete(all.all, f.key)
		all.order.Remove(f.place)
	}
	f.backend.Close()
}

func (all *flows) remove(f *flow) {
	all.mu.Lock()
	defer all.mu.Unlock()
	all.end(f)
}

// cut ends the flows of the given route. If the route is nil, cut ends all flows.
func (all *flows) cut(only *route) {
	all.mu.Lock()
	defer all.mu.Unlock()
	for _, f := range all.all {
		if only == nil || f.route == only {
			all.end(f)
		}
	}
}

// expire ends the flows that have not been used since the instant.
func (all *flows) expire(since time.Time) {
	all.mu.Lock()
	defer all.mu.Unlock()
	for back := all.order.Back(); back != nil && back.Value.(*flow).used.Before(since); back = all.order.Back() {
		all.end(back.Value.(*flow))
	}
}

func (all *flows) get(key flowKey) *flow {
	all.mu.Lock()
	defer all.mu.Unlock()
	return all.all[key]
}

// expireFlows ends idle flows until the session stops accepting.
func (s *session) expireFlows() {
	ticks := time.NewTicker(s.config.FlowIdle / 4)
	defer ticks.Stop()
	for {
		select {
		case <-ticks.C:
			s.flows.expire(time.Now().Add(-s.config.FlowIdle))
		case <-s.accepting.Done():
			return
		}
	}
}

// receive forwards the datagrams that arrive at a port. While new connections have no target, receive
// keeps one datagram, and the others wait in the socket's buffer, which the kernel bounds.
func (s *session) receive(from *net.UDPConn, port int) {
	raw, err := from.SyscallConn()
	if err != nil {
		return
	}
	for {
		p, err := read(raw)
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil:
			if !s.pause(acceptPause, nil, nil) {
				return
			}
			continue
		}
		// A kube-proxy ends the flows to a pod that has left, so any datagram shows that a node still routes here.
		s.arrived.Store(int64(time.Since(s.began)))
		route := s.awaitTarget()
		if route == nil {
			packets.Put(p)
			return
		}
		s.pass(from, port, p, route)
		packets.Put(p)
	}
}

// awaitTarget returns the route for new connections, or nil if the session accepts none any more.
func (s *session) awaitTarget() *route {
	for {
		r, changed := s.targetOr()
		if r != nil {
			return r
		}
		select {
		case <-changed:
		case <-s.accepting.Done():
			return nil
		}
	}
}

// pass sends a datagram to the target of the route. Like a network, pass drops a datagram that cannot
// be sent.
func (s *session) pass(from *net.UDPConn, port int, p *packet, r *route) {
	key := flowKey{port: port, client: p.from, at: p.at}
	f := s.flows.get(key)
	if f != nil && (f.route != r || !s.flows.touch(f)) {
		s.flows.remove(f)
		f = nil
	}
	if f == nil {
		backend, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(r.addr, uint16(port)))) //nolint:gosec // a port fits
		if err != nil {
			return
		}
		f = &flow{key: key, route: r, backend: backend}
		if !s.flows.add(f, s.config.MaxFlows) {
			backend.Close()
			return
		}
		// If the session or the route ended before the call of add, nothing has cut this flow.
		if s.accepting.Err() != nil || r.ctx.Err() != nil {
			s.flows.remove(f)
			return
		}
		s.running.Go(func() { s.answer(from, f) })
	}
	// An earlier datagram to a closed port makes the kernel refuse one write, which sends nothing.
	if _, err := f.backend.Write(p.data()); errors.Is(err, syscall.ECONNREFUSED) {
		_, _ = f.backend.Write(p.data())
	}
}

// answer sends the answers of the holder's application to the client of the flow, from the address
// that the client has addressed.
func (s *session) answer(to *net.UDPConn, f *flow) {
	defer s.flows.remove(f)
	raw, err := f.backend.SyscallConn()
	if err != nil {
		return
	}
	source := sourceOf(f.key.at)
	for {
		p, err := read(raw)
		switch {
		case isICMP(err):
			continue // the holder's port is closed for the moment
		case err != nil:
			return
		}
		_, _, err = to.WriteMsgUDPAddrPort(p.data(), source, f.key.client)
		packets.Put(p)
		if errors.Is(err, net.ErrClosed) || !s.flows.touch(f) {
			return
		}
	}
}

// isICMP reports whether the network has answered an earlier datagram by an error.
func isICMP(err error) bool {
	for _, is := range []error{syscall.ECONNREFUSED, syscall.EHOSTUNREACH, syscall.ENETUNREACH, syscall.EMSGSIZE, syscall.EPROTO} {
		if errors.Is(err, is) {
			return true
		}
	}
	return false
}
