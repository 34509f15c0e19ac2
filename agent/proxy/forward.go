// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/metaparticle-io/metaparticle/api/addresses"
)

// errNoTarget means that no holder is known to which a connection could go.
var errNoTarget = errors.New("no target")

const (
	// defaultWait is the default of [Config.Wait], and equals the default lease duration. A standby
	// takes over from a vanished holder within about that time.
	defaultWait = 30 * time.Second
	// defaultMaxWaiting bounds the connections that wait during a handover.
	// defaultMaxWaiting is twice the usual backlog of an application (128).
	defaultMaxWaiting = 256
	// defaultMaxOpen bounds the memory of the agent's container. A connection costs 7.5 KB in this
	// process (BenchmarkMemoryOfAForwardedConnection), and 7.5 KB in the kernel for two sockets. So 2048
	// connections take half of the container's limit of 64 MiB. The kernel shrinks the buffers of
	// slow connections as the limit comes near.
	defaultMaxOpen = 2048
)

// Config configures a Forwarder. The ports have no default.
type Config struct {
	// Ports are the TCP ports on which the forwarder listens. The forwarder passes a connection on to
	// the same port of the target. If a port is zero, the kernel chooses a port at each Open.
	Ports []int
	// Spare are further TCP ports. The forwarder leaves out those on which it cannot listen, and never
	// checks whether the target answers on them.
	Spare []int
	// Datagrams are the UDP ports on which the forwarder listens.
	Datagrams []int
	// Self has addresses that lead to this pod, in addition to those of its interfaces. None of these
	// addresses can be the target, because the pod could connect to itself.
	Self []string
	// Wait bounds how long a connection waits for a target that accepts it.
	Wait time.Duration
	// MaxWaiting bounds the number of waiting connections. MaxOpen bounds the number of all
	// connections, with and without a target.
	MaxWaiting, MaxOpen int
	// MaxFlows bounds the number of UDP clients that have a flow. A flow ends after the time FlowIdle
	// without a datagram.
	MaxFlows int
	FlowIdle time.Duration
}

// Forwarder forwards TCP connections and UDP datagrams to a changing target. Its methods may be
// called concurrently.
type Forwarder struct {
	config Config
	// Tests replace listenHost and isSelf, because their target runs on the same machine.
	listenHost string
	isSelf     func(netip.Addr) bool

	// Only tests read these numbers of connections.
	waits, open, forwarded, abandoned atomic.Int64

	unanswered chan string
	// numbers is the number of the last connection that has asked for a target.
	numbers atomic.Uint64

	mu      sync.Mutex
	session *session // nil while closed
	route   *route   // the route of the last target; nil before the first
	lacking bool     // reports that new connections have no target, and must wait
	// changed is closed at the next change of route or lacking.
	changed chan struct{}
	// waiting has, for each port, the connections that wait for the next change of route or lacking.
	waiting map[int]*queue
}

// New returns a Forwarder without a target. The Forwarder listens only after [Forwarder.Open].
func New(config Config) *Forwarder {
	config.Wait = cmp.Or(config.Wait, defaultWait)
	config.MaxWaiting = cmp.Or(config.MaxWaiting, defaultMaxWaiting)
	config.MaxOpen = cmp.Or(config.MaxOpen, defaultMaxOpen)
	config.MaxFlows = cmp.Or(config.MaxFlows, defaultMaxFlows)
	config.FlowIdle = cmp.Or(config.FlowIdle, defaultFlowIdle)
	// The accept loop of each port counts as a connection while it waits for a client. So
	// neither bound may be below the number of ports.
	config.MaxWaiting = max(config.MaxWaiting, len(config.Ports)+len(config.Spare))
	config.MaxOpen = max(config.MaxOpen, len(config.Ports)+len(config.Spare))
	f := &Forwarder{
		config: config, lacking: true, changed: make(chan struct{}), waiting: map[int]*queue{}, unanswered: make(chan string, 1),
	}
	f.isSelf = f.ownAddress
	return f
}

// Open listens on every port; if one of them fails, Open listens on none. Open does nothing if
// the forwarder is open already.
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

// Close ends every connection, and stops listening. When Close returns, the ports are free. If
// the forwarder is closed already, Close does nothing. Open opens a closed forwarder again.
func (f *Forwarder) Close() {
	f.mu.Lock()
	s := f.session
	f.session = nil
	f.mu.Unlock()
	if s != nil {
		s.close()
	}
}

// Linger accepts connections until no new connection has come for the delay, and then frees the
// ports. Connections that are open or waiting at that time continue. The resulting channel is closed
// once the ports are free and every connection has ended. Close ends a linger at once. After a call
// of Linger, Open does nothing until Close is called. If the forwarder is closed already, the channel
// is closed at once.
func (f *Forwarder) Linger(delay time.Duration) (left <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.session == nil {
		nothing := make(chan struct{})
		close(nothing)
		return nothing
	}
	return f.session.linger(delay)
}

// SetTarget makes new connections go to the same port of ip. If ip is not the address of another
// pod, new connections wait. Established connections then continue, because a
// draining holder still finishes its work. Established connections end once another target
// follows.
func (f *Forwarder) SetTarget(ip string) {
	addr, ok := f.otherPod(ip)
	nowhere := !ok
	f.mu.Lock()
	defer f.mu.Unlock()
	same := f.route != nil && f.route.addr == addr
	if f.lacking == nowhere && (nowhere || same) {
		return
	}
	f.lacking = nowhere
	if !nowhere && !same {
		f.leave(f.route)
		f.route = newRoute(addr)
	}
	close(f.changed)
	f.changed = make(chan struct{})
	for _, q := range f.waiting {
		q.wake()
	}
}

// otherPod parses the address of another pod, and returns false for any other text. The text comes
// from the Lease, and every pod that may hold the slot can write the Lease. So can a person with
// only the right to patch Leases. otherPod refuses the addresses of this pod, of its link and of the
// metadata services of clouds. Otherwise a malicious writer could make the standbys forward their
// clients to such a service. Only isSelf judges loopback addresses, because tests replace isSelf.
func (f *Forwarder) otherPod(ip string) (addr netip.Addr, ok bool) {
	addr, err := netip.ParseAddr(ip)
	addr = addr.Unmap()
	if err != nil || addr.Zone() != "" || addresses.IsNear(addr) && !addr.IsLoopback() {
		return addr, false
	}
	return addr, !f.isSelf(addr)
}

// leave ends a route. Another goroutine then closes the connections of the route, because the
// caller holds the mutex, and thousands of connections take a while to close.
func (f *Forwarder) leave(r *route) {
	if r == nil {
		return
	}
	r.cancel()
	if f.session != nil {
		go f.session.relays.cut(r)
		go f.session.flows.cut(r)
	}
}

// target returns the route for new connections; nil while new connections must wait.
func (f *Forwarder) target() *route {
	r, _ := f.targetOr()
	return r
}

// targetOr returns the same as target, and a channel that is closed when the result changes.
func (f *Forwarder) targetOr() (*route, <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.lacking {
		return nil, f.changed
	}
	return f.route, f.changed
}

// queue returns the connections to the port that wait for the next change of the route for new
// connections.
func (f *Forwarder) queue(port int) *queue {
	f.mu.Lock()
	defer f.mu.Unlock()
	q := f.waiting[port]
	if q == nil {
		q = &queue{}
		f.waiting[port] = q
	}
	return q
}

// Reachable checks that the pod at ip answers on every TCP port, except the spare ones. A refused
// connection is an answer, because an application need not serve a declared port. If a port does not answer within
// dialTimeout, or before the end of ctx, Reachable returns an error that names the first such port.
// If ip is not the address of another pod, the error is [errNoTarget].
func (f *Forwarder) Reachable(ctx context.Context, ip string) error {
	addr, ok := f.otherPod(ip)
	if !ok {
		return errNoTarget
	}
	for _, port := range f.Ports()[:len(f.config.Ports)] {
		conn, err := dial(ctx, addr, port)
		switch {
		case err == nil:
			conn.Close()
		case !errors.Is(err, syscall.ECONNREFUSED):
			return fmt.Errorf("reach port %d: %w", port, err)
		}
	}
	return nil
}

// Idle returns the time since the last new connection or datagram, or since Open if none has come. While
// the forwarder is closed, no connection can come, so the result is as long as possible.
func (f *Forwarder) Idle() time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.session == nil {
		return math.MaxInt64
	}
	return f.session.idle()
}

// Unanswered delivers the address of a target that did not answer a connection. A refused
// connection counts as an answer. The channel keeps only one address, because each further
// connection fails for the same reason.
func (f *Forwarder) Unanswered() <-chan string { return f.unanswered }

// Ports returns the open TCP ports. While the forwarder is closed, Ports returns the configured
// ports.
func (f *Forwarder) Ports() []int {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.session == nil {
		return slices.Clone(f.config.Ports)
	}
	return f.session.ports()
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

// dialTimeout allows for one lost SYN, which the kernel repeats after a second.
const dialTimeout = 2 * time.Second

// keepAlive ends an idle connection within 30 s if its other end vanishes. While sent data is not
// acknowledged, the kernel sends the data again for up to a quarter of an hour instead. If the holder
// vanishes, another pod becomes the holder after the default lease duration, also 30 s. Then that pod
// becomes the target, and this change ends the connection anyway.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 5 * time.Second, Count: 3}

func dial(ctx context.Context, addr netip.Addr, port int) (*net.TCPConn, error) {
	dialer := net.Dialer{Timeout: dialTimeout, KeepAliveConfig: keepAlive}
	conn, err := dialer.DialContext(ctx, "tcp", net.JoinHostPort(addr.String(), strconv.Itoa(port)))
	if err != nil {
		return nil, err
	}
	return conn.(*net.TCPConn), nil
}
