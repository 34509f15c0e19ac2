// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestHelmHooksUseOnlyCommandsOfTheWebhook compares the templates with the steps.
func TestHelmHooksUseOnlyCommandsOfTheWebhook(t *testing.T) {
	var named []string
	for _, file := range []string{"test.yaml", "uninstall.yaml"} {
		text, err := os.ReadFile("../../manifests/chart/templates/" + file)
		require.NoError(t, err)
		for _, match := range regexp.MustCompile(`"args" \(list "([^"]*)"`).FindAllSubmatch(text, -1) {
			named = append(named, string(match[1]))
		}
	}
	var known []string
	for name := range steps {
		known = append(known, name)
	}
	assert.ElementsMatch(t, known, named)
	text, err := os.ReadFile("../../manifests/webhookconfiguration.yaml")
	require.NoError(t, err)
	assert.Contains(t, string(text), "\n  name: "+configuration+"\n")
	text, err = os.ReadFile("../../manifests/webhook.yaml")
	require.NoError(t, err)
	assert.Contains(t, string(text), "\n      app.kubernetes.io/name: metaparticle-webhook\n")
}

func TestWebhookBinaryRefusesUnknownSubcommandsAndArguments(t *testing.T) {
	out := new(strings.Builder)
	assert.ErrorContains(t, start(t.Context(), []string{"try", "-unknown"}, out), "not defined: -unknown")
	assert.NoError(t, start(t.Context(), []string{"try", "-help"}, out))
	assert.ErrorContains(t, start(t.Context(), []string{"tries", "-agent-image=a", "-namespace=b"}, out), `unexpected argument "tries"`)
}
