// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestKubectlPluginNeverFollowsRemoteRegistryToLoopback(t *testing.T) {
	g := newTransport(Options{ByPerson: true, PlainHTTP: []string{"plain.corp:5000"}})
	for _, c := range []struct {
		what, host, registry string
		want                 reach
	}{
		{"the registry itself", "registry.corp", "registry.corp", private},
		{"its token service", "auth.corp", "registry.corp", private},
		{"a redirect to this computer", "localhost:22", "registry.corp", private},
		{"a registry on this computer", "localhost:5000", "localhost:5000", anywhere},
		{"its token service, on another port", "localhost:5001", "localhost:5000", anywhere},
		{"a registry on loopback", "127.0.0.1:5000", "127.0.0.1:5000", anywhere},
		{"a registry on loopback of IPv6", "[::1]:5000", "[::1]:5000", anywhere},
		{"a registry at a metadata service", "169.254.169.254", "169.254.169.254", private},
		{"a name that DNS may lead to loopback", "localhost.evil", "localhost.evil", private},
		{"a registry that a flag names", "plain.corp:5000", "plain.corp:5000", anywhere},
		{"a redirect of that registry", "localhost:22", "plain.corp:5000", private},
	} {
		assert.Equal(t, c.want, g.reach(c.host, c.registry), c.what)
	}
	assert.Equal(t, private, newTransport(Options{}).reach("localhost:5000", "localhost:5000"), "the webhook reaches no loopback")
}
