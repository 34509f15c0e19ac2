// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/metaparticle-io/metaparticle/api/addresses"
)

func TestImageLookUpsConnectOnlyToAllowedAddresses(t *testing.T) {
	for address, far := range map[string]reach{
		"8.8.8.8":            public,
		"2606:4700::1111":    public,
		"::ffff:8.8.8.8":     public,
		"64:ff9b::8.8.8.8":   public,
		"10.1.2.3":           private,
		"172.20.0.1":         private,
		"192.168.1.1":        private,
		"100.64.0.1":         private,
		"198.18.0.1":         private,
		"::ffff:10.1.2.3":    private,
		"64:ff9b::10.1.2.3":  private,
		"fd12:3456::1":       private,
		"2001::1":            private,
		"2002:a01:203::1":    anywhere,
		"4000::1":            anywhere,
		"127.0.0.1":          anywhere,
		"127.9.9.9":          anywhere,
		"0.0.0.0":            anywhere,
		"169.254.169.254":    anywhere,
		"224.0.0.1":          anywhere,
		"255.255.255.255":    anywhere,
		"::":                 anywhere,
		"::1":                anywhere,
		"::ffff:127.0.0.1":   anywhere,
		"64:ff9b::127.0.0.1": anywhere,
		"64:ff9b::a9fe:a9fe": anywhere,
		"fe80::1%eth0":       anywhere,
		"ff02::1":            anywhere,
		"fd00:ec2::254":      anywhere,
		"fd20:ce::254":       anywhere,
		"168.63.129.16":      anywhere,
		"100.100.100.200":    anywhere,
		"192.0.0.192":        anywhere,
		// These are other spellings of 169.254.169.254 and 127.0.0.1.
		"64:ff9b:1::a9fe:a9fe": anywhere,
		"::169.254.169.254":    anywhere,
		"::ffff:0:7f00:1":      anywhere,
		"2002:7f00:1::":        anywhere,
	} {
		for _, its := range []reach{public, private, anywhere} {
			assert.Equal(t, its >= far, its.allows(netip.MustParseAddr(address), nil), "%s by %d", address, its)
		}
	}
}

func TestImageLookUpsMayConnectToConfiguredNetworks(t *testing.T) {
	networks := addresses.Prefixes("10.1.0.0/16", "127.0.0.1/32", "fd12::/16")
	for address, allowed := range map[string]bool{
		"10.1.2.3": true, "10.2.2.3": false, "127.0.0.1": true, "::ffff:127.0.0.1": true, "127.0.0.2": false, "fd12::1": true, "fd13::1": false,
	} {
		assert.Equal(t, allowed, public.allows(netip.MustParseAddr(address), networks), address)
	}
}

func TestHostOfARegistryRequestDecidesAllowedAddresses(t *testing.T) {
	mirror, err := ParseMirror("docker.io=mirror.corp:5000/hub")
	assert.NoError(t, err)
	g := newTransport(Options{PlainHTTP: []string{"plain.corp:5000"}, Mirrors: []Mirror{mirror}})
	for _, c := range []struct {
		what, host, registry string
		want                 reach
	}{
		{"the registry itself", "registry.corp:5000", "registry.corp:5000", private},
		{"its token service, on another port", "registry.corp:5001", "registry.corp:5000", private},
		{"in capitals", "REGISTRY.corp", "registry.corp", private},
		{"by an address of IPv6", "[fd12::1]:5001", "[fd12::1]", private},
		{"another host", "auth.corp", "registry.corp:5000", public},
		{"a host that only begins so", "registry.corp.evil", "registry.corp", public},
		{"a registry that a flag names", "plain.corp:5000", "plain.corp:5000", anywhere},
		{"another port of that registry", "plain.corp:22", "plain.corp:5000", private},
		{"a redirect of that registry", "store.corp", "plain.corp:5000", private},
		{"a mirror", "mirror.corp:5000", "mirror.corp:5000", anywhere},
		{"a redirect of a mirror", "store.corp", "mirror.corp:5000", private},
	} {
		assert.Equal(t, c.want, g.reach(c.host, c.registry), c.what)
	}
}

// A request must not use an open connection to an address outside of the request's reach.
func TestRedirectsNeverReuseConnectionsToPrivateAddresses(t *testing.T) {
	g := newTransport(Options{})
	assert.NotSame(t, g.by[public], g.by[private])
	assert.NotSame(t, g.by[private], g.by[anywhere])
}
