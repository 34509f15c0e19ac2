// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/api"
)

// app is the application behind the probes. The type app has an answer for each probe, and
// records the times at which each probe arrives.
type app struct {
	t     *testing.T
	began time.Time
	// spared is the value of the field Child.Spared for each child that the test starts.
	spared bool
	*Monitor

	mu      sync.Mutex
	answers map[string]Result
	asked   map[string][]time.Duration
	ran     []Child
	// patience is the timeout of the last probe that ran.
	patience time.Duration
}

var passes, fails = Result{Outcome: Success, Status: 200}, Result{Outcome: Failure, Output: "refused"}

// The function "declared" returns a probe of GET /name.
func declared(name string, change func(p *api.Probe)) *api.Probe {
	p := &api.Probe{TimeoutSeconds: 1, PeriodSeconds: 10, SuccessThreshold: 1, FailureThreshold: 3}
	p.HTTPGet = &api.HTTPGetAction{Path: "/" + name, Port: 80}
	if change != nil {
		change(p)
	}
	return p
}

func bubble(t *testing.T, probes api.Probes, f func(a *app)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		a := &app{t: t, began: time.Now(), answers: map[string]Result{}, asked: map[string][]time.Duration{}}
		do := func(name string) Result {
			a.mu.Lock()
			defer a.mu.Unlock()
			a.asked[name] = append(a.asked[name], time.Since(a.began))
			if r, ok := a.answers[name]; ok {
				return r
			}
			return fails
		}
		a.Monitor = New(Config{
			Probes: map[string]api.Probes{"app": probes}, Address: "10.0.0.1", Grace: 30 * time.Second,
			Do: func(_ context.Context, h api.Handler, address string, timeout time.Duration) Result {
				assert.Equal(t, "10.0.0.1", address)
				a.mu.Lock()
				a.patience = timeout
				a.mu.Unlock()
				switch {
				case h.TCPSocket != nil:
					return do("tcp")
				case h.GRPC != nil:
					return do("grpc")
				}
				return do(strings.TrimPrefix(h.HTTPGet.Path, "/"))
			},
			Run: func(_ context.Context, child Child, command []string, _ time.Duration) Result {
				a.mu.Lock()
				a.ran = append(a.ran, child)
				a.mu.Unlock()
				return do(strings.Join(command, " "))
			},
		})
		defer a.Close()
		f(a)
	})
}

func (a *app) answer(name string, r Result) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.answers[name] = r
}

// times returns the times at which a probe has arrived, in seconds since the start of the test.
func (a *app) times(name string) []float64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	var all []float64
	for _, d := range a.asked[name] {
		all = append(all, d.Seconds())
	}
	return all
}

func (a *app) pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

func (a *app) runs(hold string) {
	a.Follow(map[string]Child{"app": {Shim: "s1", Hold: hold, Spared: a.spared}})
}

func (a *app) stops() { a.Follow(nil) }

// The method "kubelet" sends the probe as the kubelet does, and follows no redirect.
func (a *app) kubelet(probe string) *httptest.ResponseRecorder {
	return a.serve(a.Handler(), httptest.NewRequest(http.MethodGet, api.ProbePath("app", probe), nil))
}

func (a *app) exec(probe string) *httptest.ResponseRecorder {
	return a.serve(a.ExecHandler(), httptest.NewRequest(http.MethodGet, api.ProbePath("app", probe), nil))
}

func (a *app) serve(h http.Handler, r *http.Request) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func (a *app) notices() []string {
	var all []string
	for _, n := range a.Take() {
		all = append(all, n.Reason+": "+n.Message)
	}
	return all
}

// docs/reference/compatibility.md: probes/standby carried
func TestProbesOfAStandbyPassWithoutItsApplication(t *testing.T) {
	probes := api.Probes{Startup: declared("startup", nil), Readiness: declared("readiness", nil), Liveness: declared("liveness", nil)}
	bubble(t, probes, func(a *app) {
		for range 100 {
			assert.Equal(t, 200, a.kubelet("liveness").Code)
			assert.Equal(t, 200, a.kubelet("readiness").Code)
			assert.Equal(t, 200, a.exec("liveness").Code)
			a.pass(10 * time.Second)
		}
		assert.False(t, a.Ready())
		assert.True(t, a.Waits())
		assert.Empty(t, a.asked)
		assert.Empty(t, a.notices())
	})
}

// docs/reference/compatibility.md: probes/timings probes/startup-anew carried
func TestStartupProbeStartsAnewForEachChild(t *testing.T) {
	probes := api.Probes{Startup: declared("startup", func(p *api.Probe) {
		p.InitialDelaySeconds, p.FailureThreshold = 5, 4
	}), Liveness: declared("liveness", nil)}
	bubble(t, probes, func(a *app) {
		a.pass(1000 * time.Second)
		a.runs("h1")
		a.pass(30 * time.Second)
		assert.Equal(t, []float64{1005, 1015, 1025}, a.times("startup"))
		assert.Equal(t, 200, a.kubelet("liveness").Code, "no liveness probe may run before the startup probe has passed")
		a.runs("h1")
		a.stops()
		a.pass(100 * time.Second)
		assert.Len(t, a.times("startup"), 3, "no probe may run after the child has ended")

		a.runs("h2")
		a.pass(30 * time.Second)
		a.answer("startup", passes)
		a.pass(10 * time.Second)
		assert.Len(t, a.times("startup"), 7, "failures of an earlier child must not count")
		assert.True(t, a.Ready())
		assert.Equal(t, []string{"Unhealthy: Startup probe failed: refused", "Unhealthy: Startup probe failed: refused"}, a.notices(), "each child's failure is reported once")
		assert.Equal(t, http.StatusTemporaryRedirect, a.kubelet("liveness").Code)
		a.pass(time.Hour)
		assert.Len(t, a.times("startup"), 7, "no further probe may run after success")

		a.runs("h3")
		assert.False(t, a.Ready(), "the earlier child's success must not count")
		assert.Equal(t, 200, a.kubelet("liveness").Code)
	})
}

// docs/reference/compatibility.md: lifecycle/grace-of-probe carried
func TestChildGetsGraceOfItsFailedStartupProbe(t *testing.T) {
	own := int64(7)
	for name, tt := range map[string]struct {
		own  *int64
		want time.Duration
	}{"its own": {&own, 7 * time.Second}, "the pod's": {nil, 30 * time.Second}} {
		t.Run(name, func(t *testing.T) {
			bubble(t, api.Probes{Startup: declared("startup", func(p *api.Probe) {
				p.InitialDelaySeconds, p.TerminationGracePeriodSeconds = 1, tt.own
			})}, func(a *app) {
				a.runs("h1")
				a.pass(20 * time.Second)
				assert.Len(t, a.Take(), 1, "only the first failure is reported")
				a.pass(2 * time.Second)
				notices := a.Take()
				require.Len(t, notices, 2)
				assert.Equal(t, Notice{Container: "app", Warning: true, Reason: "Unhealthy", Message: "Startup probe failed: refused"}, notices[0])
				assert.Equal(t, Notice{
					Container: "app", Reason: "Killing", Message: "Container app failed startup probe, will be restarted",
					End: true, Child: Child{Shim: "s1", Hold: "h1"}, Grace: tt.want,
				}, notices[1])
				a.pass(time.Hour)
				assert.Len(t, a.times("startup"), 3)
				assert.Empty(t, a.Take())
				assert.False(t, a.Ready())
			})
		})
	}
}

func TestStartupProbeFailureInFirstSecondIsIgnored(t *testing.T) {
	bubble(t, api.Probes{Startup: declared("startup", func(p *api.Probe) { p.FailureThreshold = 1 })}, func(a *app) {
		a.runs("h1")
		a.pass(500 * time.Millisecond)
		assert.Equal(t, []float64{0}, a.times("startup"))
		a.answer("startup", passes)
		a.pass(500 * time.Millisecond)
		assert.Equal(t, []float64{0, 1}, a.times("startup"))
		assert.True(t, a.Ready())
		assert.Empty(t, a.notices())
	})
}

func TestAgentProbesReadyContainerOnlyWhenKubeletAsks(t *testing.T) {
	bubble(t, api.Probes{Readiness: declared("readiness", func(p *api.Probe) { p.SuccessThreshold = 2 })}, func(a *app) {
		a.runs("h1")
		a.pass(2500 * time.Millisecond)
		assert.Len(t, a.times("readiness"), 26, "a container that is not ready is probed more often than declared")
		assert.False(t, a.Ready())
		a.answer("readiness", passes)
		a.kubelet("readiness")
		a.pass(time.Second)
		assert.False(t, a.Ready(), "the kubelet's request must not count towards the threshold of two")
		a.pass(time.Second)
		assert.True(t, a.Ready())
		asked := len(a.times("readiness"))
		a.pass(time.Hour)
		assert.Len(t, a.times("readiness"), asked, "the agent must not probe after the first success")

		a.answer("readiness", fails)
		for i := range 3 {
			assert.True(t, a.Ready(), "failure %d", i)
			for range 5 {
				a.kubelet("readiness")
			}
			a.pass(10 * time.Second)
		}
		assert.False(t, a.Ready(), "the third failure must count, however many requests came")
		a.answer("readiness", passes)
		a.kubelet("readiness")
		assert.False(t, a.Ready())
		a.pass(10 * time.Second)
		a.kubelet("readiness")
		assert.True(t, a.Ready())
	})
}

func TestNewAgentProcessKeepsAServingChildReady(t *testing.T) {
	probes := api.Probes{Startup: declared("startup", nil), Readiness: declared("readiness", nil), Liveness: declared("liveness", nil)}
	bubble(t, probes, func(a *app) {
		a.Follow(map[string]Child{"app": {Shim: "s1", Hold: "h1", Age: time.Hour, Serving: true}})
		assert.True(t, a.Ready())
		assert.Equal(t, http.StatusTemporaryRedirect, a.kubelet("liveness").Code)
		a.pass(time.Minute)
		assert.Empty(t, a.asked)
		for range 3 {
			a.kubelet("readiness")
			a.pass(10 * time.Second)
		}
		assert.False(t, a.Ready(), "a failed probe must count")
	})
	bubble(t, probes, func(a *app) {
		a.answer("startup", passes)
		a.answer("readiness", passes)
		a.Follow(map[string]Child{"app": {Shim: "s1", Hold: "h1", Age: time.Hour}})
		a.pass(time.Millisecond)
		assert.Equal(t, []float64{0}, a.times("readiness"), "a child that did not serve must be probed at once")
		assert.True(t, a.Ready())
	})
}

// docs/reference/compatibility.md: probes/timings carried
func TestInitialProbeDelayBeginsAtTheChildsStart(t *testing.T) {
	bubble(t, api.Probes{Liveness: declared("liveness", func(p *api.Probe) { p.InitialDelaySeconds = 20 })}, func(a *app) {
		assert.False(t, a.Waits())
		assert.True(t, a.Ready(), "without probes the pod is ready")
		a.pass(time.Hour)
		a.runs("h1")
		a.pass(19 * time.Second)
		assert.Equal(t, 200, a.kubelet("liveness").Code)
		a.pass(time.Second)
		assert.Equal(t, http.StatusTemporaryRedirect, a.kubelet("liveness").Code)
	})
}

func TestKubeletGetsTheApplicationsAnswerToAProbe(t *testing.T) {
	teapot := Result{Outcome: Failure, Status: 418, Output: "HTTP probe failed with statuscode: 418"}
	host := []api.HTTPHeader{{Name: "host", Value: "shop.example"}}
	for _, tt := range []struct {
		name     string
		probe    string
		handler  api.Handler
		answer   Result
		code     int
		location string
		notices  []string
	}{
		{"liveness by HTTP", "liveness", api.Handler{HTTPGet: &api.HTTPGetAction{Path: "/x?a=b", Port: 80, HTTPHeaders: host}}, passes, 307, "//10.0.0.1:80/x?a=b", nil},
		{"liveness by HTTPS", "liveness", api.Handler{HTTPGet: &api.HTTPGetAction{Path: "x", Port: 443, Scheme: "HTTPS"}}, passes, 307, "https://10.0.0.1:443/x", nil},
		{"virtual host by HTTPS", "liveness", api.Handler{HTTPGet: &api.HTTPGetAction{Path: "/x", Port: 443, Scheme: "HTTPS", HTTPHeaders: host}}, teapot, 418, "", nil},
		{"another host", "liveness", api.Handler{HTTPGet: &api.HTTPGetAction{Path: "/x", Port: 80, Host: "10.9.9.9"}}, fails, 503, "", []string{"Unhealthy: Liveness probe failed: refused"}},
		{"readiness by HTTP", "readiness", api.Handler{HTTPGet: &api.HTTPGetAction{Path: "/x", Port: 80}}, teapot, 418, "", nil},
		{"redirected away", "readiness", api.Handler{HTTPGet: &api.HTTPGetAction{Path: "/x", Port: 80}}, Result{Outcome: Success, Status: 302, Location: "http://other/"}, 302, "http://other/", nil},
		{"refused", "readiness", api.Handler{HTTPGet: &api.HTTPGetAction{Path: "/x", Port: 80}}, fails, 307, "//10.0.0.1:80/x", nil},
		{"TCP", "liveness", api.Handler{TCPSocket: &api.TCPSocketAction{Port: 6379}}, Result{Outcome: Success}, 200, "", nil},
		{"TCP refused", "liveness", api.Handler{TCPSocket: &api.TCPSocketAction{Port: 6379}}, fails, 307, "//10.0.0.1:6379/", nil},
		{"gRPC", "readiness", api.Handler{GRPC: &api.GRPCAction{Port: 1}}, Result{Outcome: Success}, 200, "", nil},
		{"gRPC unhealthy", "readiness", api.Handler{GRPC: &api.GRPCAction{Port: 1}}, fails, 503, "", []string{"Unhealthy: Readiness probe failed: refused"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := declared("", func(p *api.Probe) { p.Handler = tt.handler })
			probes := api.Probes{Liveness: p}
			if tt.probe == "readiness" {
				probes = api.Probes{Readiness: p}
			}
			bubble(t, probes, func(a *app) {
				for _, name := range []string{"x", "x?a=b", "tcp", "grpc"} {
					a.answer(name, tt.answer)
				}
				a.runs("h1")
				synctest.Wait()
				for range 2 {
					w := a.kubelet(tt.probe)
					assert.Equal(t, tt.code, w.Code)
					assert.Equal(t, tt.location, w.Header().Get("Location"))
				}
				assert.Equal(t, tt.notices, a.notices(), "a failure must not be reported twice")
			})
		})
	}
}

func TestLivenessProbePassesIfChildEndsDuringIt(t *testing.T) {
	bubble(t, api.Probes{Liveness: declared("live", func(p *api.Probe) {
		p.Handler = api.Handler{TCPSocket: &api.TCPSocketAction{Port: 1}}
	})}, func(a *app) {
		a.runs("h1")
		assert.Equal(t, http.StatusTemporaryRedirect, a.kubelet("liveness").Code)
		do := a.config.Do
		a.config.Do = func(ctx context.Context, h api.Handler, address string, timeout time.Duration) Result {
			a.stops()
			return do(ctx, h, address, timeout)
		}
		assert.Equal(t, 200, a.kubelet("liveness").Code)
	})
}

// Any client that can reach the pod may request a probe. Many simultaneous requests must put no
// more load on the application than one request.
func TestConcurrentProbeRequestsCauseASingleProbe(t *testing.T) {
	bubble(t, api.Probes{Readiness: declared("x", nil)}, func(a *app) {
		a.answer("x", passes)
		a.runs("h1")
		a.pass(time.Second)
		before := len(a.times("x"))
		do := a.config.Do
		a.config.Do = func(ctx context.Context, h api.Handler, address string, timeout time.Duration) Result {
			<-time.After(time.Second / 2)
			return do(ctx, h, address, timeout)
		}
		codes := make(chan int, 100)
		ask := func() { codes <- a.kubelet("readiness").Code }
		for range 50 {
			go ask()
		}
		a.pass(time.Second / 4)
		for range 50 {
			go ask()
		}
		a.pass(time.Second / 4)
		for range 100 {
			assert.Equal(t, 200, <-codes)
		}
		assert.Len(t, a.times("x"), before+1)
		ask()
		assert.Len(t, a.times("x"), before+2, "a later request must cause a new probe")
	})
}

// The text of a failed connection can name another port each time. So no two failures are equal.
func TestForeignProbeRequestsCauseFewEvents(t *testing.T) {
	grpc := declared("", func(p *api.Probe) { p.Handler = api.Handler{GRPC: &api.GRPCAction{Port: 9000}} })
	bubble(t, api.Probes{Liveness: grpc, Readiness: grpc}, func(a *app) {
		a.answer("grpc", passes)
		a.runs("h1")
		a.pass(time.Second)
		asks := func(requests int, every time.Duration) (notices int) {
			for i := range requests {
				a.answer("grpc", Result{Outcome: Failure, Output: fmt.Sprintf("read tcp 10.0.0.1:%d: reset", len(a.times("grpc")))})
				for _, probe := range []string{"liveness", "readiness"} {
					assert.Equal(t, http.StatusServiceUnavailable, a.kubelet(probe).Code, i)
				}
				a.pass(every)
			}
			return len(a.Take())
		}
		assert.Equal(t, 2, asks(1, grpc.Period()), "each probe reports its first failure")
		assert.Equal(t, 2*2*6, asks(6000, time.Minute/6000), "two failures of each probe in a period")
		a.pass(grpc.Period())
		assert.Equal(t, 2*6, asks(6, grpc.Period()), "the kubelet's requests alone lose no failure")
	})
}

func TestAgentRedirectsKubeletBeforeHangingProbeTimesOut(t *testing.T) {
	other := func(p *api.Probe) { p.HTTPGet.Host = "10.9.9.9" }
	bubble(t, api.Probes{Readiness: declared("x", nil), Liveness: declared("x", other)}, func(a *app) {
		a.answer("x", passes)
		a.runs("h1")
		a.pass(time.Second)
		assert.Equal(t, time.Second, a.patience, "no kubelet waits, so the probe gets its whole timeout")
		a.kubelet("readiness")
		assert.Equal(t, time.Second-handBack, a.patience)
		a.kubelet("liveness")
		assert.Equal(t, time.Second, a.patience, "a probe of another host has no redirect, so it gets its whole timeout")
	})
}

func TestExecProbeResultComesFromItsOwnContainer(t *testing.T) {
	command := func(p *api.Probe) { p.Handler = api.Handler{Exec: &api.ExecAction{Command: []string{"ping", "me"}}} }
	bubble(t, api.Probes{Readiness: declared("", command), Liveness: declared("", command)}, func(a *app) {
		a.answer("ping me", passes)
		a.runs("h1")
		a.pass(time.Second)
		assert.True(t, a.Ready())
		assert.Equal(t, []Child{{Shim: "s1", Hold: "h1"}}, a.ran, "the agent must run the command until it has passed")
		assert.Equal(t, http.StatusNotFound, a.kubelet("liveness").Code, "no HTTP request may run a command")
		assert.Equal(t, http.StatusNotFound, a.kubelet("readiness").Code)
		assert.Len(t, a.ran, 1)
		assert.Empty(t, a.notices())
		asks := func(probe, want string) {
			t.Helper()
			w := a.exec(probe)
			require.Equal(t, api.ProbeRun, w.Code)
			assert.Equal(t, want, w.Body.String())
			a.pass(10 * time.Second)
		}
		asks("liveness", "passed\n")
		asks("readiness", "passed\n")
		assert.Len(t, a.ran, 3)
		a.answer("ping me", Result{Output: "no such program"})
		for range 5 {
			asks("liveness", "unknown\nno such program")
			asks("readiness", "unknown\nno such program")
		}
		assert.True(t, a.Ready(), "a command that was not run proves nothing")
		a.answer("ping me", fails)
		asks("readiness", "failed\nrefused")
		asks("readiness", "failed\nrefused")
		asks("liveness", "failed\nrefused")
		assert.True(t, a.Ready())
		asks("readiness", "failed\nrefused")
		assert.False(t, a.Ready())
	})
}

func TestAgentProbeCommandGetsTheProbesResult(t *testing.T) {
	bubble(t, api.Probes{Liveness: declared("liveness", nil)}, func(a *app) {
		a.runs("h1")
		w := a.exec("liveness")
		assert.Equal(t, api.ProbeFail, w.Code)
		assert.Equal(t, "refused", w.Body.String(), "the body must contain only the failure")
		a.answer("liveness", passes)
		assert.Equal(t, api.ProbePass, a.exec("liveness").Code)
		assert.Empty(t, a.notices(), "the kubelet reports this failure itself")
	})
}

func TestUndeclaredProbeIsAnsweredWithNotFound(t *testing.T) {
	bubble(t, api.Probes{Liveness: declared("liveness", nil)}, func(a *app) {
		for _, path := range []string{"/probe/app/readiness", "/probe/app/startup", "/probe/other/liveness", "/probe/", "/"} {
			assert.Equal(t, 404, a.serve(a.Handler(), httptest.NewRequest(http.MethodGet, path, nil)).Code, path)
		}
	})
}

func TestStartupProbeWithUnknownOutcomeNeverEndsChild(t *testing.T) {
	bubble(t, api.Probes{Startup: declared("startup", nil)}, func(a *app) {
		a.answer("startup", Result{Outcome: Unknown, Output: "no such file"})
		a.runs("h1")
		a.pass(time.Hour)
		assert.Equal(t, []string{"Unhealthy: Startup probe errored and resulted in unknown state: no such file"}, a.notices())
		assert.False(t, a.Ready())
	})
}
