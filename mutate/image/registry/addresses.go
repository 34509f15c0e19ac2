// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"fmt"
	"net/netip"
	"slices"
	"syscall"
)

// reach is the set of addresses that a request may go to.
type reach int

const (
	// public permits only public addresses. Redirects and token services usually have this reach,
	// because a registry chooses their addresses.
	public reach = iota
	// private also permits addresses of private networks. The registry that the pod's author names
	// has this reach, because many registries are on private networks. If the webhook's flags name
	// the registry, its redirects and token services have this reach, too.
	private
	// anywhere permits requests to every address. Only registries that the webhook's flags
	// name have this reach.
	anywhere
)

// prefixes parses networks, and panics if one of them is malformed.
func prefixes(all ...string) []netip.Prefix {
	parsed := make([]netip.Prefix, len(all))
	for i, s := range all {
		parsed[i] = netip.MustParsePrefix(s)
	}
	return parsed
}

var (
	// own are the networks of this machine and its link. These networks lead to the processes
	// beside the webhook, to its node, and to the metadata services of clouds. Azure, Alibaba
	// and Oracle have metadata services outside of 169.254.0.0/16, and so have AWS and Google
	// by IPv6.
	own = prefixes(
		"0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "255.255.255.255/32",
		"168.63.129.16/32", "100.100.100.200/32", "192.0.0.192/32", "fd00:ec2::/32", "fd20:ce::/32",
		"2002::/16", // such an address contains an IPv4 address, which may be in one of these networks
	)
	// special lists further networks that IANA does not count as public. The networks in the
	// variable "own" are not repeated.
	special = prefixes(
		"10.0.0.0/8", "100.64.0.0/10", "172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24",
		"192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "240.0.0.0/4",
		"2001::/23", "2001:db8::/32", "3fff::/20",
	)
	// The network "global" has the public addresses of IPv6. The network "local" has the private
	// addresses of IPv6. All other IPv6 addresses belong to this machine or the link, are for
	// multicast, contain an IPv4 address, or are reserved.
	global = netip.MustParsePrefix("2000::/3")
	local  = netip.MustParsePrefix("fc00::/7")
	// translated has the IPv6 addresses that stand for IPv4 addresses in a cluster without
	// IPv4 (NAT64).
	translated = netip.MustParsePrefix("64:ff9b::/96")
)

// allows reports whether a request with this reach may go to an address. Whatever the reach, a
// request may go to the given networks.
func (r reach) allows(address netip.Addr, networks []netip.Prefix) bool {
	address = address.WithZone("").Unmap()
	if r == anywhere || within(networks, address) {
		return true
	}
	if translated.Contains(address) {
		bytes := address.As16()
		address = netip.AddrFrom4([4]byte(bytes[12:]))
	}
	if within(own, address) || address.Is6() && !global.Contains(address) && !local.Contains(address) {
		return false
	}
	return r == private || !local.Contains(address) && !within(special, address)
}

func within(networks []netip.Prefix, address netip.Addr) bool {
	return slices.ContainsFunc(networks, func(n netip.Prefix) bool { return n.Contains(address) })
}

// control returns a function that refuses a connection to a forbidden address before the first
// packet. The function judges the address that the dialler uses, because two answers of DNS may
// differ.
func (r reach) control(networks []netip.Prefix) func(network, address string, _ syscall.RawConn) error {
	return func(_, address string, _ syscall.RawConn) error {
		to, err := netip.ParseAddrPort(address)
		if err != nil {
			return fmt.Errorf("%w: %w", errAddress, err)
		}
		if !r.allows(to.Addr(), networks) {
			return fmt.Errorf("%w: %s", errAddress, to)
		}
		return nil
	}
}
