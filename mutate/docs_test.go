// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package mutate

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestReasonsAreDocumented: docs/reasons.md lists the closed set. -update
// rewrites it.
func TestReasonsAreDocumented(t *testing.T) {
	const path = "../docs/reasons.md"
	var b strings.Builder
	b.WriteString("<!-- Generated from mutate/reasons.go by make golden. Do not edit. -->\n\n# Reasons\n\n" +
		"Every \"no\" of the webhook begins with the name of its reason: in the warning when a workload is applied, in\n" +
		"the error at its pods, in the Event, and in the metric.\n\n" +
		"| reason | what it means | what to do |\n|---|---|---|\n")
	for _, e := range Reasons {
		does := strings.ToUpper(e.Do[:min(1, len(e.Do))]) + e.Do[min(1, len(e.Do)):]
		if e.Do == "" {
			does = "What the message says"
		}
		meaning := e.Meaning
		if e.WarnOnly {
			meaning += " Only a warning."
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s. |\n", e.Reason, meaning, does)
	}
	want := b.String()
	if *update {
		require.NoError(t, os.WriteFile(path, []byte(want), 0o644))
	}
	got, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, want, string(got), "run make golden")
}

// TestEveryReasonIsShown: each has a golden pair in which somebody meets it.
func TestEveryReasonIsShown(t *testing.T) {
	files, err := os.ReadDir("testdata")
	require.NoError(t, err)
	var all strings.Builder
	for _, f := range files {
		if f.IsDir() {
			continue
		}
		text, err := os.ReadFile("testdata/" + f.Name())
		require.NoError(t, err)
		_, said, _ := strings.Cut(string(text), "-- said.txt --")
		all.WriteString(said)
	}
	seen := map[Reason]bool{}
	for _, e := range Reasons {
		assert.False(t, seen[e.Reason], "%s is listed twice", e.Reason)
		seen[e.Reason] = true
		assert.Contains(t, all.String(), " "+string(e.Reason)+": ")
		assert.NotEmpty(t, e.Meaning)
	}
}
