// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestImageCommandForExactArchitectureIsPreferred(t *testing.T) {
	all := Platforms{"amd64": {Command: []string{"a"}}, "arm": {Command: []string{"b"}, StopSignal: "SIGQUIT"}}
	again, err := parsePlatforms(all.String())
	require.NoError(t, err)
	require.Equal(t, all, again)
	for arch, want := range map[string]string{"amd64": "a", "arm": "b", "arm64": "b", "s390x": ""} {
		c, ok := again.For(arch)
		assert.Equal(t, want != "", ok, arch)
		if ok {
			assert.Equal(t, []string{want}, c.Command, arch)
		}
	}
	both := Platforms{"amd64": {Command: []string{"a"}}, "386": {Command: []string{"b"}}}
	c, _ := both.For("amd64")
	assert.Equal(t, []string{"a"}, c.Command, "its own before another's")
	_, err = parsePlatforms("{")
	assert.Error(t, err)
}

func FuzzImageCommandsByPlatformSurviveARoundTrip(f *testing.F) {
	f.Add(`{"amd64":{"command":["a","$(x)"],"stopSignal":"3"}}`)
	f.Fuzz(func(t *testing.T, s string) {
		p, err := parsePlatforms(s)
		if err != nil {
			return
		}
		again, err := parsePlatforms(p.String())
		require.NoError(t, err)
		require.Equal(t, p.String(), again.String())
	})
}
