// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"io"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/tools/limit"
)

const root = "../.."

// If a limit is exceeded, change the sentence and not the limit. The command
// "make words PKG=…" prints the sentences.
func TestLanguageRuleViolationsStayWithinEachFoldersLimits(t *testing.T) {
	findings, err := measure(root)
	require.NoError(t, err)
	require.NotEmpty(t, findings)
	limits, err := limit.Read("limits.txt")
	require.NoError(t, err)
	assert.Empty(t, limits.Exceeded(count(findings), limit.Sum), "make words PKG=folder prints the sentences")
}

func TestWordsToolRefusesAFolderThatIsMissing(t *testing.T) {
	err := run(io.Discard, root, false, []string{"agent", "agnet"})
	require.ErrorContains(t, err, "agnet is no folder of this repository: write a path from its root")
}

func lines(text string) []line {
	var all []line
	for i, l := range strings.Split(text, "\n") {
		all = append(all, line{i + 1, l})
	}
	return all
}

func TestSentenceEndsAtPeriodOrEndOfBlock(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		want []sentence
	}{
		"two":               {"A pod runs. An agent\nwaits.", []sentence{{1, "A pod runs."}, {1, "An agent waits."}}},
		"a name of code":    {"A pod runs. startsBy returns.", []sentence{{1, "A pod runs."}, {1, "startsBy returns."}}},
		"an abbreviation":   {"Words, e.g. Lease, are few.", []sentence{{1, "Words, e.g. Lease, are few."}}},
		"paragraphs":        {"First\n\nsecond", []sentence{{1, "First"}, {3, "second"}}},
		"items":             {"- first\n  goes on\n- second\n2. third", []sentence{{1, "first goes on"}, {3, "second"}, {4, "third"}}},
		"a definition":      {"Term\n: Text\n  goes on", []sentence{{1, "Term"}, {2, "Text goes on"}}},
		"cells":             {"| a | b c |\n|---|---|", []sentence{{1, "a"}, {1, "b c"}}},
		"code":              {"# Head\n\tcode. Code.\n```\nCode.\n```\nProse", []sentence{{6, "Prose"}}},
		"a link":            {"See [the page](a b.md).", []sentence{{1, "See the page."}}},
		"in parentheses":    {"(A pod runs.) An agent waits.", []sentence{{1, "(A pod runs.)"}, {1, "An agent waits."}}},
		"a version":         {"Needs Go 1.26 or later.", []sentence{{1, "Needs Go 1.26 or later."}}},
		"code as one word":  {"Run `make test all`.", []sentence{{1, "Run `make_test_all`."}}},
		"nothing but rules": {"---", []sentence{{1, "---"}}},
	} {
		t.Run(name, func(t *testing.T) {
			assert.Equal(t, c.want, sentences(lines(c.text)))
		})
	}
}

func TestLanguageRulesFindLongSentencesAndVagueSubjects(t *testing.T) {
	many := strings.Repeat("word ", mostWords)
	for text, want := range map[string][]string{
		"The shim kills the child.":             nil,
		many:                                    nil,
		many + "more":                           {long},
		many + "– …":                            nil,
		"It waits.":                             {subject},
		"What is not held is not released.":     {subject},
		"What is a holder?":                     nil,
		"Who asks first wins.":                  {subject},
		"One of them wins.":                     {subject},
		"One, the first, wins.":                 {subject},
		"One pod holds the slot.":               nil,
		"Its Lease expires.":                    nil,
		"\"It\" " + strings.Repeat("word ", 25): {long, subject},
	} {
		t.Run(text, func(t *testing.T) {
			assert.Equal(t, want, judge(sentence{text: text}))
		})
	}
}

func TestLanguageRulesCoverCommentsAndTestNames(t *testing.T) {
	found, err := inspectSource([]byte(`// SPDX-What: nothing
package p

// startsBy is the instant.
func startsBy() {} // It runs.

// endsBy returns the instant.
//
//	What is code is left out.
func endsBy() {
	//nolint:all // what programs read
	/* Who
	knows. */
}

// deadline is a value.
var deadline int

func TestOneTwoThreeFourFiveSixSevenEight() {}
func TestOneTwoThreeFourFiveSixSevenEightNine() {}
`))
	require.NoError(t, err)
	assert.Equal(t, []finding{
		{line: 5, rule: subject, text: "It runs."},
		{line: 12, rule: subject, text: "Who knows."},
		{line: 5, rule: noun, text: "startsBy"},
		{line: 20, rule: name, text: "TestOneTwoThreeFourFiveSixSevenEightNine"},
	}, found)
}

func TestLanguageRulesCoverOnlyTablesOfGeneratedMarkdown(t *testing.T) {
	found, err := inspectDocument([]byte("<!-- Generated from x. -->\n\nIt is.\n\n| a | b |\n|---|---|\n| The pod runs. | It waits. |\n\nIt ends."))
	require.NoError(t, err)
	assert.Equal(t, []finding{{line: 7, rule: subject, text: "It waits."}}, found)
}

func TestGoIdentifiersAreSplitIntoWords(t *testing.T) {
	for name, want := range map[string][]string{
		"Lease":          {"Lease"},
		"APIServer":      {"API", "Server"},
		"leaseDuration":  {"lease", "Duration"},
		"HTTP2Probe":     {"HTTP2", "Probe"},
		"Pod_WithoutGap": {"Pod", "Without", "Gap"},
		"PodIDs":         {"Pod", "I", "Ds"},
	} {
		t.Run(name, func(t *testing.T) { assert.Equal(t, want, nameWords(name)) })
	}
}

func TestEqualSeedsDrawEqualLanguageSamples(t *testing.T) {
	drawn := func(seed string) string {
		var b strings.Builder
		require.NoError(t, draw(&b, root, seed))
		return b.String()
	}
	first := drawn("1")
	assert.Equal(t, first, drawn("1"))
	assert.NotEqual(t, first, drawn("2"))
	for kind, number := range sample {
		heads := regexp.MustCompile(`(?m)^` + kind + ` \d+  \S+:\d+$`)
		assert.Len(t, heads.FindAllString(first, -1), number, kind)
	}
	assert.NotRegexp(t, `(?m)^SPDX-`, first, "a licence is no comment to read; the lines beside a text begin with a bar")
	assert.ErrorContains(t, draw(&strings.Builder{}, root, "x"), "seed of the draw")
}

func TestSampledSentenceShowsThePrecedingText(t *testing.T) {
	all, err := texts("x.md", []byte("A pod starts first. A second pod waits\nfor its slot.\n\nThe third pod ends.\n"))
	require.NoError(t, err)
	var places [][]string
	for _, s := range all["sentence"] {
		places = append(places, s.above)
	}
	assert.Equal(t, [][]string{
		{},
		{"A pod starts first. A second pod waits"},
		{"A pod starts first. A second pod waits", "for its slot.", ""},
	}, places)
}

func TestSampledCommentShowsTheCodeAboveAndBelow(t *testing.T) {
	all, err := texts("x.go", []byte("package x\n\n// One is a number.\nconst One = 1\n\nvar two = 2 // two is even\n"))
	require.NoError(t, err)
	require.Len(t, all["comment"], 2)
	assert.Equal(t, []string{"package x", ""}, all["comment"][0].above)
	assert.Equal(t, []string{"const One = 1", "", "var two = 2 // two is even", ""}, all["comment"][0].below)
	assert.Equal(t, []string{"package x", "", "// One is a number.", "const One = 1", "", "var two = 2 // two is even"}, all["comment"][1].above)
	assert.Empty(t, all["comment"][1].below)
}
