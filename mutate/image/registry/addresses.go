// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"fmt"
	"net/netip"
	"syscall"

	"github.com/metaparticle-io/metaparticle/api/addresses"
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

var (
	// special lists further networks that IANA does not count as public. [addresses.IsNear] refuses
	// its networks before, so the list does not repeat these networks.
	special = addresses.Prefixes(
		"10.0.0.0/8", "100.64.0.0/10", "172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24",
		"192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "240.0.0.0/4",
		"2001::/23", "2001:db8::/32", "3fff::/20",
	)
	// The network "local" has the private addresses of IPv6.
	local = netip.MustParsePrefix("fc00::/7")
)

// allows reports whether a request with this reach may go to an address. Whatever the reach, a
// request may go to the given networks.
func (r reach) allows(address netip.Addr, networks []netip.Prefix) bool {
	if r == anywhere || addresses.Within(networks, address.WithZone("").Unmap()) {
		return true
	}
	address = addresses.Plain(address)
	if addresses.IsNear(address) {
		return false
	}
	return r == private || !local.Contains(address) && !addresses.Within(special, address)
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
