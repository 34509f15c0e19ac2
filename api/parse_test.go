// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"cmp"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var plain = Claim{Kind: Singleton, Size: 1}

func named(name string) Claim { return Claim{Kind: Singleton, Name: name, Size: 1} }

func lock(name string) Claim { return Claim{Kind: Lock, Name: name, Size: 1} }

func claimed(all ...Claim) []Claim { return all }

func TestParseReadsEveryAnnotation(t *testing.T) {
	tests := map[string]struct {
		annotations map[string]string
		want        Request
	}{
		"nothing":              {nil, Request{}},
		"others' annotations":  {map[string]string{"example.com/singleton": "x", "metaparticle.ioo/x": ""}, Request{}},
		"singleton":            {map[string]string{SingletonAnnotation: "true"}, Request{Claimed: claimed(plain)}},
		"singleton off":        {map[string]string{SingletonAnnotation: "false"}, Request{}},
		"named singleton":      {map[string]string{SingletonAnnotation: "writer"}, Request{Claimed: claimed(named("writer"))}},
		"lock":                 {map[string]string{LockAnnotation: "a"}, Request{Claimed: claimed(lock("a"))}},
		"locks are sorted":     {map[string]string{LockAnnotation: "b, a.c ,b,a"}, Request{Claimed: claimed(lock("a"), lock("a.c"), lock("b"))}},
		"both":                 {map[string]string{LockAnnotation: "a", SingletonAnnotation: "true"}, Request{Claimed: claimed(plain, lock("a"))}},
		"injection wanted":     {map[string]string{InjectAnnotation: "true"}, Request{}},
		"opted out":            {map[string]string{InjectAnnotation: "false"}, Request{OptOut: true}},
		"what we write itself": {map[string]string{SlotsAnnotation: "forged", WorkloadAnnotation: "Pod/x"}, Request{}},
		"switched off, settings left": {
			map[string]string{SingletonAnnotation: "false", LeaseDurationAnnotation: "1m"},
			Request{Settings: Settings{LeaseDuration: time.Minute}},
		},
		"opted out, settings left": {
			map[string]string{InjectAnnotation: "false", OnLossAnnotation: "restart"},
			Request{OptOut: true, OnLoss: OnLossRestart},
		},
		"opted out, switched off": {
			map[string]string{InjectAnnotation: "false", SingletonAnnotation: "false"},
			Request{OptOut: true},
		},
		"everything": {
			map[string]string{
				SingletonAnnotation: "true", ContainersAnnotation: "b,a", LeaseDurationAnnotation: "90s",
				OnLossAnnotation: "restart", ReadinessAnnotation: "holder", InjectAnnotation: "true",
			},
			Request{
				Claimed: claimed(plain), Containers: []string{"a", "b"}, Settings: Settings{LeaseDuration: 90 * time.Second, Readiness: ReadinessHolder},
				OnLoss: OnLossRestart,
			},
		},
		"defaults written out": {
			map[string]string{
				LockAnnotation: "a", OnLossAnnotation: "standby", ReadinessAnnotation: "forward", EndpointDelayAnnotation: "2s",
			},
			Request{
				Claimed: claimed(lock("a")), OnLoss: OnLossStandby, Settings: Settings{Readiness: ReadinessForward},
				EndpointDelay: new(DefaultEndpointDelay),
			},
		},
		"handovers": {
			map[string]string{LockAnnotation: "a", YieldAfterAnnotation: "60s", PreferAnnotation: "topology.kubernetes.io/zone=a"},
			Request{Claimed: claimed(lock("a")), Settings: Settings{YieldAfter: time.Minute, Prefer: Preference{"topology.kubernetes.io/zone", "a"}}},
		},
		"handovers left": {
			map[string]string{SingletonAnnotation: "false", BarrierAnnotation: "warm=2", YieldAfterAnnotation: "5s", PreferAnnotation: "A_b=1"},
			Request{Barrier: Barrier{"warm", 2}, Settings: Settings{YieldAfter: 5 * time.Second, Prefer: Preference{"A_b", "1"}}},
		},
		"no delay": {
			map[string]string{LockAnnotation: "a", EndpointDelayAnnotation: "0"},
			Request{Claimed: claimed(lock("a")), EndpointDelay: new(time.Duration(0))},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := Parse(test.annotations)
			require.NoError(t, err)
			assert.Equal(t, test.want, got)
		})
	}
}

// asked returns the part of an error text that lists all annotations that make a claim.
func asked() string {
	ways := []string{`metaparticle.io/singleton: "true"`}
	for _, a := range Annotations {
		if a.Kind != nil && a.Key != SingletonAnnotation {
			ways = append(ways, a.Key)
		}
	}
	return strings.Join(ways, " or ")
}

// TestEachAnnotationMistakeHasAnExactErrorText compares the messages word by word, because people
// read them.
func TestEachAnnotationMistakeHasAnExactErrorText(t *testing.T) {
	const claim = "metaparticle.io/singleton"
	long := strings.Repeat("a", 64)
	tests := []struct {
		key, value string
		// alone reports that the pod has no claim beside the annotation.
		alone bool
		want  string
	}{
		{key: claim, value: "yes", want: `metaparticle.io/singleton is "yes": write "true" or "false"`},
		{key: claim, value: "True", want: `metaparticle.io/singleton is "True": write "true" or "false"`},
		{key: claim, value: "no", want: `metaparticle.io/singleton is "no": write "true" or "false"`},
		{key: claim, value: "", want: `metaparticle.io/singleton is "": write "true", "false" or a name: at most 63 lower-case letters, digits and dashes, with a letter or digit at both ends`},
		{key: claim, value: "a.b", want: `metaparticle.io/singleton is "a.b": write "true", "false" or a name: at most 63 lower-case letters, digits and dashes, with a letter or digit at both ends`},
		{key: claim, value: long, want: `metaparticle.io/singleton is "` + long + `": write "true", "false" or a name: at most 63 lower-case letters, digits and dashes, with a letter or digit at both ends`},
		{key: "metaparticle.io/lock", value: "", want: `metaparticle.io/lock is "": name at least one lock, and none empty, separated by commas`},
		{key: "metaparticle.io/lock", value: "a,,b", want: `metaparticle.io/lock is "a,,b": name at least one lock, and none empty, separated by commas`},
		{key: "metaparticle.io/lock", value: "a,B", want: `metaparticle.io/lock is "a,B": a lock's name is at most 248 lower-case letters, digits, dashes and dots, with a letter or digit at both ends`},
		{key: "metaparticle.io/lock", value: "a..b", want: `metaparticle.io/lock is "a..b": a lock's name is at most 248 lower-case letters, digits, dashes and dots, with a letter or digit at both ends`},
		{key: "metaparticle.io/containers", value: "a,App", want: `metaparticle.io/containers is "a,App": "App" cannot be a container's name`},
		{key: "metaparticle.io/containers", value: "", want: `metaparticle.io/containers is "": name at least one container, and none empty, separated by commas`},
		{key: "metaparticle.io/containers", value: "metaparticle-agent", want: `metaparticle.io/containers is "metaparticle-agent": metaparticle-agent is injected and cannot wait for itself`},
		{key: "metaparticle.io/lease-duration", value: "30", want: `metaparticle.io/lease-duration is "30": write 30s`},
		{key: "metaparticle.io/lease-duration", value: "half a minute", want: `metaparticle.io/lease-duration is "half a minute": write a duration like "30s" or "2m"`},
		{key: "metaparticle.io/lease-duration", value: "9s", want: `metaparticle.io/lease-duration is "9s": lease duration 9s is not between 10s and 1h0m0s`},
		{key: "metaparticle.io/lease-duration", value: "-30s", want: `metaparticle.io/lease-duration is "-30s": lease duration -30s is not between 10s and 1h0m0s`},
		{key: "metaparticle.io/lease-duration", value: "2h", want: `metaparticle.io/lease-duration is "2h": lease duration 2h0m0s is not between 10s and 1h0m0s`},
		{key: "metaparticle.io/lease-duration", value: "10.5s", want: `metaparticle.io/lease-duration is "10.5s": lease duration 10.5s is not a whole number of seconds`},
		{key: "metaparticle.io/on-loss", value: "die", want: `metaparticle.io/on-loss is "die": write "standby" or "restart"`},
		{key: "metaparticle.io/readiness", value: "ready", want: `metaparticle.io/readiness is "ready": write "forward" or "holder"`},
		{key: "metaparticle.io/inject", value: "False", want: `metaparticle.io/inject is "False": write "true" or "false"`},
		{key: "metaparticle.io/inject", value: "false", want: `metaparticle.io/inject is "false", but metaparticle.io/singleton claims a slot: remove one of the two`},
		{key: "metaparticle.io/singelton", value: "true", want: `metaparticle.io/singelton is not known: did you mean metaparticle.io/singleton?`},
		{key: "metaparticle.io/Singleton", value: "true", want: `metaparticle.io/Singleton is not known: did you mean metaparticle.io/singleton?`},
		{key: "metaparticle.io/locks", value: "a", want: `metaparticle.io/locks is not known: did you mean metaparticle.io/lock?`},
		{key: "metaparticle.io/lease", value: "a", want: `metaparticle.io/lease is not known: remove it`},
		{key: "metaparticle.io/endpoint-delay", value: "2", want: `metaparticle.io/endpoint-delay is "2": write 2s`},
		{key: "metaparticle.io/endpoint-delay", value: "off", want: `metaparticle.io/endpoint-delay is "off": write a duration like "2s" or "0s"`},
		{key: "metaparticle.io/endpoint-delay", value: "-1s", want: `metaparticle.io/endpoint-delay is "-1s": write a duration from 0s to 5m0s`},
		{key: "metaparticle.io/endpoint-delay", value: "6m", want: `metaparticle.io/endpoint-delay is "6m": write a duration from 0s to 5m0s`},
		{key: "metaparticle.io/failsafe", value: "600,alone", want: `metaparticle.io/failsafe is "600,alone": write 600s`},
		{key: "metaparticle.io/failsafe", value: "alone", want: `metaparticle.io/failsafe is "alone": write a duration like "10m" or "10m,alone"`},
		{key: "metaparticle.io/failsafe", value: "59s,alone", want: `metaparticle.io/failsafe is "59s,alone": write a duration from 1m0s to 45m0s`},
		{key: "metaparticle.io/failsafe", value: "46m,alone", want: `metaparticle.io/failsafe is "46m,alone": write a duration from 1m0s to 45m0s`},
		{key: "metaparticle.io/failsafe", value: "46m", want: `metaparticle.io/failsafe is "46m": write a duration from 1m0s to 45m0s`},
		{key: "metaparticle.io/failsafe", value: "10m,", want: `metaparticle.io/failsafe is "10m,": write "10m,alone" for a workload of one replica, and "10m" for a workload with standbys`},
		{key: "metaparticle.io/failsafe", value: "10m, alone", want: `metaparticle.io/failsafe is "10m, alone": write "10m,alone" for a workload of one replica, and "10m" for a workload with standbys`},
		{key: "metaparticle.io/failsafe", value: "10m", alone: true, want: `metaparticle.io/failsafe has no effect without a claim: add ` + asked() + `, or remove it`},
		{key: "metaparticle.io/failsafe", value: "10m,alone", alone: true, want: `metaparticle.io/failsafe has no effect without a claim: add ` + asked() + `, or remove it`},
		{key: "metaparticle.io/yield-after", value: "60", want: `metaparticle.io/yield-after is "60": write 60s`},
		{key: "metaparticle.io/yield-after", value: "never", want: `metaparticle.io/yield-after is "never": write a duration like "60s" or "5m"`},
		{key: "metaparticle.io/yield-after", value: "4.9s", want: `metaparticle.io/yield-after is "4.9s": write a duration from 5s to 1h0m0s`},
		{key: "metaparticle.io/yield-after", value: "61m", want: `metaparticle.io/yield-after is "61m": write a duration from 5s to 1h0m0s`},
		{key: "metaparticle.io/yield-after", value: "1m", alone: true, want: `metaparticle.io/yield-after has no effect without a claim: add ` + asked() + `, or remove it`},
		{key: "metaparticle.io/prefer", value: "a=b", alone: true, want: `metaparticle.io/prefer has no effect without a claim: add ` + asked() + `, or remove it`},
		{key: "metaparticle.io/prefer", value: "metaparticle.io/role=holder", want: `metaparticle.io/prefer is "metaparticle.io/role=holder": no pod is preferred by a label that Metaparticle itself writes`},
		{key: "metaparticle.io/leaseduration", value: "1m", want: `metaparticle.io/leaseduration is not known: did you mean metaparticle.io/lease-duration?`},
		{key: "metaparticle.io/onloss", value: "restart", want: `metaparticle.io/onloss is not known: did you mean metaparticle.io/on-loss?`},
		{key: "metaparticle.io/wibble", value: "", want: `metaparticle.io/wibble is not known: remove it`},
		{key: "metaparticle.io/", value: "", want: `metaparticle.io/ is not known: remove it`},
		{key: "metaparticle.io/injection", value: "enabled", want: `metaparticle.io/injection is a label of the namespace, not an annotation: kubectl label namespace NAME metaparticle.io/injection=enabled`},
		{key: "metaparticle.io/ports", value: "http", want: `metaparticle.io/ports is "http": write port numbers such as "8080" or "53/udp", separated by commas`},
		{key: "metaparticle.io/ports", value: "80?", want: `metaparticle.io/ports is "80?": write port numbers such as "8080" or "53/udp", separated by commas`},
		{key: "metaparticle.io/ports", value: "", want: `metaparticle.io/ports is "": name at least one port, and none empty, separated by commas`},
		{key: "metaparticle.io/ports", value: "8", alone: true, want: `metaparticle.io/ports has no effect without a claim: add ` + asked() + `, or remove it`},
		{key: "metaparticle.io/barrier", value: "8", want: `metaparticle.io/barrier is "8": write a name and how many pods must wait, as in warm=5`},
		{key: "metaparticle.io/gate", value: "Pod", want: `metaparticle.io/gate is "Pod": write "container", "pod" or "readiness"`},
		{key: "metaparticle.io/gates", value: "pod", want: `metaparticle.io/gates is not known: did you mean metaparticle.io/gate?`},
		{key: "metaparticle.io/ports", value: "5/sctp", want: `metaparticle.io/ports is "5/sctp": write port numbers such as "8080" or "53/udp", separated by commas`},
		{key: "metaparticle.io/containers", value: "metaparticle-wait", want: `metaparticle.io/containers is "metaparticle-wait": metaparticle-wait is injected and cannot wait for itself`},
		{key: "metaparticle.io/gate", value: "pod", alone: true, want: `metaparticle.io/gate has no effect without a claim: add ` + asked() + `, or remove it`},
		{key: "metaparticle.io/containers", value: "a", alone: true, want: `metaparticle.io/containers has no effect without a claim: add ` + asked() + `, or remove it`},
		{key: "metaparticle.io/lease-duration", value: "1m", alone: true, want: `metaparticle.io/lease-duration has no effect without a claim: add ` + asked() + `, or remove it`},
		{key: "metaparticle.io/on-loss", value: "restart", alone: true, want: `metaparticle.io/on-loss has no effect without a claim: add ` + asked() + `, or remove it`},
		{key: "metaparticle.io/readiness", value: "holder", alone: true, want: `metaparticle.io/readiness has no effect without a claim: add ` + asked() + `, or remove it`},
	}
	for _, test := range tests {
		t.Run(test.key+"="+test.value, func(t *testing.T) {
			annotations := map[string]string{test.key: test.value}
			if !test.alone && test.key != claim {
				annotations[claim] = "true"
			}
			got, err := Parse(annotations)
			require.EqualError(t, err, test.want)
			assert.Zero(t, got)
			var mistakes Mistakes
			require.ErrorAs(t, err, &mistakes)
			assert.Equal(t, test.key, mistakes[0].Key)
			assert.Equal(t, test.value, mistakes[0].Value)
		})
	}
}

// A gate outside of the containers cannot carry out every setting.
func TestParseRefusesSettingsThatAGateIgnores(t *testing.T) {
	tests := []struct {
		gate, key, value, want string
	}{
		{"pod", ContainersAnnotation, "a", `metaparticle.io/containers has no effect with metaparticle.io/gate: pod, which gates the whole pod: remove one of the two`},
		{"readiness", ContainersAnnotation, "a", `metaparticle.io/containers has no effect with metaparticle.io/gate: readiness, which gates the whole pod: remove one of the two`},
		{"pod", OnLossAnnotation, "standby", `metaparticle.io/on-loss is "standby", but with metaparticle.io/gate: pod a lost slot restarts all containers: remove one of the two`},
		{"pod", OnLossAnnotation, "restart", ""},
		{"readiness", OnLossAnnotation, "standby", `metaparticle.io/on-loss has no effect with metaparticle.io/gate: readiness, which stops nothing: remove one of the two`},
		{"readiness", OnLossAnnotation, "restart", `metaparticle.io/on-loss has no effect with metaparticle.io/gate: readiness, which stops nothing: remove one of the two`},
		{"pod", ReadinessAnnotation, "forward", `metaparticle.io/readiness is "forward", but with metaparticle.io/gate: pod the holder alone is Ready: remove one of the two`},
		{"pod", ReadinessAnnotation, "holder", ""},
		{"readiness", ReadinessAnnotation, "forward", `metaparticle.io/readiness is "forward", but with metaparticle.io/gate: readiness the holder alone is Ready: remove one of the two`},
		{"readiness", ReadinessAnnotation, "holder", ""},
		{"container", ReadinessAnnotation, "forward", ""},
		{"container", EndpointDelayAnnotation, "1s", ""},
		{"pod", EndpointDelayAnnotation, "1s", `metaparticle.io/endpoint-delay has no effect here, because standbys that are never Ready forward nothing: remove it`},
		{"readiness", EndpointDelayAnnotation, "1s", `metaparticle.io/endpoint-delay has no effect here, because standbys that are never Ready forward nothing: remove it`},
		{"container", ContainersAnnotation, "a", ""},
		{"pod", YieldAfterAnnotation, "1m", `metaparticle.io/yield-after has no effect with metaparticle.io/gate: pod, under which no shim stops the application: remove one of the two`},
		{"readiness", YieldAfterAnnotation, "1m", `metaparticle.io/yield-after has no effect with metaparticle.io/gate: readiness, under which no shim stops the application: remove one of the two`},
		{"pod", PreferAnnotation, "a=b", `metaparticle.io/prefer has no effect with metaparticle.io/gate: pod, under which no shim stops the application: remove one of the two`},
		{"readiness", PreferAnnotation, "a=b", `metaparticle.io/prefer has no effect with metaparticle.io/gate: readiness, under which no shim stops the application: remove one of the two`},
		{"container", YieldAfterAnnotation, "1m", ""},
		{"container", PreferAnnotation, "a=b", ""},
	}
	for _, test := range tests {
		t.Run(test.gate+" "+test.key+"="+test.value, func(t *testing.T) {
			got, err := Parse(map[string]string{SingletonAnnotation: "true", GateAnnotation: test.gate, test.key: test.value})
			if test.want == "" {
				require.NoError(t, err)
				assert.Equal(t, Gate(test.gate), got.Gate)
				return
			}
			require.EqualError(t, err, test.want)
		})
	}
}

// Nobody but the pods of one workload may have to wait for the long duration in the Lease.
func TestParseRefusesFailsafeBesideOtherClaims(t *testing.T) {
	other := func(key string) string {
		return " has no effect with " + key + ", because only a singleton, without another claim, survives an outage of the API server: remove one of the two"
	}
	for name, c := range map[string]struct {
		with map[string]string
		want string
	}{
		"singleton":               {map[string]string{SingletonAnnotation: "writer"}, ""},
		"lock":                    {map[string]string{LockAnnotation: "a"}, other(LockAnnotation)},
		"lock and singleton":      {map[string]string{SingletonAnnotation: "true", LockAnnotation: "a"}, other(LockAnnotation)},
		"semaphore":               {map[string]string{SemaphoreAnnotation: "pool=3"}, other(SemaphoreAnnotation)},
		"shards":                  {map[string]string{ShardsAnnotation: "2"}, other(ShardsAnnotation)},
		"once":                    {map[string]string{OnceAnnotation: "true"}, other(OnceAnnotation)},
		"start lock":              {map[string]string{SingletonAnnotation: "true", StartLockAnnotation: "db"}, other(StartLockAnnotation)},
		"barrier":                 {map[string]string{SingletonAnnotation: "true", BarrierAnnotation: "warm=2"}, other(BarrierAnnotation)},
		"local API":               {map[string]string{LocalAnnotation: "lock/a"}, " has no effect with metaparticle.io/api, because the program itself asks for its slots: remove it"},
		"gate pod":                {map[string]string{SingletonAnnotation: "true", GateAnnotation: "pod"}, " has no effect with metaparticle.io/gate: pod, under which no shim stops the application: remove one of the two"},
		"gate readiness":          {map[string]string{SingletonAnnotation: "true", GateAnnotation: "readiness"}, " has no effect with metaparticle.io/gate: readiness, under which no shim stops the application: remove one of the two"},
		"skips":                   {map[string]string{SingletonAnnotation: "true", OnBusyAnnotation: "skip"}, " has no effect with metaparticle.io/on-busy: skip, because a pod that skips would take a dead holder for a living one: remove one of the two"},
		"a long lease covers it":  {map[string]string{SingletonAnnotation: "true", LeaseDurationAnnotation: "40m"}, " has no effect, because metaparticle.io/lease-duration: 40m0s covers an outage of 13m19s: remove it"},
		"a lease longer than max": {map[string]string{SingletonAnnotation: "true", LeaseDurationAnnotation: "10m", FailsafeAnnotation: "45m"}, " to survive an outage of 45m0s, the Lease would need a duration of 1h0m12s, and the longest is 1h0m0s: write a shorter outage, or a shorter metaparticle.io/lease-duration"},
	} {
		outage := cmp.Or(c.with[FailsafeAnnotation], "10m")
		for _, form := range []string{outage, outage + ",alone"} {
			c.with[FailsafeAnnotation] = form
			got, err := Parse(c.with)
			if c.want == "" {
				require.NoError(t, err, name)
				assert.Equal(t, Failsafe{Outage: 10 * time.Minute, Alone: form != outage}, got.Failsafe, name)
				continue
			}
			assert.EqualError(t, err, FailsafeAnnotation+c.want, "%s with %s", name, form)
		}
	}
}

// Only the pods of one singleton or one lock agree on a handover.
func TestParseRefusesHandoverSettingsBesideOtherClaims(t *testing.T) {
	other := func(key string) string {
		return " has no effect with " + key + ", because only the holder of one singleton or one lock hands over: remove one of the two"
	}
	const several = " has no effect in a pod of 2 slots, because only the holder of one singleton or one lock hands over: leave one claim, or remove it"
	for name, c := range map[string]struct {
		beside map[string]string
		// wants are the problems of yield-after and of prefer; empty for none.
		wants [2]string
	}{
		"singleton":                {map[string]string{SingletonAnnotation: "writer"}, [2]string{}},
		"readiness written out":    {map[string]string{LockAnnotation: "a", ReadinessAnnotation: "forward"}, [2]string{}},
		"only the holder is Ready": {map[string]string{LockAnnotation: "a", ReadinessAnnotation: "holder"}, [2]string{"", " has no effect with metaparticle.io/readiness: holder, because only a Ready standby is preferred: remove one of the two"}},
		"semaphore":                {map[string]string{SemaphoreAnnotation: "pool=3"}, [2]string{other(SemaphoreAnnotation), other(SemaphoreAnnotation)}},
		"semaphore of one":         {map[string]string{SemaphoreAnnotation: "pool=1"}, [2]string{other(SemaphoreAnnotation), other(SemaphoreAnnotation)}},
		"shards":                   {map[string]string{ShardsAnnotation: "1"}, [2]string{other(ShardsAnnotation), other(ShardsAnnotation)}},
		"once":                     {map[string]string{OnceAnnotation: "true"}, [2]string{other(OnceAnnotation), other(OnceAnnotation)}},
		"start lock":               {map[string]string{StartLockAnnotation: "db"}, [2]string{other(StartLockAnnotation), other(StartLockAnnotation)}},
		"start lock and singleton": {map[string]string{StartLockAnnotation: "db", SingletonAnnotation: "true"}, [2]string{other(StartLockAnnotation), other(StartLockAnnotation)}},
		"barrier":                  {map[string]string{BarrierAnnotation: "warm=2", LockAnnotation: "a"}, [2]string{other(BarrierAnnotation), other(BarrierAnnotation)}},
		"two locks":                {map[string]string{LockAnnotation: "a,b"}, [2]string{several, several}},
		"lock and singleton":       {map[string]string{LockAnnotation: "a", SingletonAnnotation: "true"}, [2]string{several, several}},
		"local API":                {map[string]string{LocalAnnotation: "lock/a"}, [2]string{idle, idle}},
	} {
		for i, setting := range [][2]string{{YieldAfterAnnotation, "60s"}, {PreferAnnotation, "a=b"}} {
			c.beside[setting[0]] = setting[1]
			got, err := Parse(c.beside)
			delete(c.beside, setting[0])
			if c.wants[i] == "" {
				require.NoError(t, err, name)
				assert.Equal(t, i == 0, got.YieldAfter == time.Minute, name)
				assert.Equal(t, i == 1, got.Prefer.String() == "a=b", name)
				continue
			}
			require.EqualError(t, err, setting[0]+c.wants[i], name)
		}
	}
}

func TestPreferenceIsALabel(t *testing.T) {
	long := strings.Repeat("x", 63)
	for _, text := range []string{"a=b", "a.b-c/D.e_f-g=H.i_j-k", "apps.kubernetes.io/pod-index=0", long + "=" + long, strings.Repeat("x", 253) + "/" + long + "=1"} {
		p, problem := parsePreference(text)
		require.Empty(t, problem, text)
		assert.Equal(t, text, p.String())
	}
	for _, text := range []string{"", "=", "=b", "/a=b", "a/=b", "a/b/c=d", "A.b/c=d", "a b=c", "-a=b", "a']=b", "ä=b", long + "x=a", strings.Repeat("x", 254) + "/a=b"} {
		_, problem := parsePreference(text)
		assert.Contains(t, problem, "write the key and the value of a label", text)
	}
	for _, text := range []string{"a", "a=", "a=b=c", "a=-b", "a=b c", "a=$(HOME)", "a=" + long + "x"} {
		_, problem := parsePreference(text)
		assert.Contains(t, problem, "after the = write the value of a label", text)
	}
}

func TestParseReadsClaimsOfTheLocalAPI(t *testing.T) {
	tests := map[string][]Claim{
		"lock/a":                                     {lock("a")},
		"lock/b, election/main,lock/b ":              {{Kind: Election, Name: "main", Size: 1}, lock("b")},
		"semaphore/pool=3,lock/a":                    {lock("a"), {Kind: Semaphore, Name: "pool", Size: 3}},
		"rwlock/a=1,rwlock/b.c=16":                   {{Kind: RWLock, Name: "a", Size: 1}, {Kind: RWLock, Name: "b.c", Size: 16}},
		"variable/hits,lock/a":                       {lock("a"), {Kind: Variable, Name: "hits"}},
		"lock/a, barrier/a.warm=32, barrier/b=1":     {{Kind: Arrivals, Name: "a.warm", Size: 32}, {Kind: Arrivals, Name: "b", Size: 1}, lock("a")},
		"semaphore/a=1,semaphore/b=32":               {{Kind: Semaphore, Name: "a", Size: 1}, {Kind: Semaphore, Name: "b", Size: 32}},
		"election/" + strings.Repeat("a", maxLock-4): {{Kind: Election, Name: strings.Repeat("a", maxLock-4), Size: 1}},
	}
	for value, want := range tests {
		got, err := Parse(map[string]string{LocalAnnotation: value, LeaseDurationAnnotation: "1m", AfterAnnotation: "once.a=7", InjectAnnotation: "true"})
		require.NoError(t, err)
		assert.Equal(t, Request{Claimed: want, Gate: GateProgram, Settings: Settings{LeaseDuration: time.Minute}, After: []Condition{{Lease: "once.a", Key: "7"}}}, got)
		assert.False(t, got.Shims())
		assert.False(t, got.TakesTurns())
		assert.Equal(t, ReadinessHolder, got.Standbys())
		for _, slot := range got.Slots(Workload{Kind: "Pod", Name: "p"}) {
			assert.Equal(t, ScopeNamespace, ScopeOf(slot), slot)
		}
	}
}

func TestMalformedClaimsOfTheLocalAPIAreRefused(t *testing.T) {
	const form = ` is no claim of the local API: write lock/NAME, election/NAME, semaphore/NAME=SIZE, rwlock/NAME=SIZE, barrier/NAME=SIZE or variable/NAME`
	tests := map[string]string{
		"":                            `name at least one claim, and none empty, separated by commas`,
		"lock/a,,lock/b":              `name at least one claim, and none empty, separated by commas`,
		"a":                           `"a"` + form,
		"once/a=7":                    `"once/a=7"` + form,
		"singleton/a":                 `"singleton/a"` + form,
		"Lock/a":                      `"Lock/a"` + form,
		"lock/A":                      `"lock/A": a lock's name is at most 248 lower-case letters, digits, dashes and dots, with a letter or digit at both ends`,
		"lock/a/b":                    `"lock/a/b": a lock's name is at most 248 lower-case letters, digits, dashes and dots, with a letter or digit at both ends`,
		"lock/":                       `"lock/": name at least one lock, and none empty, separated by commas`,
		"lock/ a":                     `"lock/ a": write lock/a`,
		"semaphore/a":                 `"semaphore/a": write a name and how many pods may run, as in pool=3`,
		"semaphore/ a=3":              `"semaphore/ a=3": write semaphore/a=3`,
		"semaphore/a=65":              `"semaphore/a=65": after the = write how many pods may run: a number from 1 to 64`,
		"rwlock/a":                    `"rwlock/a": write a name and how many pods may read at once, as in rwlock/catalog=8`,
		"rwlock/a=17":                 `"rwlock/a=17": after the = write how many pods may read at once: a number from 1 to 16`,
		"rwlock/a=0":                  `"rwlock/a=0": after the = write how many pods may read at once: a number from 1 to 16`,
		"rwlock/a=08":                 `"rwlock/a=08": after the = write how many pods may read at once: a number from 1 to 16`,
		"rwlock/A=1":                  `"rwlock/A=1": a read-write lock's name is at most 239 lower-case letters, digits, dashes and dots, with a letter or digit at both ends`,
		"rwlock/a=1,rwlock/a=2":       `rwlock/a=1 and rwlock/a=2 are one claim with two sizes: remove one of the two`,
		"barrier/a":                   `"barrier/a": write a name and how many pods must wait, as in warm=5`,
		"barrier/a=33":                `"barrier/a=33": after the = write how many pods must wait: a number from 1 to 32`,
		"barrier/A=3":                 `"barrier/A=3": a barrier's name is at most 205 lower-case letters, digits, dashes and dots, with a letter or digit at both ends`,
		"barrier/a=2,barrier/a=3":     `barrier/a=2 and barrier/a=3 are one claim with two sizes: remove one of the two`,
		"election/a=3":                `"election/a=3" needs a name of lower-case letters, digits, dashes and dots, with a letter or digit at both ends`,
		"variable/":                   `"variable/": a variable needs a name of lower-case letters, digits, dashes and dots, with a letter or digit at both ends`,
		"variable/a=3":                `"variable/a=3": a variable needs a name of lower-case letters, digits, dashes and dots, with a letter or digit at both ends`,
		"election/":                   `"election/" needs a name of lower-case letters, digits, dashes and dots, with a letter or digit at both ends`,
		"semaphore/a=1,semaphore/a=2": `semaphore/a=1 and semaphore/a=2 are one claim with two sizes: remove one of the two`,
		"lock/a,lock/b,lock/c,lock/d,lock/e,lock/f,lock/g,lock/h,lock/i": `name at most 8 claims`,
		strings.Repeat("lock/a,", 586) + "lock/a":                        `write at most 4096 characters`,
	}
	for value, want := range tests {
		_, err := Parse(map[string]string{LocalAnnotation: value})
		require.ErrorContains(t, err, `metaparticle.io/api is "`)
		require.ErrorContains(t, err, `": `+want)
	}
}

// idle is the problem of a setting of gates in a pod with the local API.
const idle = " has no effect with metaparticle.io/api, because the program itself asks for its slots: remove it"

func TestParseRefusesGateAnnotationsBesideLocalAPIAnnotation(t *testing.T) {
	tests := []struct{ key, value, want string }{
		{SingletonAnnotation, "true", `metaparticle.io/api cannot be in one pod with metaparticle.io/singleton: remove one of the two`},
		{SingletonAnnotation, "false", ""},
		{LockAnnotation, "a", `metaparticle.io/api cannot be in one pod with metaparticle.io/lock: remove one of the two`},
		{SemaphoreAnnotation, "a=3", `metaparticle.io/api cannot be in one pod with metaparticle.io/semaphore: remove one of the two`},
		{OnceAnnotation, "a=3", `metaparticle.io/api cannot be in one pod with metaparticle.io/once: remove one of the two`},
		{OnceAnnotation, "false", ""},
		{ContainersAnnotation, "a", ContainersAnnotation + idle},
		{OnLossAnnotation, "restart", OnLossAnnotation + idle},
		{OnBusyAnnotation, "wait", OnBusyAnnotation + idle},
		{WaitAtMostAnnotation, "1m", WaitAtMostAnnotation + idle},
		{ReadinessAnnotation, "holder", ReadinessAnnotation + idle},
		{ReadinessAnnotation, "forward", ReadinessAnnotation + idle},
		{EndpointDelayAnnotation, "1s", EndpointDelayAnnotation + idle},
		{GateAnnotation, "container", GateAnnotation + idle},
		{GateAnnotation, "readiness", GateAnnotation + idle},
		{OnAPILossAnnotation, "kill", ""},
		{OnAPILossAnnotation, "tell", ""},
		{OnAPILossAnnotation, "stop", `metaparticle.io/on-api-loss is "stop": write "tell" or "kill"`},
		{InjectAnnotation, "false", `metaparticle.io/inject is "false", but metaparticle.io/api claims a slot: remove one of the two`},
	}
	for _, test := range tests {
		_, err := Parse(map[string]string{LocalAnnotation: "lock/a,semaphore/b=2", test.key: test.value})
		if test.want == "" {
			assert.NoError(t, err, test.key)
			continue
		}
		assert.EqualError(t, err, test.want)
	}
}

func TestAPILossAnnotationRequiresTheLocalAPI(t *testing.T) {
	_, err := Parse(map[string]string{LockAnnotation: "a", OnAPILossAnnotation: "kill"})
	require.EqualError(t, err, "metaparticle.io/on-api-loss has no effect without metaparticle.io/api: add that annotation, or remove this one")
	_, err = Parse(map[string]string{OnAPILossAnnotation: "kill"})
	require.ErrorContains(t, err, "has no effect without a claim")
	told, err := Parse(map[string]string{LocalAnnotation: "lock/a", OnAPILossAnnotation: "tell"})
	require.NoError(t, err)
	assert.False(t, HasShims(told))
	killed, err := Parse(map[string]string{LocalAnnotation: "lock/a", OnAPILossAnnotation: "kill"})
	require.NoError(t, err)
	assert.True(t, Leashed(killed) && HasShims(killed) && !killed.Shims())
}

func TestGatesWithoutShimsMakeOnlyTheHolderReady(t *testing.T) {
	assert.Equal(t, ReadinessForward, Request{}.Standbys())
	assert.Equal(t, ReadinessForward, Request{Gate: GateContainer}.Standbys())
	assert.Equal(t, ReadinessHolder, Request{Settings: Settings{Readiness: ReadinessHolder}}.Standbys())
	assert.Equal(t, ReadinessHolder, Request{Gate: GatePod}.Standbys())
	assert.Equal(t, ReadinessHolder, Request{Gate: GateReadiness}.Standbys())
}

func TestParseReportsAllMistakesSortedByAnnotation(t *testing.T) {
	_, err := Parse(map[string]string{
		LockAnnotation:          "A",
		OnLossAnnotation:        "x",
		Prefix + "unknown":      "3",
		LeaseDurationAnnotation: "30",
	})
	var mistakes Mistakes
	require.ErrorAs(t, err, &mistakes)
	var keys []string
	for _, m := range mistakes {
		keys = append(keys, m.Key)
	}
	assert.Equal(t, []string{LeaseDurationAnnotation, LockAnnotation, OnLossAnnotation, Prefix + "unknown"}, keys)
}

func TestMisspelledClaimIsReportedAsASingleMistake(t *testing.T) {
	_, err := Parse(map[string]string{Prefix + "singelton": "true", OnLossAnnotation: "restart"})
	require.EqualError(t, err, "metaparticle.io/singelton is not known: did you mean metaparticle.io/singleton?")
}

func TestErrorCutsLongAnnotationValues(t *testing.T) {
	_, err := Parse(map[string]string{OnLossAnnotation: strings.Repeat("ä", 10_000), LockAnnotation: "a"})
	require.Error(t, err)
	assert.Less(t, len(err.Error()), 300)
}

func TestParseRefusesMoreThan32Locks(t *testing.T) {
	var names []string
	for i := range 33 {
		names = append(names, strings.Repeat("a", i+1))
	}
	_, err := Parse(map[string]string{LockAnnotation: strings.Join(names, ",")})
	require.ErrorContains(t, err, "name at most 32")
	_, err = Parse(map[string]string{LockAnnotation: strings.Join(names[1:], ",")})
	require.NoError(t, err)
}

func FuzzParseReturnsValidRequestsOrMistakes(f *testing.F) {
	for _, a := range Annotations {
		for _, value := range append([]string{"true", "false", "a,b", "30s", "30", "", "standby", "holder"}, a.Examples...) {
			f.Add(a.Key, value, SingletonAnnotation, "true")
			f.Add(a.Key, value, LocalAnnotation, "lock/a, election/main,semaphore/pool=3")
		}
	}
	f.Add(Prefix+"x", "", LockAnnotation, "a.b,c")
	f.Fuzz(func(t *testing.T, key, value, key2, value2 string) {
		annotations := map[string]string{key: value, key2: value2}
		got, err := Parse(annotations)
		if err != nil {
			var mistakes Mistakes
			if !errors.As(err, &mistakes) || len(mistakes) == 0 {
				t.Fatalf("error %T without mistakes", err)
			}
			for _, m := range mistakes {
				if _, ok := annotations[m.Key]; !ok || !strings.HasPrefix(m.Key, Prefix) || m.Problem == "" {
					t.Fatalf("mistake %+v", m)
				}
			}
			return
		}
		if got.OptOut && got.Claims() {
			t.Fatal("opted out and claims")
		}
		if got.LeaseDuration != 0 {
			if _, err := NewBudget(got.LeaseDuration); err != nil {
				t.Fatal(err)
			}
		}
		if (got.Gate == GateProgram) != (got.Claims() && annotations[LocalAnnotation] != "") {
			t.Fatalf("gate %q", got.Gate)
		}
		slots := got.Slots(Workload{Group: "apps", Kind: "Deployment", Name: strings.Repeat("n", 253)})
		if !slices.IsSorted(slots) || len(slices.Compact(slices.Clone(slots))) != len(slots) {
			t.Fatalf("slots %q", slots)
		}
		for _, slot := range slots {
			if len(slot) > 253 || !isSubdomain(slot) || !IsSlot(slot) {
				t.Fatalf("slot %q", slot)
			}
		}
	})
}

func TestTemplateAnnotationPrevailsOverWorkloadAnnotation(t *testing.T) {
	workload := map[string]string{
		LockAnnotation: "theirs", OnLossAnnotation: "restart", Prefix + "unheard-of": "x",
		SlotsAnnotation: "forged", "example.com/own": "stays there",
	}
	template := map[string]string{LockAnnotation: "its own", "example.com/other": "y"}
	assert.Equal(t, map[string]string{
		LockAnnotation: "its own", OnLossAnnotation: "restart", Prefix + "unheard-of": "x", "example.com/other": "y",
	}, Effective(workload, template))
	assert.Empty(t, Effective(nil, nil))
}

func TestRestIsWhatTheAnnotationsAskForApartFromMistakes(t *testing.T) {
	for name, c := range map[string]struct {
		annotations map[string]string
		// rest are annotations with the same request; nil if the rest is unknown.
		rest map[string]string
	}{
		"setting": {
			map[string]string{SingletonAnnotation: "true", LeaseDurationAnnotation: "30", OnLossAnnotation: "restart"},
			map[string]string{SingletonAnnotation: "true", OnLossAnnotation: "restart"},
		},
		"misspelt claim": {
			map[string]string{Prefix + "singelton": "writer"}, map[string]string{SingletonAnnotation: "writer"},
		},
		"misspelt claim with a wrong value": {
			map[string]string{Prefix + "singelton": "yes"}, map[string]string{SingletonAnnotation: "true"},
		},
		"misspelt setting": {
			map[string]string{LockAnnotation: "a", Prefix + "gatee": "pod"}, map[string]string{LockAnnotation: "a", GateAnnotation: "pod"},
		},
		"unknown key": {map[string]string{LockAnnotation: "a", Prefix + "colour": "red"}, map[string]string{LockAnnotation: "a"}},
		"wrong claim": {
			map[string]string{SemaphoreAnnotation: "pool"}, map[string]string{SemaphoreAnnotation: "pool=3"},
		},
		"wrong gate":           {map[string]string{LockAnnotation: "a", GateAnnotation: "pdo"}, nil},
		"misspelt, wrong gate": {map[string]string{LockAnnotation: "a", Prefix + "gat": "pdo"}, nil},
		"wrong containers":     {map[string]string{LockAnnotation: "a", ContainersAnnotation: "A b"}, nil},
		"wrong work":           {map[string]string{OnceAnnotation: "maybe"}, nil},
		"contradiction":        {map[string]string{LockAnnotation: "a", SemaphoreAnnotation: "pool=3"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Parse(c.annotations)
			mistakes, ok := errors.AsType[Mistakes](err)
			require.True(t, ok)
			got, known := mistakes.Rest(c.annotations)
			assert.Equal(t, c.rest != nil, known)
			if c.rest == nil {
				assert.False(t, got.Injects())
				return
			}
			want, err := Parse(c.rest)
			require.NoError(t, err)
			assert.Equal(t, want, got)
		})
	}
}
