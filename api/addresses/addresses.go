// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package addresses knows the IP addresses to which a stranger must not send a program of this
// project.
//
// The author of a pod names a registry, and the webhook connects to that registry. The writer of a
// Lease names the address of the holder's pod, and agents connect to that address. The package
// knows the addresses of a machine, of its link, and of the metadata services of large clouds. The
// package knows neither the networks of a cluster nor other metadata services.
package addresses

import (
	"net/netip"
	"slices"
)

var (
	// near are the networks of this machine and its link. These networks lead to the processes
	// beside the program, to its node, and to the metadata services of clouds. Azure, Alibaba
	// and Oracle have metadata services outside of 169.254.0.0/16, and so have AWS and Google
	// by IPv6.
	near = Prefixes(
		"0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "255.255.255.255/32",
		"168.63.129.16/32", "100.100.100.200/32", "192.0.0.192/32", "fd00:ec2::/32", "fd20:ce::/32",
		"2002::/16", // such an address contains an IPv4 address, which may be in one of these networks
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

// Plain returns the address without a zone. If the address stands for an IPv4 address, Plain
// returns the IPv4 address.
func Plain(address netip.Addr) netip.Addr {
	address = address.WithZone("").Unmap()
	if !translated.Contains(address) {
		return address
	}
	bytes := address.As16()
	return netip.AddrFrom4([4]byte(bytes[12:]))
}

// IsNear reports whether the address leads to the machine itself, to its link, or to the metadata
// service of a cloud.
func IsNear(address netip.Addr) bool {
	address = Plain(address)
	return Within(near, address) || address.Is6() && !global.Contains(address) && !local.Contains(address)
}

// Within reports whether one of the networks contains the address.
func Within(networks []netip.Prefix, address netip.Addr) bool {
	return slices.ContainsFunc(networks, func(n netip.Prefix) bool { return n.Contains(address) })
}

// Prefixes parses networks, and panics if one of them is malformed.
func Prefixes(all ...string) []netip.Prefix {
	parsed := make([]netip.Prefix, len(all))
	for i, s := range all {
		parsed[i] = netip.MustParsePrefix(s)
	}
	return parsed
}
