// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package reason

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/api"
)

// The text of a refusal appears in the error for a pod, in the warning for a workload, and in the
// message of an Event.
func TestRefusalTextsBeginWithTheirReason(t *testing.T) {
	seen := map[Reason]bool{}
	for _, e := range All {
		assert.False(t, seen[e.Reason], "%s is listed once", e.Reason)
		seen[e.Reason] = true
		refusals := Refusals{{Reason: e.Reason, Detail: "it"}}
		assert.Equal(t, []Reason{e.Reason}, Of(refusals))
		said := refusals.Error()
		assert.True(t, strings.HasPrefix(said, string(e.Reason)+": it"), said)
		assert.Contains(t, said, e.Do)
		assert.True(t, strings.HasSuffix(said, " ("+Link(e.Reason)+")"), said)
		assert.Equal(t, 1, strings.Count(said, ".md"), "one link: %s", said)
	}
}

func TestOnlyFirstRefusalOfAReasonHasTheLink(t *testing.T) {
	var refusals Refusals
	refusals.Add(Probes, "a")
	refusals.Add(Probes, "b")
	refusals.Add(Hooks, "c")
	for i, linked := range []bool{true, false, true} {
		assert.Equal(t, linked, strings.Contains(refusals.Lines()[i], "reasons.md#"), i)
	}
}

// The links of messages lead to headings of the page, and the anchor of a heading is its text in small
// letters.
func TestEachReasonIsAHeadingOfItsPage(t *testing.T) {
	_, path, ok := strings.Cut(page, "/blob/main/")
	require.True(t, ok)
	text, err := os.ReadFile("../../" + path)
	require.NoError(t, err)
	for _, e := range slices.Concat(All, Elsewhere) {
		assert.Equal(t, page+"#"+strings.ToLower(string(e.Reason)), Link(e.Reason))
		assert.Equal(t, 1, strings.Count(string(text), "\n### "+string(e.Reason)+"\n"), e.Reason)
	}
}

func TestRefusalReasonsOfAnErrorContainNoDuplicates(t *testing.T) {
	var refusals Refusals
	refusals.Add(Probes, "a")
	refusals.Add(Hooks, "b")
	refusals.Add(Probes, "c")
	assert.Equal(t, []Reason{Probes, Hooks}, Of(refusals))
	assert.Equal(t, []Reason{BadAnnotation}, Of(Mistaken(api.Mistakes{{}, {}})))
}

func TestRefusalShortensLongNamesMoreThanLongErrors(t *testing.T) {
	var refusals Refusals
	refusals.Add(ImageUnreadable, "container %q: %v", strings.Repeat("n", 2000), errors.New("one\ntwo"+strings.Repeat("e", 2000)))
	refusal := refusals[0].Detail
	assert.Contains(t, refusal, "one; two")
	assert.Greater(t, len(refusal), 1024)
	assert.Less(t, len(refusal), 1400)
}
