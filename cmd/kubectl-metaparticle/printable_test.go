// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/api"
)

func TestStatusPrintsNoControlCharacters(t *testing.T) {
	evil := "\x1b[2J\x1b[Hfree\nlock.other: lock, nobody holds\x1b[8m"
	for _, key := range []string{api.DoneAnnotation, api.TokenAnnotation, api.SuccessorAnnotation} {
		l := slotLease("once.schema", "a", map[string]string{key: evil})
		l.Annotations[key] = evil
		b := newByHand(l)
		b.status(t, screen{}, "shop")
		assert.NotContains(t, b.out.String(), "\x1b", key)
		assert.False(t, strings.Contains(b.out.String(), "\nlock.other:"), key)
	}
}

func TestCommandsWriteNoControlCharacters(t *testing.T) {
	var out bytes.Buffer
	n, err := stdio{nil, &out, &out}.harmless().out.Write([]byte("a\x1b[2J\tb\r\n"))
	require.NoError(t, err)
	assert.Equal(t, 9, n)
	assert.Equal(t, "a?[2J\tb?\n", out.String())
}
