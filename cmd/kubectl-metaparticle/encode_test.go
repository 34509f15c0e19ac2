// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/cmd/kubectl-metaparticle/check"
)

// A CI job prints the output of a command, and a tenant has written texts in that output.
func TestStructuredOutputHoldsNoCommandToCISystems(t *testing.T) {
	const command = "##[add-mask]a ##vso[task.setvariable variable=PATH]b ###[error]c"
	harmless := func(t *testing.T, text string) {
		t.Helper()
		assert.Contains(t, text, "task.setvariable")
		assert.NotRegexp(t, `##(vso)?\[|(?m)^\s*::`, text)
	}
	for _, output := range []string{"json", "yaml"} {
		t.Run(output, func(t *testing.T) {
			l := slotLease("lock.x", "a", map[string]string{api.SuccessorAnnotation: command})
			b := newByHand(l, edited(waiting("b", "lock.x"), func(p *corev1.Pod) { p.Status.Conditions[0].Message = command }))
			b.status(t, screen{output: output}, "shop")
			harmless(t, b.out.String())

			var out bytes.Buffer
			_, err := tell(&out, []check.Finding{{Check: "pods", Result: check.Failed, Says: command + "\n::error::forged", Do: command}}, output)
			require.NoError(t, err)
			harmless(t, out.String())
			var read struct {
				Checks []check.Finding `json:"checks"`
			}
			require.NoError(t, yaml.Unmarshal(out.Bytes(), &read))
			require.Len(t, read.Checks, 1)
			if output == "json" {
				require.NoError(t, json.Unmarshal(out.Bytes(), &read))
				assert.Equal(t, command, read.Checks[0].Do, "a program reads the text unchanged")
			}
		})
	}
}
