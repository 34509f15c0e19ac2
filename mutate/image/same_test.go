// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package image_test

import (
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/metaparticle-io/metaparticle/mutate/image"
)

func TestSameImageUnderAnotherName(t *testing.T) {
	const (
		tagged, untagged = "registry.example/metaparticle/agent:v1", "registry.example:5000/agent"
		one, two         = "@sha256:aaaa", "@sha256:bbbb"
	)
	for name, test := range map[string]struct {
		there, ours string
		same        bool
	}{
		"the same text":                    {tagged, tagged, true},
		"a mirror":                         {"mirror.example:5000/proxy/registry.example/metaparticle/agent:v1", tagged, true},
		"a mirror, with the digest":        {"mirror.example/agent:v1" + one, tagged, true},
		"the digest of the tag":            {"registry.example/metaparticle/agent" + one, tagged, true},
		"latest written out":               {"mirror.example/agent:latest", untagged, true},
		"the same digest":                  {"mirror.example/other" + one, tagged + one, true},
		"the same digest of another tag":   {"registry.example/metaparticle/agent:v2" + one, tagged + one, true},
		"another tag":                      {"mirror.example/agent:v0", tagged, false},
		"no tag":                           {"mirror.example/agent", tagged, false},
		"another name":                     {"mirror.example/shim:v1", tagged, false},
		"a name that only ends alike":      {"mirror.example/my-agent:v1", tagged, false},
		"a digest alone, in a mirror":      {"mirror.example/agent" + one, tagged, false},
		"another digest":                   {tagged + two, tagged + one, false},
		"the digest left out":              {tagged, tagged + one, false},
		"the port of a registry is no tag": {"mirror.example:v1/agent", tagged, false},
		"nothing":                          {"", tagged, false},
	} {
		assert.Equal(t, test.same, image.Same(test.there, test.ours), name)
	}
}
