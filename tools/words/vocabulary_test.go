// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// onlyInDocuments are listed words that occur in Markdown files, but in no name of the code.
var onlyInDocuments = []string{"takeover"}

// Each word in the name of an exported type is in docs/architecture.md or in plain.txt.
func TestExportedTypesUseTheVocabulary(t *testing.T) {
	v, err := readVocabulary(root)
	require.NoError(t, err)
	assert.Empty(t, v.unlisted(), "give each a row in docs/architecture.md, or a better name")
	assert.Subset(t, onlyInDocuments, v.unused(), "no name of the code has these words of docs/architecture.md")
}

func TestVocabularyIsReadFromTableAndTextFile(t *testing.T) {
	listed := listedWords("| a | b |\n\n## Words\n\n| word | meaning |\n|---|---|\n| stand-in, Slots; mark | x |\n\n## More\n| c | d |\n")
	assert.Equal(t, map[string]bool{"standin": true, "slot": true, "mark": true}, listed)
	assert.Equal(t, map[string]bool{"pod": true, "lease": true}, plainWords("# why: not\nKubernetes: pod lease\n"))
}

func TestPluralWordsLoseOnlyTheirPluralEnding(t *testing.T) {
	for word, want := range map[string]string{"Slots": "slot", "Processes": "process", "Status": "status", "Loss": "loss", "TLS": "tls", "Deadline": "deadline"} {
		assert.Equal(t, want, singular(word))
	}
}

func TestVocabularyCheckPrintsMissingAndNeedlessWords(t *testing.T) {
	v := vocabulary{
		listed:   map[string]bool{"slot": true, "bid": true},
		plain:    map[string]bool{"clock": true, "idle": true},
		used:     map[string]bool{"slot": true},
		exported: map[string][]string{"slot": {"agent.Slot"}, "clock": {"agent.Clock"}, "doubt": {"agent.Doubt", "gate.Doubt"}},
	}
	var out strings.Builder
	v.print(&out)
	assert.Equal(t, "Words of exported types, in neither list:\n  doubt (agent.Doubt, gate.Doubt)\n"+
		"Words in docs/architecture.md, in no name of the code:\n  bid\n"+
		"Words in tools/words/plain.txt without need:\n  idle\n", out.String())
}
