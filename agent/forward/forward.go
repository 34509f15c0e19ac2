// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package forward

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// ErrNoTarget says that there is no holder to reach.
var ErrNoTarget = errors.New("no target")

const (
	// defaultHold is the default lease duration: a holder that vanished
	// without a word has a successor by then, or there is none to wait for.
	defaultHold = 30 * time.Second
	// defaultMaxHeld bounds what a handover can pile up: a quarter of
	// defaultMaxOpen, and twice what most applications accept in one go (a
	// backlog of 128).
	defaultMaxHeld = 256
	// defaultMaxOpen bounds the agent's memory: a connection costs it 18 KB
	// (measured), two goroutines and two sockets, so all of them less than a
	// third of its container's limit of 64 MiB.
	defaultMaxOpen = 1024
)

// Config of a Forwarder. Only Ports has no default.
type Config struct {
	// Ports are listened on, and are those of the target. A port of zero is
	// chosen by the kernel at each Open.
	Ports []int
	// Self are addresses of this pod beside those of its interfaces. A target
	// that is one of them is no target: it would be ourselves.
	Self []string
	// Hold bounds how long a connection waits for a target that accepts it.
	Hold time.Duration
	// MaxHeld bounds the connections that wait, MaxOpen all of them.
	MaxHeld, MaxOpen int
}

// Stats are what a Forwarder has done since it was made.
type Stats struct {
	// Held and Open are the connections that wait for a target now, and those
	// that have one.
	Held, Open int64
	// Forwarded counts the connections that found a target, Abandoned those
	// that did not.
	Forwarded, Abandoned int64
}

// Forwarder forwards TCP connections to a target that changes. Its methods may
// be called at the same time.
type Forwarder struct {
	config Config
	// listenHost and isSelf are other ones in tests, where the target is on
	// the same machine.
	listenHost string
	isSelf     func(netip.Addr) bool

	held, open, forwarded, abandoned atomic.Int64

	mu      sync.Mutex
	session *session      // nil while closed
	route   *route        // of the last target; nil before the first
	holding bool          // there is no target for new connections
	changed chan struct{} // closed at the next change of route or holding
}

// route is one target and what is established to it.
type route struct {
	addr netip.Addr
	// ctx ends when the connections of the route have to.
	ctx    context.Context
	cancel context.CancelFunc
}

// New makes a Forwarder that is closed and has no target.
func New(config Config) *Forwarder {
	if config.Hold == 0 {
		config.Hold = defaultHold
	}
	if config.MaxHeld == 0 {
		config.MaxHeld = defaultMaxHeld
	}
	if config.MaxOpen == 0 {
		config.MaxOpen = defaultMaxOpen
	}
	// An accept loop holds one place of each while it waits.
	config.MaxHeld = max(config.MaxHeld, len(config.Ports))
	config.MaxOpen = max(config.MaxOpen, len(config.Ports))
	f := &Forwarder{config: config, holding: true, changed: make(chan struct{})}
	f.isSelf = f.ownAddress
	return f
}

// Open listens on every port or, if it cannot, on none. It does nothing while
// they are open.
func (f *Forwarder) Open() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.session != nil {
		return nil
	}
	s, err := newSession(f)
	if err != nil {
		return err
	}
	f.session = s
	s.start()
	return nil
}

// Close ends every connection and stops listening. When it returns, the ports
// are free. It may be called when the forwarder is not open, and Open may
// follow it.
func (f *Forwarder) Close() {
	f.mu.Lock()
	s := f.session
	f.session = nil
	f.mu.Unlock()
	if s != nil {
		s.close()
	}
}

// SetTarget says where connections go from now on: to the same port of ip. An
// empty ip, one that is none and one of our own mean nowhere: new connections
// are held, while established ones may go on (a holder that drains still
// finishes what it began). Established ones are ended when another target
// follows.
func (f *Forwarder) SetTarget(ip string) {
	addr, err := netip.ParseAddr(ip)
	addr = addr.Unmap()
	nowhere := err != nil || f.isSelf(addr)
	f.mu.Lock()
	defer f.mu.Unlock()
	same := f.route != nil && f.route.addr == addr
	if f.holding == nowhere && (nowhere || same) {
		return
	}
	f.holding = nowhere
	if !nowhere && !same {
		if f.route != nil {
			f.route.cancel()
		}
		f.route = newRoute(addr)
	}
	close(f.changed)
	f.changed = make(chan struct{})
}

func newRoute(addr netip.Addr) *route {
	r := &route{addr: addr}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	return r
}

// target returns the route for new connections, nil if there is none, and what
// is closed when that changes.
func (f *Forwarder) target() (*route, <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.holding {
		return nil, f.changed
	}
	return f.route, f.changed
}

// Reachable reports whether the pod at ip answers on every port. One that refuses
// the connection has answered: a port may be declared and not be served. No
// answer until ctx ends, or no route, is an error that names the port.
func (f *Forwarder) Reachable(ctx context.Context, ip string) error {
	addr, err := netip.ParseAddr(ip)
	if err != nil {
		return ErrNoTarget
	}
	for _, port := range f.Ports() {
		conn, err := dial(ctx, addr.Unmap(), port)
		switch {
		case err == nil:
			conn.Close()
		case !errors.Is(err, syscall.ECONNREFUSED):
			return fmt.Errorf("reach port %d: %w", port, err)
		}
	}
	return nil
}

// Ports returns the ports that are listened on; while closed, those configured.
func (f *Forwarder) Ports() []int {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.session == nil {
		return slices.Clone(f.config.Ports)
	}
	return f.session.ports()
}

// Stats returns what was done so far.
func (f *Forwarder) Stats() Stats {
	return Stats{
		Held: f.held.Load(), Open: f.open.Load(),
		Forwarded: f.forwarded.Load(), Abandoned: f.abandoned.Load(),
	}
}

// ownAddress reports whether a connection to addr would end in this pod.
func (f *Forwarder) ownAddress(addr netip.Addr) bool {
	if addr.IsLoopback() || addr.IsUnspecified() {
		return true
	}
	for _, self := range f.config.Self {
		if own, err := netip.ParseAddr(self); err == nil && own.Unmap() == addr {
			return true
		}
	}
	interfaces, _ := net.InterfaceAddrs()
	for _, network := range interfaces {
		if own, err := netip.ParsePrefix(network.String()); err == nil && own.Addr().Unmap() == addr {
			return true
		}
	}
	return false
}

// dialTimeout leaves time for one lost SYN, which is sent again after a second.
const dialTimeout = 2 * time.Second

// keepAlive ends a connection whose other end vanished without a word within
// 30 s, the default lease: by then another target has ended it anyway.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 5 * time.Second, Count: 3}

func dial(ctx context.Context, addr netip.Addr, port int) (*net.TCPConn, error) {
	dialer := net.Dialer{Timeout: dialTimeout, KeepAliveConfig: keepAlive}
	conn, err := dialer.DialContext(ctx, "tcp", net.JoinHostPort(addr.String(), strconv.Itoa(port)))
	if err != nil {
		return nil, err
	}
	return conn.(*net.TCPConn), nil
}
