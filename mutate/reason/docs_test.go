// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package reason

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "rewrite golden files")

// TestReasonsAreDocumented requires that docs/troubleshoot/reasons.md lists all reasons. With -update
// the test rewrites the page.
func TestReasonsAreDocumented(t *testing.T) {
	const path = "../../docs/troubleshoot/reasons.md"
	var b strings.Builder
	b.WriteString("<!-- Generated from mutate/reason/webhook.go by make golden. Do not edit. -->\n\n# Reasons\n\n" +
		"Every refusal and warning of the webhook begins with the name of its reason. The name is the same in the warning\n" +
		"when a workload is applied, in the error at its pods, in the Event, and in the metric. The page [pods](pods.md) has the\n" +
		"reasons that pods report after their admission.\n\n" +
		"| reason | meaning | remedy |\n|---|---|---|\n")
	table(&b, All)
	b.WriteString("\nThe admission policies, which apply without the webhook, too, and enroll have these reasons:\n\n" +
		"| reason | meaning | remedy |\n|---|---|---|\n")
	table(&b, Elsewhere)
	want := b.String()
	if *update {
		require.NoError(t, os.WriteFile(path, []byte(want), 0o644))
	}
	got, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, want, string(got), "run make golden")
}

// TestEveryWebhookReasonHasAGoldenFile requires, for each reason, a golden file with an
// answer for that reason.
func TestEveryWebhookReasonHasAGoldenFile(t *testing.T) {
	files, err := os.ReadDir("../testdata")
	require.NoError(t, err)
	var all strings.Builder
	for _, f := range files {
		if f.IsDir() {
			continue
		}
		text, err := os.ReadFile("../testdata/" + f.Name())
		require.NoError(t, err)
		_, said, _ := strings.Cut(string(text), "-- said.txt --")
		all.WriteString(said)
	}
	seen := map[Reason]bool{}
	for _, e := range All {
		assert.False(t, seen[e.Reason], "%s is listed twice", e.Reason)
		seen[e.Reason] = true
		assert.Contains(t, all.String(), " "+string(e.Reason)+": ")
		assert.NotEmpty(t, e.Meaning)
	}
}

func table(b *strings.Builder, reasons []Explanation) {
	for _, e := range reasons {
		does := "Follow the message"
		if e.Do != "" {
			does = strings.ToUpper(e.Do[:1]) + e.Do[1:]
		}
		meaning := e.Meaning
		if e.WarnOnly {
			meaning += " This is only a warning."
		}
		fmt.Fprintf(b, "| `%s` | %s | %s. |\n", e.Reason, meaning, does)
	}
}

// TestReasonsOfPoliciesAreDocumented requires that each message of manifests/policies begins
// with a listed reason.
func TestReasonsOfPoliciesAreDocumented(t *testing.T) {
	files, err := filepath.Glob("../../manifests/policies/*.yaml")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	listed := map[Reason]bool{}
	for _, e := range slices.Concat(All, Elsewhere) {
		listed[e.Reason] = true
	}
	found := 0
	for _, file := range files {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		for _, match := range regexp.MustCompile(`['"]([A-Z][A-Za-z]+): `).FindAllStringSubmatch(string(text), -1) {
			found++
			assert.True(t, listed[Reason(match[1])], "%s of %s", match[1], file)
		}
	}
	assert.GreaterOrEqual(t, found, len(Elsewhere)-1, "all but enroll's are in a policy")
}
