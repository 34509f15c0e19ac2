// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package manifests_test

import (
	"flag"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/api"
)

var update = flag.Bool("update", false, "rewrite the lists of annotations in policies")

// CEL cannot read api.Annotations, so the policies repeat the keys. With -update the test rewrites these lists.
func TestPoliciesListAnnotations(t *testing.T) {
	var all, claimless []string
	for _, a := range api.Annotations {
		all = append(all, strings.TrimPrefix(a.Key, api.Prefix))
		if a.Kind == nil {
			claimless = append(claimless, a.Key)
		}
	}
	for _, list := range []struct {
		file, place string
		count       int
		keys        []string
	}{
		{"policies/ineffective.yaml", `\[ *\n( *)'singleton'[^\]]*\n( *)\]`, 1, all},
		{"policies/gate.yaml", `\[ *\n( *)'metaparticle\.io/[^\]]*\n( *)\]`, 2, append(claimless, api.SlotsAnnotation, api.WorkloadAnnotation)},
	} {
		is, err := os.ReadFile(list.file)
		require.NoError(t, err)
		place := regexp.MustCompile(list.place)
		require.Len(t, place.FindAll(is, -1), list.count, list.file)
		want := place.ReplaceAllStringFunc(string(is), func(found string) string {
			indents := place.FindStringSubmatch(found)
			return "[\n" + wrapped(indents[1], list.keys) + "\n" + indents[2] + "]"
		})
		if *update {
			require.NoError(t, os.WriteFile(list.file, []byte(want), 0o644))
			continue
		}
		assert.Equal(t, want, string(is), "run make golden")
	}
}

// wrapped returns the texts in quotes, in lines of at most 120 characters.
func wrapped(indent string, texts []string) string {
	const most = 120
	lines := []string{""}
	for i, text := range texts {
		if text = "'" + text + "'"; i+1 < len(texts) {
			text += ","
		}
		line := &lines[len(lines)-1]
		switch {
		case *line == "":
			*line = indent + text
		case len(*line)+1+len(text) > most:
			lines = append(lines, indent+text)
		default:
			*line += " " + text
		}
	}
	return strings.Join(lines, "\n")
}
