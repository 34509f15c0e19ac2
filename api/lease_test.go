// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestSingletonLeaseNameContainsClaimNameAndWorkload(t *testing.T) {
	tests := []struct {
		workload Workload
		name     string
		want     string
	}{
		{Workload{"apps", "Deployment", "biller"}, "", "singleton.deployment.biller"},
		{Workload{"apps", "Deployment", "biller"}, "writer", "singleton-writer.deployment.biller"},
		{Workload{"batch", "CronJob", "biller"}, "", "singleton.cronjob.biller"},
		{Workload{"", "Pod", "a.b"}, "", "singleton.pod.a.b"},
		{Workload{"example.com", "Rollout", "r"}, "", "singleton.rollout-example-com.r"},
	}
	for _, test := range tests {
		assert.Equal(t, test.want, SingletonLease(test.workload, test.name))
	}
	assert.Equal(t, "lock.a.b", LockLease("a.b"))
}

// TestDifferentSingletonsHaveDifferentLeases compares singletons with similar names.
func TestDifferentSingletonsHaveDifferentLeases(t *testing.T) {
	type singleton struct {
		workload Workload
		name     string
	}
	var all []singleton
	groups := []string{"", "a", "a.b", "a-b", "a--b", "b.a.b", "a.b.c", "b"}
	kinds := []string{"Kind", "Kind-a", "Kind--a", "Kind-a-b", "A"}
	names := []string{"", "a", "a-b", "lock"}
	workloads := []string{"x", "a.x", "kind.x", "deployment.x", strings.Repeat("l", 253), strings.Repeat("l", 252) + "m"}
	for _, g := range groups {
		for _, k := range kinds {
			for _, n := range names {
				for _, w := range workloads {
					all = append(all, singleton{Workload{g, k, w}, n})
				}
			}
		}
	}
	seen := map[string]singleton{"lock.a.x": {}, "lock.singleton.kind.x": {}}
	for _, s := range all {
		lease := SingletonLease(s.workload, s.name)
		require.LessOrEqual(t, len(lease), 253)
		require.True(t, isSubdomain(lease), lease)
		other, taken := seen[lease]
		require.False(t, taken, "%+v and %+v share %s", s, other, lease)
		seen[lease] = s
	}
}

func TestSlotsOfParsedAnnotationsAreSorted(t *testing.T) {
	r := Request{Claimed: claimed(named("a"), lock("b"), lock("z"))}
	assert.Equal(t,
		[]string{"lock.b", "lock.z", "singleton-a.deployment.x"},
		r.Slots(Workload{"apps", "Deployment", "x"}))
	assert.Empty(t, Request{}.Slots(Workload{"apps", "Deployment", "x"}))
}

func TestWorkloadIsPrintedWithKubernetesKindAndName(t *testing.T) {
	assert.Equal(t, "Deployment/x", Workload{"apps", "Deployment", "x"}.String())
	assert.Equal(t, "Rollout.example.com/x", Workload{"example.com", "Rollout", "x"}.String())
}

func TestEachSlotHasItsOwnNextLease(t *testing.T) {
	long := strings.Repeat("l", 248)
	slots := []string{
		"lock.a", "lock.next.a", "singleton.deployment.a", "singleton.deploymentconfig-apps-openshift-io.a", LockLease(long), LockLease(long[1:]), LockLease(long[5:]), LockLease(long[6:]),
		SingletonLease(Workload{"apps", "Deployment", long + "x"}, ""), SingletonLease(Workload{"apps", "Deployment", long + "y"}, ""),
	}
	seen := map[string]bool{}
	for _, slot := range slots {
		next := NextLease(slot)
		assert.True(t, HasNextLease(slot), slot)
		assert.True(t, IsNextLease(next) && !IsNextLease(slot), next)
		assert.False(t, IsSlot(next) || HasNextLease(next), next)
		assert.True(t, isSubdomain(next), next)
		assert.LessOrEqual(t, len(next), maxName)
		assert.False(t, seen[next], next)
		seen[next] = true
	}
}

func TestYieldAnnotationSurvivesARoundTrip(t *testing.T) {
	for value, want := range map[string]Yield{
		"":                   {},
		"4711":               {Hold: "4711"},
		"4711 biller-1_u":    {Hold: "4711", Successor: "biller-1_u"},
		"4711 biller-1_u  x": {Hold: "4711", Successor: "biller-1_u  x"},
		" biller-1_u":        {Successor: "biller-1_u"},
	} {
		assert.Equal(t, want, ParseYield(value), "%q", value)
		assert.Equal(t, value, want.String())
	}
}

func TestUnknownPauseValueCountsAsAPause(t *testing.T) {
	for _, c := range []struct {
		annotations map[string]string
		want        Pause
		known       bool
	}{
		{nil, "", true},
		{map[string]string{PausedAnnotation: "hold"}, PauseHold, true},
		{map[string]string{PausedAnnotation: "stop"}, PauseStop, true},
		{map[string]string{PausedAnnotation: "recover"}, PauseRecover, true},
		{map[string]string{PausedAnnotation: ""}, PauseHold, true},
		{map[string]string{PausedAnnotation: "Stop"}, "Stop", false},
		{map[string]string{PausedAnnotation: "false"}, "false", false},
	} {
		p := PauseOf(c.annotations)
		assert.Equal(t, c.want, p)
		assert.Equal(t, c.known, p.Known(), "%v", c.annotations)
	}
}

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

func TestServingTimeBeforeAcquisitionBelongsToEarlierHold(t *testing.T) {
	acquired := time.Date(2026, 3, 1, 12, 0, 7, 500_000_000, time.UTC)
	for serving, in := range map[string]bool{
		"2026-03-01T12:00:08Z": true, "2026-03-01T12:00:07.5Z": true, "2026-03-01T12:00:07Z": true,
		"2026-03-01T12:00:06.9Z": false, "": false, "x": false,
	} {
		assert.Equal(t, in, ServesInHold(serving, acquired), serving)
	}
	assert.False(t, ServesInHold("2026-03-01T12:00:07Z", time.Time{}))
}
