// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package addresses

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestAddressesOfMetadataServicesAreNear(t *testing.T) {
	for what, address := range map[string]string{
		"the link": "169.254.169.254", "the link by IPv6": "fe80::1%eth0", "the machine": "127.0.0.1", "the machine by IPv6": "::1",
		"this network": "0.1.2.3", "no address": "0.0.0.0", "no address by IPv6": "::", "multicast": "224.0.0.1", "broadcast": "255.255.255.255",
		"AWS by IPv6": "fd00:ec2::254", "Google by IPv6": "fd20:ce::254", "Azure": "168.63.129.16", "Alibaba": "100.100.100.200", "Oracle": "192.0.0.192",
		"mapped": "::ffff:169.254.169.254", "compatible": "::169.254.169.254", "NAT64": "64:ff9b::a9fe:a9fe", "local NAT64": "64:ff9b:1::a9fe:a9fe",
		"6to4": "2002:a9fe:a9fe::1", "site-local": "fec0::1", "multicast by IPv6": "ff02::1",
	} {
		assert.True(t, IsNear(netip.MustParseAddr(address)), "%s: %s", what, address)
	}
	for what, address := range map[string]string{
		"private": "10.1.2.3", "shared": "100.64.0.1", "beside Alibaba's": "100.100.100.201", "class E": "240.0.0.1", "public": "203.0.113.7",
		"unique local": "fd12:3456::1", "public by IPv6": "2001:db8::7", "NAT64": "64:ff9b::10.1.2.3", "mapped": "::ffff:10.1.2.3",
	} {
		assert.False(t, IsNear(netip.MustParseAddr(address)), "%s: %s", what, address)
	}
}

func TestPlainReturnsTheEmbeddedAddress(t *testing.T) {
	for address, plain := range map[string]string{
		"10.1.2.3": "10.1.2.3", "::ffff:10.1.2.3": "10.1.2.3", "64:ff9b::10.1.2.3": "10.1.2.3", "fd12::1": "fd12::1", "fe80::1%eth0": "fe80::1",
	} {
		assert.Equal(t, netip.MustParseAddr(plain), Plain(netip.MustParseAddr(address)), address)
	}
}
