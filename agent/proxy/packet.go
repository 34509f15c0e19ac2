// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// packet is one datagram.
type packet struct {
	buffer [64 << 10]byte
	n      int
	from   netip.AddrPort
	// at is the address of this pod that the sender has addressed; the zero value if the kernel does not
	// tell it.
	at netip.Addr
}

func (p *packet) data() []byte { return p.buffer[:p.n] }

// packets has the packets that no datagram uses. A goroutine that waits for a datagram has no packet,
// so thousands of idle flows share a few of them.
var packets = sync.Pool{New: func() any { return new(packet) }}

// listenPackets listens for datagrams. The kernel tells the destination of each of them: on a node's
// network a pod has several addresses, and most clients ignore an answer from another address than
// the one that they have asked.
func listenPackets(ctx context.Context, address string) (*net.UDPConn, error) {
	config := net.ListenConfig{Control: func(network, _ string, c syscall.RawConn) error {
		var failed error
		err := c.Control(func(fd uintptr) {
			if strings.HasSuffix(network, "4") {
				failed = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_PKTINFO, 1)
			} else {
				failed = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1)
			}
		})
		return errors.Join(err, failed)
	}}
	conn, err := config.ListenPacket(ctx, "udp", address)
	if err != nil {
		return nil, err
	}
	return conn.(*net.UDPConn), nil
}

// read waits for a datagram. The caller returns the packet to the pool.
func read(raw syscall.RawConn) (*packet, error) {
	var p *packet
	var failed error
	err := raw.Read(func(fd uintptr) bool {
		p, failed = readNow(int(fd))
		return !errors.Is(failed, unix.EAGAIN)
	})
	if err == nil {
		err = failed
	}
	return p, err
}

// readNow reads a datagram that has arrived already.
func readNow(fd int) (*packet, error) {
	p := packets.Get().(*packet)
	var control [64]byte
	for {
		n, controls, _, from, err := unix.Recvmsg(fd, p.buffer[:], control[:], unix.MSG_DONTWAIT)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			packets.Put(p)
			return nil, err
		}
		p.n, p.from, p.at = n, addressOf(from), destination(control[:controls])
		return p, nil
	}
}

func addressOf(from unix.Sockaddr) netip.AddrPort {
	switch a := from.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port)) //nolint:gosec // the kernel's port fits
	case *unix.SockaddrInet6:
		addr := netip.AddrFrom16(a.Addr).Unmap()
		if a.ZoneId != 0 {
			addr = addr.WithZone(strconv.Itoa(int(a.ZoneId)))
		}
		return netip.AddrPortFrom(addr, uint16(a.Port)) //nolint:gosec // the kernel's port fits
	}
	return netip.AddrPort{}
}

// destination returns the address to which a datagram was sent, from the kernel's control message. An
// IPv4 datagram at a socket of IPv6 has a mapped address, which the kernel also takes back as source.
func destination(control []byte) netip.Addr {
	messages, _ := unix.ParseSocketControlMessage(control)
	for _, m := range messages {
		switch {
		case m.Header.Level == unix.IPPROTO_IP && m.Header.Type == unix.IP_PKTINFO && len(m.Data) >= unix.SizeofInet4Pktinfo:
			return netip.AddrFrom4([4]byte(m.Data[4:])) // the field Spec_dst
		case m.Header.Level == unix.IPPROTO_IPV6 && m.Header.Type == unix.IPV6_PKTINFO && len(m.Data) >= unix.SizeofInet6Pktinfo:
			return netip.AddrFrom16([16]byte(m.Data)) // the field Addr
		}
	}
	return netip.Addr{}
}

// sourceOf returns the control message by which an answer leaves from the address; nil for an address
// that is not known, or that no sender can have. Then the kernel chooses.
func sourceOf(at netip.Addr) []byte {
	switch {
	case !at.IsValid() || at.Unmap().IsMulticast() || at.Unmap().IsLinkLocalUnicast():
		return nil
	case at.Is4():
		return unix.PktInfo4(&unix.Inet4Pktinfo{Spec_dst: at.As4()})
	}
	return unix.PktInfo6(&unix.Inet6Pktinfo{Addr: at.As16()})
}
