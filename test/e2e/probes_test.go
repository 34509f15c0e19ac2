// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/metaparticle-io/metaparticle/api"
)

// eagerly is a probe once a second; the first failure counts. What takes as long as
// a machine may stall, 3 s, is none.
func eagerly(handler corev1.ProbeHandler, change ...func(*corev1.Probe)) *corev1.Probe {
	p := &corev1.Probe{ProbeHandler: handler, PeriodSeconds: 1, TimeoutSeconds: 5, FailureThreshold: 1}
	for _, f := range change {
		f(p)
	}
	return p
}

func thrice(p *corev1.Probe) { p.FailureThreshold = 3 }

func byHTTP(name string) corev1.ProbeHandler {
	return corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/health/" + name, Port: intstr.FromString("http")}}
}

func byExec(name string) corev1.ProbeHandler {
	return corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"/app", "-check", name}}}
}

func byTCP(port int32) corev1.ProbeHandler {
	return corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromInt32(port)}}
}

func byGRPC(service string) corev1.ProbeHandler {
	return corev1.ProbeHandler{GRPC: &corev1.GRPCAction{Port: 9000, Service: &service}}
}

// probed gives the application probes; nil is none.
func probed(startup, readiness, liveness *corev1.Probe) func(*corev1.PodTemplateSpec) {
	return func(t *corev1.PodTemplateSpec) {
		c := &t.Spec.Containers[0]
		c.StartupProbe, c.ReadinessProbe, c.LivenessProbe = startup, readiness, liveness
	}
}

// set makes the application answer a probe with a code.
func (s *space) set(pod *corev1.Pod, probe string, code int) {
	s.Helper()
	_, err := s.client.CoreV1().Pods(s.name).ProxyGet("http", pod.Name, "8080", "set",
		map[string]string{"probe": probe, "code": strconv.Itoa(code)}).DoRaw(s.Context())
	require.NoError(s, err)
}

// twins are the pods of a pair, once both are Ready and answer.
func (s *space) twins(name string, edit func(*corev1.PodTemplateSpec), args ...string) (plain, gated *corev1.Pod) {
	s.Helper()
	asItIs, annotated := s.pair(name, edit, args...)
	pod := func(a app) (found *corev1.Pod) {
		s.await(startTimeout, a.name+" is Ready", func() bool {
			pods := s.all(a.name)
			// Without a readiness probe it is Ready before it listens.
			if len(pods) == 1 && ready(pods[0]) && s.ask(pods[0]) == pods[0].Name {
				found = pods[0]
			}
			return found != nil
		})
		return found
	}
	return pod(asItIs), pod(annotated)
}

// A slow application behind a startup probe that is shorter than what a standby
// has stood by for: each start of it counts anew, in the same container too.
//
// compat: probes/startup-http probes/readiness-http probes/liveness-http probes/named-port probes/startup-anew probes/standby carried
func TestProbesOfEachStartCountAnew(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	a := lasting("slow")
	a.replicas, a.args = 2, []string{"-start-delay=6s"}
	const allowed = 15 // seconds, more than twice the delay
	a.edit = probed(
		eagerly(byHTTP("start"), func(p *corev1.Probe) { p.FailureThreshold = allowed }),
		// One that was sent on in the instant of a yield meets a child that stops.
		eagerly(byHTTP("ready")), eagerly(byHTTP("live"), thrice))
	s.create(a)
	s.awaitGated(a)
	s.await(startTimeout, "both Ready", func() bool {
		pods := s.all(a.name)
		return len(pods) == 2 && ready(pods[0]) && ready(pods[1])
	})
	standby := s.awaitStandby(a)
	s.never((allowed+5)*time.Second, "a standby that fails", func() bool {
		return len(s.said(standby, "Unhealthy")) > 0 || s.restarted(standby) > 0
	})
	first := s.awaitHolder(deploymentSlot(a.name))

	for range 2 {
		began := time.Now()
		holder, _ := s.yields(a)
		s.await(soon, "not Ready while it starts", func() bool { return !ready(s.pod(holder.Name)) })
		s.await(startTimeout, "Ready when it has started", func() bool { return ready(s.pod(holder.Name)) })
		assert.Greater(t, time.Since(began), 5*time.Second)
		s.await(startTimeout, "the other one stands by, Ready", func() bool {
			other := s.standby(a)
			return other != nil && ready(other)
		})
	}
	assert.Equal(t, first.UID, s.awaitHolder(deploymentSlot(a.name)).UID, "there and back")
	assert.Zero(t, s.restarts(a))
	for _, pod := range s.all(a.name) {
		for _, message := range s.said(pod, "Unhealthy") {
			// One that was sent on in the instant of a yield may meet a child that stops.
			assert.Regexp(t, "dial tcp IP:8080: connect: connection refused|: EOF$|connection reset by peer", message)
		}
	}
}

// compat: probes/liveness-exec probes/liveness-http probes/message lifecycle/grace-of-probe lifecycle/ignores-term carried
func TestALivenessProbeThatFailsRestartsTheContainerAsWithoutUs(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	for name, tt := range map[string]struct {
		handler corev1.ProbeHandler
		code    int
		message string
	}{
		"status":  {byHTTP("live"), 500, "Liveness probe failed: HTTP probe failed with statuscode: 500"},
		"silence": {byHTTP("live"), 0, `Liveness probe failed: Get "http://IP:8080/health/live": context deadline exceeded (Client.Timeout exceeded while awaiting headers)`},
		"command": {byExec("live"), 500, "Liveness probe failed: live is 500\n"},
	} {
		grace := int64(3)
		edit := probed(nil, nil, eagerly(tt.handler, thrice, func(p *corev1.Probe) {
			p.TerminationGracePeriodSeconds = &grace
			if tt.code == 0 {
				p.TimeoutSeconds = 1
			}
		}))
		plain, gated := s.twins(name, edit, "-ignore-term")
		began := time.Now()
		for _, pod := range []*corev1.Pod{plain, gated} {
			s.set(pod, "live", tt.code)
		}
		for _, pod := range []*corev1.Pod{plain, gated} {
			var last *corev1.ContainerStateTerminated
			s.await(startTimeout, "restarted: "+pod.Name, func() bool {
				last = s.lastEnd(pod)
				return last != nil && s.restarted(pod) == 1
			})
			assert.Equal(t, int32(137), last.ExitCode, "the probe's own grace was too short for it")
			assert.Less(t, last.FinishedAt.Sub(began), 30*time.Second, "that of the pod would have been longer")
		}
		s.within(soon, func() bool { // Events come beside the status
			return slices.Equal([]string{tt.message}, s.unhealthy(plain)) &&
				slices.Equal(s.unhealthy(plain), s.unhealthy(gated)) &&
				slices.Equal(s.said(plain, "Killing"), s.said(gated, "Killing"))
		})
		assert.Equal(t, []string{tt.message}, s.unhealthy(plain))
		assert.Equal(t, s.unhealthy(plain), s.unhealthy(gated))
		assert.Equal(t, s.said(plain, "Killing"), s.said(gated, "Killing"))
	}
}

// compat: probes/startup-exec probes/message lifecycle/exit-codes carried
func TestAStartupProbeThatFailsRestartsTheContainerAsWithoutUs(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	// It never serves.
	edit := probed(eagerly(byExec("start"), thrice), nil, nil)
	one := lasting("late")
	one.replicas, one.edit, one.args = 1, edit, []string{"-start-delay=1h", "-stop-code=9"}
	other := app{name: "late-plain", replicas: 1, edit: edit, args: one.args}
	messages := map[string][]string{}
	for _, a := range []app{other, one} {
		s.create(a)
	}
	for _, a := range []app{other, one} {
		s.await(startTimeout, a.name+" is restarted", func() bool {
			pods := s.all(a.name)
			return len(pods) == 1 && s.restarted(pods[0]) >= 1
		})
		pod := s.all(a.name)[0]
		s.endsWith(pod, 9, a.name+" was asked to stop")
		s.await(soon, "it is said", func() bool {
			return len(s.said(pod, "Unhealthy")) > 0 && len(s.said(pod, "Killing")) > 0
		})
		messages[a.name] = slices.Compact(append(s.said(pod, "Unhealthy"), s.said(pod, "Killing")...))
		assert.False(t, ready(pod))
	}
	assert.Equal(t, messages[other.name], messages[one.name])
}

// What the command says reaches the Event unchanged; what the application is
// not, its standbys are not either.
//
// compat: probes/readiness-exec probes/message probes/standby carried
func TestAHolderThatIsNotReadyTakesItsStandbysWithIt(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	a := lasting("moody")
	a.replicas = 2
	a.edit = probed(nil, eagerly(byExec("ready")), nil)
	s.create(a)
	both := func(want bool) func() bool {
		return func() bool {
			pods := s.all(a.name)
			return len(pods) == 2 && ready(pods[0]) == want && ready(pods[1]) == want
		}
	}
	s.await(startTimeout, "both Ready", both(true))
	holder, standby := s.awaitHolder(deploymentSlot(a.name)), s.awaitStandby(a)
	s.set(holder, "ready", 503)
	s.await(startTimeout, "the holder says so", func() bool { return !ready(s.pod(holder.Name)) })
	s.await(startTimeout, "the Lease says so", func() bool {
		return s.lease(deploymentSlot(a.name)).Annotations[api.ServingAnnotation] == ""
	})
	s.await(startTimeout, "none Ready", both(false))
	s.within(soon, func() bool { return len(s.unhealthy(holder)) > 0 }) // Events come beside the status
	assert.Equal(t, []string{"Readiness probe failed: ready is 503\n"}, s.unhealthy(holder))
	assert.Empty(t, s.unhealthy(standby))
	assert.Zero(t, s.restarts(a))
	assert.Equal(t, holder.UID, s.awaitHolder(deploymentSlot(a.name)).UID, "not Ready is not dead")
	s.set(holder, "ready", 200)
	s.await(startTimeout, "both Ready again", both(true))
}

// ofKind are the probes of one kind: startup, readiness and liveness.
type ofKind struct {
	startup, readiness, liveness corev1.ProbeHandler
	args                         []string
}

// host makes a probe by HTTP ask for a virtual host, which the application
// then insists on.
func host(h corev1.ProbeHandler) corev1.ProbeHandler {
	h.HTTPGet.Path += "?host=shop.example"
	h.HTTPGet.HTTPHeaders = []corev1.HTTPHeader{{Name: "Host", Value: "shop.example"}}
	return h
}

func byHTTPS(name string) corev1.ProbeHandler {
	h := byHTTP(name)
	h.HTTPGet.Scheme, h.HTTPGet.Port = corev1.URISchemeHTTPS, intstr.FromInt32(9443)
	return h
}

// Each kind of each probe: it holds the start back, takes the pod out of its
// Services and restarts the container as it does without us, and says the same.
//
// compat: probes/liveness-exec probes/liveness-http probes/liveness-tcp probes/liveness-grpc carried
// compat: probes/readiness-exec probes/readiness-http probes/readiness-tcp probes/readiness-grpc carried
// compat: probes/startup-exec probes/startup-http probes/startup-tcp probes/startup-grpc carried
// compat: probes/named-port probes/headers probes/https probes/timings probes/message carried
func TestProbesOfEachKindAreTheApplications(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	for name, tt := range map[string]ofKind{
		"exec":  {byExec("start"), byExec("ready"), byExec("live"), nil},
		"http":  {byHTTP("start"), host(byHTTP("ready")), host(byHTTP("live")), nil},
		"https": {host(byHTTPS("start")), host(byHTTPS("ready")), host(byHTTPS("live")), []string{"-https=:9443"}},
		"tcp": {byTCP(9001), byTCP(9002), byTCP(9003),
			[]string{"-tcp=start=:9001,ready=:9002,live=:9003"}},
		"grpc": {byGRPC("start"), byGRPC("ready"), byGRPC("live"), []string{"-grpc=:9000"}},
	} {
		edit := probed(eagerly(tt.startup, func(p *corev1.Probe) { p.FailureThreshold = 30 }),
			eagerly(tt.readiness), eagerly(tt.liveness, thrice))
		plain, gated := s.twins(name, edit, append(tt.args, "-start-delay=3s")...)
		for _, pod := range []*corev1.Pod{plain, gated} {
			assert.Zero(t, s.restarted(pod), "%s starts slowly", name)
			s.set(pod, "ready", 500)
			s.await(startTimeout, name+" is not Ready: "+pod.Name, func() bool { return !ready(s.pod(pod.Name)) })
			s.set(pod, "ready", 200)
			s.await(startTimeout, name+" is Ready again: "+pod.Name, func() bool { return ready(s.pod(pod.Name)) })
			assert.Zero(t, s.restarted(pod))
			s.set(pod, "live", 500)
		}
		for _, pod := range []*corev1.Pod{plain, gated} {
			s.await(startTimeout, name+" is restarted: "+pod.Name, func() bool { return s.restarted(pod) == 1 })
		}
		s.sameWords(name, plain, gated, "Readiness")
		s.sameWords(name, plain, gated, "Liveness")
		s.within(soon, func() bool {
			return len(s.said(plain, "Killing")) > 0 && slices.Equal(s.said(plain, "Killing"), s.said(gated, "Killing"))
		})
		assert.NotEmpty(t, s.said(plain, "Killing"), name)
		assert.Equal(t, s.said(plain, "Killing"), s.said(gated, "Killing"), name)
		for _, workload := range []string{name, name + "-plain"} {
			assert.NoError(t, s.client.AppsV1().Deployments(s.name).Delete(t.Context(), workload, metav1.DeleteOptions{}))
		}
	}
}

// sameWords: what a probe of a pod is said to have failed of, it is said of the
// other. The kubelet asks for a TCP connection by HTTP, and for gRPC the agent
// has its own Event beside the kubelet's.
func (s *space) sameWords(name string, plain, gated *corev1.Pod, probe string) {
	s.Helper()
	words := func(pod *corev1.Pod) (all []string) {
		for _, message := range s.said(pod, "Unhealthy") {
			if said, ok := strings.CutPrefix(message, probe+" probe failed: "); ok {
				all = append(all, said)
			}
		}
		return all
	}
	s.await(soon, name+": "+probe+" is said to have failed of the same", func() bool {
		return slices.ContainsFunc(words(plain), func(want string) bool {
			return slices.ContainsFunc(words(gated), func(got string) bool {
				return got == want || name == "tcp" && strings.HasSuffix(got, want)
			})
		})
	})
}

// On its node's network an agent opens no port; the verdict comes by exec.
//
// compat: pod/host-network carried
func TestProbesOnTheNodesNetwork(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	a := lasting("node")
	a.replicas = 1
	edit := probed(eagerly(byHTTP("start"), func(p *corev1.Probe) { p.FailureThreshold = 30 }), eagerly(byTCP(8080)), eagerly(byHTTP("live"), thrice))
	a.edit = func(t *corev1.PodTemplateSpec) {
		edit(t)
		t.Spec.HostNetwork = true
	}
	s.create(a)
	s.await(startTimeout, "Ready", func() bool {
		pods := s.all(a.name)
		return len(pods) == 1 && ready(pods[0])
	})
	pod := s.all(a.name)[0]
	s.set(pod, "live", 500)
	s.await(startTimeout, "restarted", func() bool { return s.restarted(pod) == 1 })
	s.within(soon, func() bool { return len(s.unhealthy(pod)) > 0 }) // Events come beside the status
	assert.Contains(t, s.said(pod, "Unhealthy"), "Liveness probe failed: HTTP probe failed with statuscode: 500")
}
