// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const someRun = "0b1c2d3e-0000-4000-8000-0123456789ab"

func TestBarrierNeedsNoClaim(t *testing.T) {
	r, err := Parse(map[string]string{BarrierAnnotation: " a.warm=3 ", LeaseDurationAnnotation: "1m", WaitAtMostAnnotation: "10m"})
	require.NoError(t, err)
	assert.Equal(t, Barrier{Name: "a.warm", Size: 3}, r.Barrier)
	assert.Equal(t, "a.warm=3", r.Barrier.String())
	assert.Equal(t, time.Minute, r.BarrierDuration())
	assert.False(t, r.Claims())
	assert.True(t, r.Injects())
	r, err = Parse(map[string]string{BarrierAnnotation: "a=1", OnceAnnotation: "b=1"})
	require.NoError(t, err)
	assert.Equal(t, DefaultLeaseDuration, r.BarrierDuration(), "a once claim has a longer one")
	_, err = Parse(map[string]string{BarrierAnnotation: "a=1", LocalAnnotation: "lock/a", WaitAtMostAnnotation: "10m"})
	require.NoError(t, err)
}

func TestMalformedBarrierIsRefused(t *testing.T) {
	for value, problem := range map[string]string{
		"":                               "write a name and how many pods must wait",
		"warm":                           "write a name and how many pods must wait",
		"warm=0":                         "a number from 1 to 32",
		"warm=33":                        "a number from 1 to 32",
		"warm=03":                        "a number from 1 to 32",
		"warm=3,cold=4":                  "name one barrier",
		"Warm=3":                         "a barrier's name is at most",
		"=3":                             "a barrier's name is at most",
		strings.Repeat("x", 206) + "=32": "a barrier's name is at most 205 ",
	} {
		_, err := Parse(map[string]string{BarrierAnnotation: value})
		if assert.Error(t, err, value) {
			assert.Contains(t, err.Error(), problem)
		}
	}
}

func TestParseRefusesBarrierWithInjectSetToFalse(t *testing.T) {
	_, err := Parse(map[string]string{BarrierAnnotation: "a=2", InjectAnnotation: "false"})
	assert.ErrorContains(t, err, `metaparticle.io/inject is "false", but metaparticle.io/barrier needs an injected container`)
	for key, value := range map[string]string{OnLossAnnotation: "standby", OnBusyAnnotation: "skip", ContainersAnnotation: "app"} {
		_, err = Parse(map[string]string{BarrierAnnotation: "a=2", key: value})
		assert.ErrorContains(t, err, key+" has no effect without a claim")
	}
}

func TestLeasesOfABarrierBelongToOneRun(t *testing.T) {
	long := strings.Repeat("x", maxBarrierName)
	for _, name := range []string{"warm", "a.b.3", long} {
		leases := Barrier{Name: name, Size: maxBarrier}.Leases(someRun)
		assert.Len(t, leases, maxBarrier)
		for _, lease := range leases {
			assert.Equal(t, someRun, RunOf(lease))
			assert.LessOrEqual(t, len(lease), maxName)
			assert.True(t, IsSlot(lease))
			assert.False(t, HasNextLease(lease))
			_, problem := parseCondition(lease)
			assert.Contains(t, problem, "is no condition")
		}
	}
	assert.Equal(t, "barrier.warm."+someRun+".0", Barrier{Name: "warm", Size: 1}.Leases(someRun)[0])
	for _, other := range []string{
		"barrier.warm." + someRun, "barrier.warm." + someRun + ".32", "barrier.warm." + someRun + ".01", "barrier.warm." + someRun + ".-1",
		"barrier." + someRun + ".0", "barrier.warm..0", "barrier.warm." + someRun + "x.0", "barrier.w_m." + someRun + ".0", "lock.warm." + someRun + ".0",
		"barrier.warm.A.0", "barrier.x" + long + "." + someRun + ".0", "barrier.",
	} {
		assert.Empty(t, RunOf(other), other)
	}
	assert.False(t, IsSlot("barrier.warm."+someRun+".32"))
}

func TestBarrierIsNotOpenIfAnnotationIsMalformed(t *testing.T) {
	assert.Equal(t, 32, Opened("32"))
	for _, text := range []string{"", "0", "-1", "33", "03", "x", "1 "} {
		assert.Zero(t, Opened(text), text)
	}
}

func TestBarrierArgsSurviveARoundTrip(t *testing.T) {
	a := BarrierArgs{
		Barrier: Barrier{Name: "warm", Size: 2}, Run: someRun, LeaseDuration: 20 * time.Second, WaitAtMost: time.Minute, Credentials: CredentialsPath,
	}
	words := a.Args()
	assert.Equal(t, []string{BarrierRole, "-barrier=warm=2", "-run=" + someRun, "-lease-duration=20s", "-wait-at-most=1m0s"}, words)
	parsed, err := ParseBarrierArgs(words[1:])
	require.NoError(t, err)
	assert.Equal(t, a, parsed)
	assert.Equal(t, a, RecallBarrier(words))
	assert.Equal(t, []string{"barrier.warm." + someRun + ".0", "barrier.warm." + someRun + ".1"}, a.Leases())
	for _, wrong := range [][]string{
		nil, {"-barrier=x"}, {"-barrier=warm=2", "-lease-duration=20s"}, {"-barrier=warm=2", "-run=A", "-lease-duration=20s"},
		{"-barrier=warm=2", "-run=a", "-lease-duration=1s"}, {"-barrier=warm=2", "-run=a", "-lease-duration=20s", "more"}, {"-other=1"},
	} {
		_, err := ParseBarrierArgs(wrong)
		assert.Error(t, err, wrong)
	}
	assert.Empty(t, RecallBarrier([]string{AfterRole, "-barrier=warm=2", "-run=a"}).Leases())
	assert.Empty(t, RecallBarrier(nil).Leases())
}

func TestLocalAPIBarrierRequiresUIDOfItsJob(t *testing.T) {
	request, err := Parse(map[string]string{LocalAnnotation: "barrier/a.b=2, lock/a"})
	require.NoError(t, err)
	assert.Equal(t, []Barrier{{Name: "a.b", Size: 2}}, BarriersOf(request.Claimed))
	assert.Equal(t, []string{"lock.a"}, request.Slots(Workload{}), "no annotation has the run")
	assert.Equal(t, []string{"barrier/a.b=2", "lock.a"}, request.Marks(Workload{}))
	for _, mark := range request.Marks(Workload{})[:1] {
		_, variable := VariableOf(mark)
		assert.False(t, IsSlot(mark) || variable)
	}
	a := DefaultLocalArgs()
	a.Claims = request.Claimed
	for run, valid := range map[string]bool{someRun: true, "": false, "A": false, "a.b": false} {
		a.Run = run
		_, err := ParseLocalArgs(a.Args()[1:])
		assert.Equal(t, valid, err == nil, run)
	}
	a.Run = someRun
	want := BarrierArgs{Barrier: BarriersOf(request.Claimed)[0], Run: someRun, LeaseDuration: DefaultLeaseDuration, Credentials: CredentialsPath}
	assert.Equal(t, []BarrierArgs{want}, RecallLocalArgs(a.Args()).Barriers())
	assert.Equal(t, []string{"barrier.a.b." + someRun + ".0", "barrier.a.b." + someRun + ".1"}, want.Leases())
}

func TestPodCannotNameOneBarrierInTwoAnnotations(t *testing.T) {
	_, err := Parse(map[string]string{LocalAnnotation: "barrier/a=2", BarrierAnnotation: "a=3"})
	require.ErrorContains(t, err, "names barrier/a=2, at which the pod waits by metaparticle.io/barrier already: remove one of the two")
	_, err = Parse(map[string]string{LocalAnnotation: "barrier/a=2", BarrierAnnotation: "b=2"})
	assert.NoError(t, err)
}
