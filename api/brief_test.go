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

// A line feed could forge a line, an escape could clear the terminal, and U+202E reverses letters.
func TestTextInOneLineControlsNoTerminal(t *testing.T) {
	for text, want := range map[string]string{
		"":                              "",
		"é 世界 🙂 e\u0301\u00a0":          "é 世界 🙂 e\u0301\u00a0",
		"a\x1b[2J\r\n\tb\x00\x7f\u009b": "a?[2J???b???",
		"\u202e\u2066\u200b\ufeff":      "????",
		"\u2028\u2029\u00ad":            "???",
	} {
		assert.Equal(t, want, OneLine(text), "%q", text)
		assert.Equal(t, want, Shortened(text, 100), "%q", text)
	}
}

func TestShortenedTextsKeepWholeCharacters(t *testing.T) {
	for _, c := range []struct {
		text string
		most int
		want string
	}{
		{"abc", 3, "abc"}, {"abcdefg", 6, "abc…"}, {"ééé", 6, "ééé"}, {"éééé", 6, "é…"}, {"\xff\xff\xff", 6, "\ufffd…"}, {"", 6, ""},
	} {
		assert.Equal(t, c.want, Shortened(c.text, c.most), c.text)
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
