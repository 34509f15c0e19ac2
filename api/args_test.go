// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"errors"
	"flag"
	"math"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// expand expands words as the kubelet expands the command and the arguments of a container.
// Two dollars become one, and a reference to an environment variable becomes its value.
func expand(words []string, variables map[string]string) []string {
	var out []string
	for _, word := range words {
		out = append(out, regexp.MustCompile(`\$\$|\$\([^)]*\)`).ReplaceAllStringFunc(word, func(found string) string {
			value, known := variables[strings.Trim(found, "$()")]
			switch {
			case found == "$$":
				return "$"
			case known:
				return value
			}
			return found
		}))
	}
	return out
}

// source draws random values for the arguments of a role. Most arguments keep their
// defaults. The texts consist of characters that the flag package, JSON and the kubelet
// treat in a special way.
type source struct{ *rand.Rand }

func (s source) some() bool { return s.IntN(3) == 0 }

func (s source) text() string {
	parts := []string{"a", "b-c", "$", "$$", "$(HOME)", "$(", ")", " ", "\n", `"`, `\`, "<", "=", "--", "-x", "ä", "\u2028"}
	var b strings.Builder
	for range 1 + s.IntN(4) {
		b.WriteString(parts[s.IntN(len(parts))])
	}
	return b.String()
}

func (s source) texts() []string {
	var all []string
	for s.some() {
		all = append(all, s.text())
	}
	return all
}

func (s source) stamp() string {
	return strings.Repeat([]string{"a", "Z", "9", "-", "."}[s.IntN(5)], 1+s.IntN(maxLabel))
}

func (s source) duration() time.Duration { return time.Duration(s.Int64N(int64(2 * time.Hour))) }

func (s source) handler() Handler {
	switch s.IntN(4) {
	case 0:
		return Handler{Exec: &ExecAction{Command: s.texts()}}
	case 1:
		get := &HTTPGetAction{Path: s.text(), Port: s.IntN(70000)}
		if s.some() {
			get.HTTPHeaders = []HTTPHeader{{Name: s.text(), Value: s.text()}}
		}
		return Handler{HTTPGet: get}
	case 2:
		return Handler{TCPSocket: &TCPSocketAction{Port: s.IntN(70000), Host: s.text()}}
	}
	return Handler{Sleep: &SleepAction{Seconds: s.Int64()}}
}

func (s source) probe() *Probe {
	if !s.some() {
		return nil
	}
	return &Probe{Handler: s.handler(), PeriodSeconds: s.IntN(100), TimeoutSeconds: s.IntN(100)}
}

func (s source) hook() *Handler {
	if !s.some() {
		return nil
	}
	h := s.handler()
	return &h
}

func (s source) run() RunArgs {
	r := DefaultRunArgs()
	r.Slots, r.Containers, r.InitContainers = s.texts(), s.texts(), s.texts()
	r.LeaseDuration, r.Grace, r.EndpointDelay = s.duration(), s.duration(), s.duration()
	r.Workload = strings.ReplaceAll(s.text(), "$", "")
	if s.some() {
		r.Revision = Revision{Workload: s.stamp(), Number: 1 + s.Int64N(math.MaxInt64), Hash: s.stamp()}
	}
	r.Readiness = []Readiness{ReadinessForward, ReadinessHolder}[s.IntN(2)]
	r.Gate = []Gate{GateContainer, GatePod, GateReadiness}[s.IntN(3)]
	if s.some() {
		r.Failsafe = Failsafe{Outage: minFailsafe + s.duration()%time.Minute, Alone: s.some()}
		r.YieldAfter, r.Prefer = s.duration(), Preference{Key: "a.b/" + strings.Repeat("C", 1+s.IntN(maxLabel)), Value: strings.Repeat("9", 1+s.IntN(maxLabel))}
	}
	r.Any, r.OwnKernel, r.ReplacesUnready = s.some(), s.some(), s.some()
	for _, field := range []*string{&r.Install, &r.Listen, &r.RunDir, &r.Credentials} {
		if s.some() {
			*field = s.text()
		} else if s.some() {
			*field = ""
		}
	}
	for s.some() {
		r.Ports = append(r.Ports, Port{Number: 1 + s.IntN(65535), UDP: s.some(), Probed: s.some()})
	}
	for s.some() {
		if r.Probes == nil {
			r.Probes = map[string]Probes{}
		}
		r.Probes[s.text()] = Probes{Startup: s.probe(), Readiness: s.probe(), Liveness: s.probe()}
	}
	return r
}

func (s source) exec() ExecArgs {
	e := DefaultExecArgs()
	e.Container, e.PostStart, e.PreStop = s.text(), s.hook(), s.hook()
	e.OnLoss = []OnLoss{OnLossStandby, OnLossRestart, OnLossEnd}[s.IntN(3)]
	for _, field := range []*string{&e.StopSignal, &e.Socket} {
		if s.some() {
			*field = s.text()
		}
	}
	if s.some() {
		e.Grace = s.duration()
	}
	for s.some() {
		if e.Platforms == nil {
			e.Platforms = Platforms{}
		}
		e.Platforms[s.text()] = PlatformCommand{Command: append(s.texts(), "x"), StopSignal: s.text()}
	}
	return e
}

func FuzzRunArgsSurviveARoundTrip(f *testing.F) {
	for seed := range uint64(200) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, seed uint64) {
		r := source{rand.New(rand.NewPCG(seed, 0))}.run()
		words := r.Args()
		require.Equal(t, RunRole, words[0])
		read, err := ParseRunArgs(expand(words[1:], nil))
		require.NoError(t, err)
		require.Equal(t, r, read)
		require.Equal(t, r, RecallRunArgs(words))
		require.Equal(t, r.Gate == GateReadiness, slices.Contains(words, ReadinessGateArg))
	})
}

// local draws random arguments with up to eight claims.
func (s source) local(t *testing.T) LocalArgs {
	a := DefaultLocalArgs()
	var texts []string
	for range 1 + s.IntN(maxLocal) {
		name := []string{"a", "b", "a.b", "1-c"}[s.IntN(4)]
		texts = append(texts, []string{"lock/" + name, "election/" + name, "semaphore/" + name + "=3", "variable/" + name, "rwlock/" + name + "=3", "barrier/" + name + "=3"}[s.IntN(6)])
	}
	claims, problem := parseLocals(strings.Join(texts, ", "))
	require.Empty(t, problem)
	a.Claims, a.OwnKernel = claims, s.some()
	if len(a.Barriers()) > 0 {
		a.Run = someRun
	}
	a.LeaseDuration = time.Duration(10+s.IntN(3591)) * time.Second
	if s.some() {
		a.Port, a.Credentials = 1+s.IntN(math.MaxUint16), s.text()
	}
	return a
}

func FuzzLocalAPIArgsSurviveARoundTrip(f *testing.F) {
	for seed := range uint64(200) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, seed uint64) {
		a := source{rand.New(rand.NewPCG(seed, 0))}.local(t)
		words := a.Args()
		require.True(t, IsLocal(words))
		read, err := ParseLocalArgs(expand(words[1:], nil))
		require.NoError(t, err)
		require.Equal(t, a, read)
		require.Equal(t, a, RecallLocalArgs(words))
	})
}

func FuzzExecArgsSurviveARoundTrip(f *testing.F) {
	for seed := range uint64(200) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, seed uint64) {
		s := source{rand.New(rand.NewPCG(seed, 0))}
		e, child := s.exec(), append(s.texts(), "--", "x")
		words := e.Args()
		require.True(t, IsShim(append([]string{ShimProgram}, words...)))
		read, rest, err := ParseExecArgs(append(expand(words[1:], nil), child...))
		require.NoError(t, err)
		require.Equal(t, e, read)
		require.Equal(t, child, rest)
		require.Equal(t, e, RecallExecArgs(words))
	})
}

func FuzzProbeArgsSurviveARoundTrip(f *testing.F) {
	f.Add("app", true, "/x")
	f.Add("$(x)", false, "")
	f.Fuzz(func(t *testing.T, container string, live bool, socket string) {
		p := ProbeArgs{Probe: ReadinessProbe, Container: container, Socket: socket}
		if live {
			p.Probe = LivenessProbe
		}
		words := append(expand(p.Args(), nil), "--", "check")
		if p.Socket == "" {
			p.Socket = ProbeSocket
		}
		read, command, err := ParseProbeArgs(words[1:])
		if container == "" {
			require.Error(t, err)
			return
		}
		require.NoError(t, err)
		require.Equal(t, p, read)
		require.Equal(t, []string{"check"}, command)
	})
}

// The webhook of one version may write arguments for the agent of another version.
func TestAgentRunArgsStayTheSameAcrossVersions(t *testing.T) {
	r := DefaultRunArgs()
	assert.Equal(t, []string{
		"run", "-slots=", "-lease-duration=30s", "-readiness=forward", "-grace=30s", "-containers=", "-workload=",
	}, r.Args())
	r.Slots, r.Containers, r.InitContainers = []string{"lock.a", "lock.b"}, []string{"app", "helper"}, []string{"migrate"}
	r.Revision = Revision{Workload: "0b9e-1", Number: 7, Hash: "5d4f"}
	r.MinReady = 20 * time.Second
	r.Workload, r.Install, r.Ports, r.Listen, r.OwnKernel = "Pod/$("+PodNameEnv+")", ShimProgram, Ports{{Number: 80}, {Number: 80, UDP: true}, {Number: 6379, Probed: true}}, "", true
	r.EndpointDelay, r.YieldAfter, r.Prefer = 0, time.Minute, Preference{"topology.kubernetes.io/zone", "zone-a"}
	r.Probes = map[string]Probes{"app": {Startup: &Probe{Handler: Handler{Exec: &ExecAction{Command: []string{"$(X)"}}}}}}
	assert.Equal(t, []string{
		"run", "-slots=lock.a,lock.b", "-lease-duration=30s", "-readiness=forward", "-grace=30s", "-containers=app,helper",
		"-workload=Pod/$(METAPARTICLE_POD_NAME)", "-revision=0b9e-1/7/5d4f", "-min-ready=20s", "-init-containers=migrate", "-install=/metaparticle/bin/agent", "-ports=80,80/udp,6379?",
		"-endpoint-delay=0s", "-yield-after=1m0s", "-prefer=topology.kubernetes.io/zone=zone-a",
		`-probes={"app":{"startup":{"exec":{"command":["$$(X)"]},"timeoutSeconds":0,"periodSeconds":0,"successThreshold":0,"failureThreshold":0}}}`,
		"-listen=", "-own-kernel",
	}, r.Args())
	read, err := ParseRunArgs(expand(r.Args()[1:], map[string]string{PodNameEnv: "solo"}))
	require.NoError(t, err)
	assert.Equal(t, "Pod/solo", read.Workload)
}

// The policy on gates also reads these arguments.
func TestLocalAPIArgsStayTheSameAcrossVersions(t *testing.T) {
	a := DefaultLocalArgs()
	a.Claims, _ = parseLocals("semaphore/pool=3, lock/a,election/main")
	assert.Equal(t, []string{"api", "-claims=election/main,lock/a,semaphore/pool=3", "-lease-duration=30s"}, a.Args())
	a.LeaseDuration, a.OwnKernel, a.Port, a.Credentials = time.Hour, true, 4711, "/x"
	assert.Equal(t, []string{
		"api", "-claims=election/main,lock/a,semaphore/pool=3", "-lease-duration=1h0m0s", "-own-kernel", "-port=4711", "-credentials=/x",
	}, a.Args())
	a = DefaultLocalArgs()
	a.Claims, _ = parseLocals("lock/a")
	a.Containers = []string{"app", "helper"}
	assert.Equal(t, []string{"api", "-claims=lock/a", "-lease-duration=30s", "-containers=app,helper"}, a.Args())
}

func TestMistakesInLocalAPIArgumentsAreReported(t *testing.T) {
	for _, words := range [][]string{
		nil, {"-claims="}, {"-claims=lock/a,x"}, {"-claims=lock/a", "-lease-duration=1"}, {"-claims=lock/a", "-port=70000"},
		{"-claims=lock/a", "-later"}, {"-claims=lock/a", "rest"},
	} {
		_, err := ParseLocalArgs(words)
		assert.ErrorContains(t, err, "agent api: ", words)
	}
	for _, words := range [][]string{nil, {}, {"run", "-claims=lock/a"}, {"-claims=lock/a"}} {
		assert.False(t, IsLocal(words))
		assert.Equal(t, DefaultLocalArgs(), RecallLocalArgs(words))
	}
}

func TestExecArgsStayTheSameAcrossVersions(t *testing.T) {
	e := DefaultExecArgs()
	e.Container = "app"
	assert.Equal(t, []string{"exec", "-container=app", "-on-loss=standby", "--"}, e.Args())
	e.OnLoss, e.StopSignal, e.Grace = OnLossEnd, "SIGQUIT", 5*time.Second
	e.Platforms = Platforms{"arm": {Command: []string{"$x"}}}
	e.PreStop = &Handler{Exec: &ExecAction{Command: []string{"sh", "-c", "a <b >$c"}}}
	assert.Equal(t, []string{
		"exec", "-container=app", "-on-loss=end", "-stop-signal=SIGQUIT", `-platforms={"arm":{"command":["$$x"]}}`,
		`-pre-stop={"exec":{"command":["sh","-c","a <b >$$c"]}}`, "-grace=5s", "--",
	}, e.Args())
}

// A person may write flags in any spelling that the flag package accepts.
func TestParseAcceptsEverySpellingOfAFlag(t *testing.T) {
	r, err := ParseRunArgs([]string{"--slots", "a,b", "-own-kernel=true", "--gate=pod"})
	require.NoError(t, err)
	assert.Equal(t, []string{"a", "b"}, r.Slots)
	assert.Equal(t, GatePod, r.Gate)
	assert.True(t, r.OwnKernel)
	e, child, err := ParseExecArgs([]string{"-container", "app", "serve", "-x"})
	require.NoError(t, err)
	assert.Equal(t, "app", e.Container)
	assert.Equal(t, []string{"serve", "-x"}, child)
}

func TestInvalidArgumentsOfTheAgentAreRefused(t *testing.T) {
	for _, word := range []string{
		"-ports=0", "-ports=x", "-ports=70000", "-readiness=maybe", "-gate=garden", "-lease-duration=soon", "-probes={", "-own-kernel=x", "-revision=7", "-prefer=x", "-unheard-of", "more",
	} {
		_, err := ParseRunArgs([]string{"-slots=a", word})
		assert.ErrorContains(t, err, "agent run: ", word)
	}
	for _, word := range []string{"-on-loss=die", "-platforms={", "-post-start={", "-pre-stop=x", "-grace=soon", "-unheard-of"} {
		_, _, err := ParseExecArgs([]string{word})
		assert.ErrorContains(t, err, "agent exec: ", word)
	}
	for _, words := range [][]string{nil, {"startup", "-container=app"}, {"liveness"}, {"liveness", "-container=app", "-x"}} {
		_, _, err := ParseProbeArgs(words)
		assert.Error(t, err, "%q", words)
	}
}

func TestAgentRunHelpShowsEveryArgument(t *testing.T) {
	_, err := ParseRunArgs([]string{"-h"})
	require.True(t, errors.Is(err, flag.ErrHelp))
	for _, a := range runArguments {
		assert.ErrorContains(t, err, "-"+a.name)
		assert.ErrorContains(t, err, a.meaning)
	}
}

// A webhook reads back arguments that the webhook of a later version may have written.
func TestWebhookReadsArgumentsThatANewerVersionWrote(t *testing.T) {
	r := RecallRunArgs([]string{"run", "-slots=lock.a", "-later=x", "-own-kernel", "-ports=x", "-probes={", "-revision=a/x/b", "-listen", "--gate=pod", "gate=pod"})
	want := DefaultRunArgs()
	want.Slots, want.OwnKernel = []string{"lock.a"}, true
	assert.Equal(t, want, r)
	e := RecallExecArgs([]string{ShimProgram, "exec", "-container=a", "-pre-stop=", "-later", "-stop-signal=3"})
	assert.Equal(t, "3", e.StopSignal)
	assert.Nil(t, e.PreStop)
}

func TestFirstTwoWordsOfCommandIdentifyAShim(t *testing.T) {
	for _, test := range []struct {
		command []string
		want    bool
	}{
		{[]string{ShimProgram, ExecRole}, true},
		{[]string{ShimProgram, ExecRole, "-container=app", "--"}, true},
		{[]string{ShimProgram}, false},
		{[]string{ShimProgram, HandleRole}, false},
		{[]string{AgentProgram, ExecRole}, false},
		{[]string{"tini", ShimProgram, ExecRole}, false},
		{nil, false},
	} {
		assert.Equal(t, test.want, IsShim(test.command), "%q", test.command)
	}
}
