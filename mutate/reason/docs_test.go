// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package reason_test

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

	"github.com/metaparticle-io/metaparticle/diagnosis"
	. "github.com/metaparticle-io/metaparticle/mutate/reason"
)

var update = flag.Bool("update", false, "rewrite golden files")

// TestReasonsAreDocumented requires that docs/troubleshoot/reasons.md lists all reasons. With -update
// the test rewrites the page.
func TestReasonsAreDocumented(t *testing.T) {
	const path = "../../docs/troubleshoot/reasons.md"
	var b strings.Builder
	b.WriteString("<!-- Generated from mutate/reason/webhook.go and elsewhere.go, and diagnosis/pod.go, by make golden. Do not edit. -->\n\n# Reasons\n\n" +
		"Every refusal and warning begins with the name of its reason, which is a heading of this page. The name is the same\n" +
		"in the warning when a workload is applied, in the error at its pods, in the Event, and in the metric. If your pod was\n" +
		"admitted and waits, look at [pods](pods.md) instead.\n")
	groups := []struct {
		title, text string
		has         func(Explanation) bool
		in          []Explanation
	}{
		{"Refusals", "The webhook refuses the pod. When the workload is applied, it warns with the same words.", func(e Explanation) bool { return !e.WarnOnly }, All},
		{"Warnings", "The webhook admits the workload or the pod, and warns.", func(e Explanation) bool { return e.WarnOnly }, All},
		{"Policies and Events", "The API server itself refuses or warns, by an admission policy, even while the webhook is down. Or Metaparticle\nwrites an Event at a workload.", func(Explanation) bool { return true }, Elsewhere},
		{"Pods", "What `kubectl metaparticle explain`, `status -v` and the console say of a pod. `check` and an Event name a pod whose\napplication is not the cause.", func(Explanation) bool { return true }, diagnosis.Explained()},
	}
	for _, group := range groups {
		fmt.Fprintf(&b, "\n## %s\n\n%s\n", group.title, group.text)
		for _, e := range slices.SortedFunc(slices.Values(group.in), func(x, y Explanation) int { return strings.Compare(string(x.Reason), string(y.Reason)) }) {
			if group.has(e) {
				write(&b, e)
			}
		}
	}
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

func write(b *strings.Builder, e Explanation) {
	do := "follow the message"
	if e.Do != "" {
		do = e.Do
	}
	fmt.Fprintf(b, "\n### %s\n\n%s\n\n**Do:** %s.", e.Reason, e.Meaning, do)
	if e.See != "" {
		name, _, _ := strings.Cut(filepath.Base(e.See), ".md")
		fmt.Fprintf(b, " See [%s](%s).", name, e.See)
	}
	b.WriteString("\n")
}

// TestReasonsOfPoliciesAreDocumented requires that each message of manifests/policies begins with a listed
// reason, and ends with the address of its explanation.
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
		all := regexp.MustCompile(`['"]([A-Z][A-Za-z]+): `).FindAllStringSubmatchIndex(string(text), -1)
		for i, at := range all {
			found++
			name, until := Reason(text[at[2]:at[3]]), len(text)
			if i+1 < len(all) {
				until = all[i+1][0]
			}
			assert.True(t, listed[name], "%s of %s", name, file)
			said := string(text[at[0]:until])
			assert.Equal(t, 1, strings.Count(said, Link("")), "one link: %s of %s", said, file)
			assert.Regexp(t, regexp.QuoteMeta(" ("+Link(name)+")")+`['"]( :)?\n`, said, "%s ends with its link", file)
		}
	}
	assert.GreaterOrEqual(t, found, len(Elsewhere)-1, "all but enroll's are in a policy")
}
