// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package lifecycle

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
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/app"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/lease"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/space"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/status"
)

// eagerly returns a probe that runs each second, with a failure threshold of one. A
// node under load may delay an answer by up to 3 s, so the timeout is longer than that.
func eagerly(handler corev1.ProbeHandler, change ...func(*corev1.Probe)) *corev1.Probe {
	p := &corev1.Probe{ProbeHandler: handler, PeriodSeconds: 1, TimeoutSeconds: 5, FailureThreshold: 1}
	for _, f := range change {
		f(p)
	}
	return p
}

// thrice makes a probe fail only after three failures in a row.
func thrice(p *corev1.Probe) { p.FailureThreshold = 3 }

// byHTTP, byExec, byTCP, byGRPC and byHTTPS return handlers for probes of the
// application.
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

// probed returns an edit that gives the application probes. A nil probe means no probe.
func probed(startup, readiness, liveness *corev1.Probe) func(*corev1.PodTemplateSpec) {
	return func(t *corev1.PodTemplateSpec) {
		c := &t.Spec.Containers[0]
		c.StartupProbe, c.ReadinessProbe, c.LivenessProbe = startup, readiness, liveness
	}
}

// set makes the application answer a probe with a code.
func set(s *space.Space, pod *corev1.Pod, probe string, code int) {
	s.Helper()
	_, err := s.Client.CoreV1().Pods(s.Namespace).ProxyGet("http", pod.Name, "8080", "set",
		map[string]string{"probe": probe, "code": strconv.Itoa(code)}).DoRaw(s.Context())
	require.NoError(s, err)
}

// twins creates two applications by [pair], plain and gated. Once the pods of both are Ready and
// answer, twins returns these pods.
func twins(s *space.Space, name string, edit func(*corev1.PodTemplateSpec), args ...string) (plain, gated *corev1.Pod) {
	s.Helper()
	asItIs, annotated := pair(s, name, edit, args...)
	pod := func(a app.App) (found *corev1.Pod) {
		s.Await(space.StartTimeout, a.Name+" is Ready", func() bool {
			pods := s.Pods(a.Name)
			// Without a readiness probe a pod is Ready before its application listens. So twins
			// also waits for an answer of the application.
			if len(pods) == 1 && status.Ready(pods[0]) && app.Ask(s, pods[0]) == pods[0].Name {
				found = pods[0]
			}
			return found != nil
		})
		return found
	}
	return pod(asItIs), pod(annotated)
}

// becameReady returns the instant in whole seconds at which the kubelet last changed the pod's condition
// Ready, if the pod is Ready. While the pod is not Ready, the result is the present time.
func becameReady(pod *corev1.Pod) time.Time {
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue {
			return c.LastTransitionTime.Time
		}
	}
	return time.Now()
}

// A pod may stand by for longer than its startup probe allows. The probe's failures are
// counted anew at each start of the child, even in the same container.
//
// docs/reference/compatibility.md: probes/startup-http probes/readiness-http probes/liveness-http probes/named-port probes/startup-anew probes/standby carried
func TestStartupProbeBeginsAnewWithEachChild(t *testing.T) {
	t.Parallel()
	s := space.New(t)
	a := app.Lasting("slow")
	a.Replicas, a.Args = 2, []string{"-start-delay=6s"}
	const allowed = 15 // in seconds: more than twice the start delay
	a.Edit = probed(
		eagerly(byHTTP("start"), func(p *corev1.Probe) { p.FailureThreshold = allowed }),
		// At a yield the agent may redirect the kubelet to a child that stops, so a liveness
		// probe may fail once or twice.
		eagerly(byHTTP("ready")), eagerly(byHTTP("live"), thrice))
	app.Create(s, a)
	app.AwaitGated(s, a)
	s.Await(space.StartTimeout, "both Ready", func() bool {
		pods := s.Pods(a.Name)
		return len(pods) == 2 && status.Ready(pods[0]) && status.Ready(pods[1])
	})
	standby := app.AwaitStandby(s, a)
	s.Never((allowed+5)*time.Second, "a standby that fails", func() bool {
		return len(s.EventMessages(standby, "Unhealthy")) > 0 || status.Restarted(s, standby) > 0
	})
	first := s.AwaitHolder(lease.OfDeployment(a.Name))

	for range 2 {
		began := time.Now()
		holder, _ := app.Yields(s, a)
		// On a busy machine the holder may have started before the test looks.
		s.Await(space.Soon, "not Ready while it starts", func() bool { return !becameReady(s.Pod(holder.Name)).Before(began.Truncate(time.Second)) })
		s.Await(space.StartTimeout, "Ready when it has started", func() bool { return status.Ready(s.Pod(holder.Name)) })
		assert.Greater(t, time.Since(began), 5*time.Second)
		s.Await(space.StartTimeout, "the other one stands by, Ready", func() bool {
			other := app.Standby(s, a)
			return other != nil && status.Ready(other)
		})
	}
	assert.Equal(t, first.UID, s.AwaitHolder(lease.OfDeployment(a.Name)).UID, "there and back")
	assert.Zero(t, app.Restarts(s, a))
	for _, pod := range s.Pods(a.Name) {
		for _, message := range s.EventMessages(pod, "Unhealthy") {
			// At a yield the agent may redirect the kubelet to a child that stops, so these
			// messages are expected.
			assert.Regexp(t, "dial tcp IP:8080: connect: connection refused|: EOF$|connection reset by peer", message)
		}
	}
}

// docs/reference/compatibility.md: probes/startup-exec probes/message lifecycle/exit-codes carried
func TestFailedStartupProbeRestartsContainerAsWithoutGate(t *testing.T) {
	t.Parallel()
	s := space.New(t)
	// The application never serves.
	edit := probed(eagerly(byExec("start"), thrice), nil, nil)
	one := app.Lasting("late")
	one.Replicas, one.Edit, one.Args = 1, edit, []string{"-start-delay=1h", "-stop-code=9"}
	other := app.App{Name: "late-plain", Replicas: 1, Edit: edit, Args: one.Args}
	messages := map[string][]string{}
	for _, a := range []app.App{other, one} {
		app.Create(s, a)
	}
	for _, a := range []app.App{other, one} {
		s.Await(space.StartTimeout, a.Name+" is restarted", func() bool {
			pods := s.Pods(a.Name)
			return len(pods) == 1 && status.Restarted(s, pods[0]) >= 1
		})
		pod := s.Pods(a.Name)[0]
		endsWith(s, pod, 9, a.Name+" was asked to stop")
		s.Await(space.Soon, "it is said", func() bool {
			return len(s.EventMessages(pod, "Unhealthy")) > 0 && len(s.EventMessages(pod, "Killing")) > 0
		})
		messages[a.Name] = slices.Compact(append(s.EventMessages(pod, "Unhealthy"), s.EventMessages(pod, "Killing")...))
		assert.False(t, status.Ready(pod))
	}
	assert.Equal(t, messages[other.Name], messages[one.Name])
}

// While the probe of the holder fails, neither the holder nor a standby is Ready. The Event
// about the failed probe quotes the output of the probe's command unchanged.
//
// docs/reference/compatibility.md: probes/readiness-exec probes/message probes/standby carried
func TestStandbysAreReadyOnlyWhileHolderIsReady(t *testing.T) {
	t.Parallel()
	s := space.New(t)
	a := app.Lasting("moody")
	a.Replicas = 2
	a.Edit = probed(nil, eagerly(byExec("ready")), nil)
	app.Create(s, a)
	both := func(want bool) func() bool {
		return func() bool {
			pods := s.Pods(a.Name)
			return len(pods) == 2 && status.Ready(pods[0]) == want && status.Ready(pods[1]) == want
		}
	}
	s.Await(space.StartTimeout, "both Ready", both(true))
	holder, standby := s.AwaitHolder(lease.OfDeployment(a.Name)), app.AwaitStandby(s, a)
	set(s, holder, "ready", 503)
	s.Await(space.StartTimeout, "the holder says so", func() bool { return !status.Ready(s.Pod(holder.Name)) })
	s.Await(space.StartTimeout, "the Lease says so", func() bool {
		return s.Lease(lease.OfDeployment(a.Name)).Annotations[api.ServingAnnotation] == ""
	})
	s.Await(space.StartTimeout, "none Ready", both(false))
	s.Within(space.Soon, func() bool { return len(unhealthy(s, holder)) > 0 }) // Events may come after the status
	assert.Equal(t, []string{"Readiness probe failed: ready is 503\n"}, unhealthy(s, holder))
	assert.Empty(t, unhealthy(s, standby))
	assert.Zero(t, app.Restarts(s, a))
	assert.Equal(t, holder.UID, s.AwaitHolder(lease.OfDeployment(a.Name)).UID, "not Ready is not dead")
	set(s, holder, "ready", 200)
	s.Await(space.StartTimeout, "both Ready again", both(true))
}

// ofKind has the handlers of a startup, a readiness and a liveness probe, which all use
// one protocol.
type ofKind struct {
	startup, readiness, liveness corev1.ProbeHandler
	args                         []string
}

// host adds a virtual host to an HTTP probe. The application then refuses requests
// without that host.
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

// A probe of each sort (exec, HTTP, HTTPS, TCP or gRPC) has the same effect on a gated container as
// without the gate. The Events about a failed probe name the same cause, too. The application ignores
// SIGTERM, and the grace of the liveness probe is shorter than that of the pod.
//
// docs/reference/compatibility.md: lifecycle/grace-of-probe lifecycle/ignores-term carried
// docs/reference/compatibility.md: probes/liveness-exec probes/liveness-http probes/liveness-tcp probes/liveness-grpc carried
// docs/reference/compatibility.md: probes/readiness-exec probes/readiness-http probes/readiness-tcp probes/readiness-grpc carried
// docs/reference/compatibility.md: probes/startup-exec probes/startup-http probes/startup-tcp probes/startup-grpc carried
// docs/reference/compatibility.md: probes/named-port probes/headers probes/https probes/timings probes/message carried
func TestEachGatedProbeActsLikeAnUngatedProbe(t *testing.T) {
	t.Parallel()
	s := space.New(t)
	for name, tt := range map[string]ofKind{
		"exec":  {byExec("start"), byExec("ready"), byExec("live"), nil},
		"http":  {byHTTP("start"), host(byHTTP("ready")), host(byHTTP("live")), nil},
		"https": {host(byHTTPS("start")), host(byHTTPS("ready")), host(byHTTPS("live")), []string{"-https=:9443"}},
		"tcp": {byTCP(9001), byTCP(9002), byTCP(9003),
			[]string{"-tcp=start=:9001,ready=:9002,live=:9003"}},
		"grpc": {byGRPC("start"), byGRPC("ready"), byGRPC("live"), []string{"-grpc=:9000"}},
	} {
		edit := probed(eagerly(tt.startup, func(p *corev1.Probe) { p.FailureThreshold = 30 }),
			eagerly(tt.readiness), eagerly(tt.liveness, thrice, func(p *corev1.Probe) { p.TerminationGracePeriodSeconds = new(int64(3)) }))
		plain, gated := twins(s, name, edit, append(tt.args, "-start-delay=3s", "-ignore-term")...)
		for _, pod := range []*corev1.Pod{plain, gated} {
			assert.Zero(t, status.Restarted(s, pod), "%s starts slowly", name)
			set(s, pod, "ready", 500)
			s.Await(space.StartTimeout, name+" is not Ready: "+pod.Name, func() bool { return !status.Ready(s.Pod(pod.Name)) })
			set(s, pod, "ready", 200)
			s.Await(space.StartTimeout, name+" is Ready again: "+pod.Name, func() bool { return status.Ready(s.Pod(pod.Name)) })
			assert.Zero(t, status.Restarted(s, pod))
			set(s, pod, "live", 500)
		}
		began := time.Now()
		for _, pod := range []*corev1.Pod{plain, gated} {
			var last *corev1.ContainerStateTerminated
			s.Await(space.StartTimeout, name+" is restarted: "+pod.Name, func() bool {
				last = status.LastEnd(s, pod)
				return last != nil && status.Restarted(s, pod) == 1
			})
			assert.Equal(t, int32(137), last.ExitCode, "the probe's own grace was too short for it")
			assert.Less(t, last.FinishedAt.Sub(began), 30*time.Second, "that of the pod would have been longer")
		}
		sameWords(s, name, plain, gated, "Readiness")
		sameWords(s, name, plain, gated, "Liveness")
		s.Within(space.Soon, func() bool {
			return len(s.EventMessages(plain, "Killing")) > 0 && slices.Equal(s.EventMessages(plain, "Killing"), s.EventMessages(gated, "Killing"))
		})
		assert.NotEmpty(t, s.EventMessages(plain, "Killing"), name)
		assert.Equal(t, s.EventMessages(plain, "Killing"), s.EventMessages(gated, "Killing"), name)
		for _, workload := range []string{name, name + "-plain"} {
			assert.NoError(t, s.Client.AppsV1().Deployments(s.Namespace).Delete(t.Context(), workload, metav1.DeleteOptions{}))
		}
	}
}

// sameWords waits until a message of a failed probe is the same in both pods. The kubelet probes a
// gated pod by HTTP even for a TCP probe. So the gated pod's message about a TCP probe may have a
// prefix. For gRPC the gated pod also has a message of the agent, which has no equal in the other
// pod. So one pair of equal messages is enough.
func sameWords(s *space.Space, name string, plain, gated *corev1.Pod, probe string) {
	s.Helper()
	words := func(pod *corev1.Pod) (all []string) {
		for _, message := range s.EventMessages(pod, "Unhealthy") {
			if said, ok := strings.CutPrefix(message, probe+" probe failed: "); ok {
				all = append(all, said)
			}
		}
		return all
	}
	s.Await(space.Soon, name+": "+probe+" is said to have failed of the same", func() bool {
		return slices.ContainsFunc(words(plain), func(want string) bool {
			return slices.ContainsFunc(words(gated), func(got string) bool {
				return got == want || name == "tcp" && strings.HasSuffix(got, want)
			})
		})
	})
}

// On the host network an agent opens no port, so the kubelet's probes are exec probes.
//
// docs/reference/compatibility.md: pod/host-network carried
func TestKubeletProbesTheApplicationOnTheHostNetwork(t *testing.T) {
	t.Parallel()
	s := space.New(t)
	a := app.Lasting("node")
	a.Replicas = 1
	edit := probed(eagerly(byHTTP("start"), func(p *corev1.Probe) { p.FailureThreshold = 30 }), eagerly(byTCP(8080)), eagerly(byHTTP("live"), thrice))
	a.Edit = func(t *corev1.PodTemplateSpec) {
		edit(t)
		t.Spec.HostNetwork = true
	}
	app.Create(s, a)
	s.Await(space.StartTimeout, "Ready", func() bool {
		pods := s.Pods(a.Name)
		return len(pods) == 1 && status.Ready(pods[0])
	})
	pod := s.Pods(a.Name)[0]
	set(s, pod, "live", 500)
	s.Await(space.StartTimeout, "restarted", func() bool { return status.Restarted(s, pod) == 1 })
	s.Within(space.Soon, func() bool { return len(unhealthy(s, pod)) > 0 }) // Events may come after the status
	assert.Contains(t, s.EventMessages(pod, "Unhealthy"), "Liveness probe failed: HTTP probe failed with statuscode: 500")
}
