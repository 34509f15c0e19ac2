// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// mostObject is about the size of the largest request that an API server accepts.
const mostObject = 3 << 20

func TestLongTextIsCutOnlyBetweenCharacters(t *testing.T) {
	for most := 3; most < 20; most++ {
		for _, text := range []string{"", "abc", strings.Repeat("ä", 100), strings.Repeat("€", 100), strings.Repeat("🙂", 100), strings.Repeat("a", 100)} {
			cut := Brief(text, most)
			assert.LessOrEqual(t, len(cut), most)
			assert.True(t, utf8.ValidString(cut), "%q", cut)
			if len(text) <= most {
				assert.Equal(t, text, cut)
				continue
			}
			assert.True(t, strings.HasPrefix(text, strings.TrimSuffix(cut, "…")))
			assert.Greater(t, len(cut), most-utf8.UTFMax)
		}
	}
}

// The webhook gets annotations before the API server has bounded their size.
func TestHugeAnnotationsCauseShortErrorsAndSmallAllocations(t *testing.T) {
	many := func(key func(i int) string) map[string]string {
		all := map[string]string{}
		for i := range mostObject / 40 {
			all[Prefix+key(i)] = ""
		}
		return all
	}
	for name, annotations := range map[string]map[string]string{
		"a long key":          {Prefix + strings.Repeat("a", mostObject): ""},
		"many short keys":     many(func(i int) string { return fmt.Sprintf("leese-dur%d", i) }),
		"a long value":        {SingletonAnnotation: strings.Repeat("a", mostObject)},
		"a long list":         {LockAnnotation: strings.Repeat("a,", mostObject/2) + "a"},
		"a long wrong list":   {ContainersAnnotation: strings.Repeat("a,", mostObject/2) + "A"},
		"a long key, a claim": {Prefix + strings.Repeat("a", mostObject): "", SingletonAnnotation: "true"},
	} {
		t.Run(name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := Parse(annotations)
			message := fmt.Sprint(err)
			runtime.ReadMemStats(&after)
			assert.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(4*mostObject), "bytes allocated")
			assert.Less(t, len(message), 2000)
		})
	}
}

func TestErrorListsOnlyTenUnknownAnnotations(t *testing.T) {
	annotations := map[string]string{LockAnnotation: "a"}
	for i := range 10 {
		annotations[fmt.Sprintf("%sx%02d", Prefix, i)] = ""
	}
	_, err := Parse(annotations)
	var mistakes Mistakes
	require.ErrorAs(t, err, &mistakes)
	require.Len(t, mistakes, 10)
	assert.Equal(t, "metaparticle.io/x09 is not known: remove it", mistakes[9].Error())
	annotations[Prefix+"x10"] = ""
	_, err = Parse(annotations)
	require.ErrorAs(t, err, &mistakes)
	require.Len(t, mistakes, 10)
	assert.Equal(t, "metaparticle.io/x09 is not known, and 1 more are not: remove them", mistakes[9].Error())
}
