// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestRecordOfDoneKeysKeepsTheLatestFifty(t *testing.T) {
	var d Done
	assert.False(t, d.Has(""))
	assert.Empty(t, d.Keys())
	for i := range 60 {
		d = d.With(fmt.Sprintf("v%d", i))
		d = d.With(fmt.Sprintf("v%d", i))
	}
	assert.Len(t, d.Keys(), MaxDone)
	assert.True(t, d.Has("v59"))
	assert.True(t, d.Has("v10"))
	assert.False(t, d.Has("v9"))
	assert.False(t, d.Has("v"))
	assert.Equal(t, d, d.With(""))
	assert.Equal(t, Done("a,c"), Done("a,b,c").Without("b"))
	assert.Equal(t, Done("a,c"), Done("a,c").Without("b"))
	longest := Done("")
	for i := range MaxDone {
		longest = longest.With(fmt.Sprintf("%02d%s", i, strings.Repeat("x", maxLabel-2)))
	}
	assert.Less(t, len(longest), 8192, "the policy on Leases refuses longer annotations")
}

func TestEachOnceClaimHasOneSlotAndKey(t *testing.T) {
	r, err := Parse(map[string]string{OnceAnnotation: "schema=v1.2_a"})
	require.NoError(t, err)
	assert.Equal(t, claimed(Claim{Kind: Once, Name: "schema", Size: 1, Key: "v1.2_a"}), r.Claimed)
	c, once := r.Once()
	assert.True(t, once)
	assert.Equal(t, "v1.2_a", c.Key)
	assert.Equal(t, ScopeNamespace, c.Scope())
	assert.Equal(t, []string{"once.schema"}, r.Slots(Workload{"apps", "Deployment", "a"}))
	assert.Equal(t, r.Slots(Workload{}), r.Slots(Workload{"batch", "Job", "b"}), "the work is of the namespace")
	assert.Equal(t, 2*time.Minute, r.Duration())
	assert.False(t, r.TakesTurns())
	assert.False(t, HasNextLease("once.schema"))

	r, err = Parse(map[string]string{OnceAnnotation: "schema=7", LeaseDurationAnnotation: "20s"})
	require.NoError(t, err)
	assert.Equal(t, 20*time.Second, r.Duration())
	r, err = Parse(map[string]string{LockAnnotation: "a"})
	require.NoError(t, err)
	_, once = r.Once()
	assert.False(t, once)
	assert.Equal(t, DefaultLeaseDuration, r.Duration())
}

func TestUnnamedClaimOfKindOnceUsesWorkloadsLease(t *testing.T) {
	r, err := Parse(map[string]string{OnceAnnotation: "true"})
	require.NoError(t, err)
	c, once := r.Once()
	assert.True(t, once)
	assert.Empty(t, c.Key, "the webhook knows the revision")
	assert.Equal(t, ScopeWorkload, c.Scope())
	long := strings.Repeat("w", 253)
	for workload, want := range map[Workload]string{
		{"apps", "Deployment", "web"}:           "once-revision.deployment.web",
		{"batch", "CronJob", "web"}:             "once-revision.cronjob.web",
		{"argoproj.io", "Rollout", "web.front"}: "once-revision.rollout-argoproj-io.web.front",
		{"apps", "Deployment", long}:            shortName("once-revision.deployment." + long),
	} {
		assert.Equal(t, []string{want}, r.Slots(workload))
		assert.True(t, IsSlot(want), want)
		assert.True(t, IsOnceSlot(want), want)
		assert.True(t, IsRevisionSlot(want), want)
		assert.Equal(t, ScopeWorkload, ScopeOf(want), want)
		assert.Equal(t, 2*time.Minute, DurationOf(want), want)
	}
	r, err = Parse(map[string]string{OnceAnnotation: "false"})
	require.NoError(t, err)
	assert.False(t, r.Claims())
}

func TestErrorExplainsEachInvalidOnceAnnotation(t *testing.T) {
	key := "a key after the = is at most 63 letters, digits, dashes, dots and underscores, with a letter or digit at both ends"
	name := "a name before the = is at most 248 lower-case letters, digits, dashes and dots, with a letter or digit at both ends"
	for value, want := range map[string]string{
		"":                              `write "true", "false", or a name and the key of the work that is to run once, as in schema=7`,
		"yes":                           `write "true", "false", or a name and the key of the work that is to run once, as in schema=7`,
		"a=1,b=2":                       "write one name=key: a pod can have no other once claim",
		"Schema=7":                      name,
		"=7":                            name,
		strings.Repeat("a", 249) + "=7": name,
		"schema=":                       key,
		"schema=-7":                     key,
		"schema=7 8":                    key,
		"schema=$(X)":                   key,
		"schema=é":                      key,
		"a=" + strings.Repeat("z", 64):  key,
	} {
		_, err := Parse(map[string]string{OnceAnnotation: value})
		require.Error(t, err, value)
		assert.True(t, strings.HasPrefix(err.Error(), "metaparticle.io/once is ") && strings.HasSuffix(err.Error(), ": "+want), "%s: %v", value, err)
	}
}

func TestSettingsThatContradictAOnceClaimAreRefused(t *testing.T) {
	for name, test := range map[string]struct {
		key, value, want string
	}{
		"lock":      {LockAnnotation, "a", "metaparticle.io/once cannot be in one pod with metaparticle.io/lock: remove one of the two"},
		"readiness": {ReadinessAnnotation, "holder", "metaparticle.io/readiness has no effect with metaparticle.io/once, which leaves the pod's readiness as it was: remove it"},
		"skip":      {OnBusyAnnotation, "skip", `metaparticle.io/on-busy is "skip", but with metaparticle.io/once a pod waits until the work is done: remove one of the two`},
		"gate":      {GateAnnotation, "pod", `metaparticle.io/gate is "pod", but with metaparticle.io/once a shim must see the success: remove one of the two`},
		"delay":     {EndpointDelayAnnotation, "1s", "metaparticle.io/endpoint-delay has no effect here, because standbys that are never Ready forward nothing: remove it"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Parse(map[string]string{OnceAnnotation: "schema=7", test.key: test.value})
			assert.EqualError(t, err, test.want)
		})
	}
}

func TestEachFailureOfKeyDoublesItsRetryDelay(t *testing.T) {
	f := Failures("8 3")
	assert.Zero(t, f.Delay("7"))
	for n, want := range []time.Duration{10 * time.Second, 20 * time.Second, 40 * time.Second, 80 * time.Second, 160 * time.Second, 5 * time.Minute, 5 * time.Minute} {
		f = f.With("7")
		assert.Equal(t, Failures(fmt.Sprintf("8 3,7 %d", n+1)), f)
		assert.Equal(t, want, f.Delay("7"))
		assert.Equal(t, 40*time.Second, f.Delay("8"), "each key has a count of its own")
		assert.Equal(t, f, f.With(""))
	}
	assert.Equal(t, []string{"8", "7"}, f.Keys())
	assert.Equal(t, Failures("8 3"), f.Without("7"))
	assert.Equal(t, Failures(""), Failures("8 3").Without("8"))
	assert.Equal(t, Failures("7 1000000"), Failures("7 1000000").With("7"))
	assert.Equal(t, 5*time.Minute, Failures("7 1000000").Delay("7"))
	for i := range 20 {
		f = f.With(fmt.Sprint("k", i))
	}
	assert.Len(t, f.Keys(), MostFailing)
	assert.Equal(t, 1, f.Count("k19"))
}

func TestMalformedFailuresAnnotationCausesNoDelay(t *testing.T) {
	for _, text := range []string{"", "7", "7 ", "7 0", "7 -1", "7 x", " 1", "7  1", "-7 1", "7 1 1", strings.Repeat("k", 64) + " 1", ",,", "7 x,8 y"} {
		f := Failures(text)
		for _, key := range []string{"", "7", "8", "-7", strings.Repeat("k", 64)} {
			assert.Zero(t, f.Delay(key), text)
		}
		assert.Equal(t, Failures("9 1"), f.With("9"), "%q is dropped with the next failure", text)
	}
}
