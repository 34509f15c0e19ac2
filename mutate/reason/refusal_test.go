// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package reason

import (
	"errors"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"

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
