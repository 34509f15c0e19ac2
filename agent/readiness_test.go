// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/agent/gate"
	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/agent/status"
	"github.com/metaparticle-io/metaparticle/api"
)

// ports is the fake forwarder of a pod.
type ports struct {
	mu     sync.Mutex
	open   bool
	target string
	busy   error
	// unreachable is the error of each attempt to reach the holder; nil if the holder answers.
	// The field "asked" counts the attempts.
	unreachable error
	asked       int
	unanswered  chan string
	// left is the channel that Linger returns. The fake closes that channel when the last
	// connection ends. If "lasts" is set, that connection ends when the agent calls Close. If
	// not, the connection ends after the delay that Linger gets.
	left  chan struct{}
	lasts bool
	// arrived is the time of the last new connection; zero before the first.
	arrived time.Time
}

func (p *ports) Linger(delay time.Duration) <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.left = make(chan struct{})
	if !p.lasts {
		time.AfterFunc(delay, p.leave)
	}
	return p.left
}

// leave ends the open connections.
func (p *ports) leave() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.left != nil {
		close(p.left)
		p.left = nil
	}
}

func (p *ports) Reachable(context.Context, string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asked++
	return p.unreachable
}

func (p *ports) Unanswered() <-chan string { return p.unanswered }

func (p *ports) Idle() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return time.Since(p.arrived)
}

// connect makes a new connection come to the ports.
func (p *ports) connect() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.arrived = time.Now()
}

func (p *ports) Open() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.busy == nil {
		p.open = true
	}
	return p.busy
}

func (p *ports) SetTarget(address string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.target = address
}

func (p *ports) Close() {
	p.leave()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.open = false
}

func (p *ports) state() (bool, string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.open, p.target
}

// forwarding makes a pod forward one port.
func forwarding(p *ports) func(c *Config) {
	return func(c *Config) { c.Forwarder, c.Ports = p, api.Ports{{Number: 6379}} }
}

// look has those fields of a stored pod that the tests read.
type look struct {
	Metadata struct {
		Labels      map[string]*string
		Annotations map[string]*string
	}
	Status struct {
		Conditions []struct{ Type, Status, Reason, Message, LastTransitionTime string }
	}
}

// looks returns the fields of the pod in the last stored patch of its status.
func (p *pod) looks() look {
	p.link.mu.Lock()
	defer p.link.mu.Unlock()
	var l look
	if n := len(p.link.patches); n > 0 {
		require.NoError(p.world.t, json.Unmarshal([]byte(p.link.patches[n-1]), &l))
	}
	return l
}

func (p *pod) ready() string {
	l := p.looks()
	if len(l.Status.Conditions) == 0 {
		return "unknown"
	}
	return l.Status.Conditions[0].Status + " " + l.Status.Conditions[0].Reason
}

func TestTheHolderIsReadyWhileItsChildRuns(t *testing.T) {
	simulate(t, func(w *world) {
		w.free(theSlot)
		a := w.start("a")
		w.pass(time.Second)
		assert.Equal(t, "False NoHolder", a.ready())
		a.connect("s1")
		w.pass(time.Second)
		assert.Equal(t, "True Holding", a.ready())
		l := a.looks()
		assert.Equal(t, api.ReadyCondition, l.Status.Conditions[0].Type)
		assert.Equal(t, api.RoleHolder, *l.Metadata.Labels[api.RoleLabel])
		assert.Equal(t, api.HolderDeletionCost, *l.Metadata.Annotations[api.DeletionCostAnnotation])
		patches := len(a.link.patches)
		w.pass(10 * time.Minute)
		assert.Len(t, a.link.patches, patches, "written on change only")

		a.gates.end("s1")
		w.pass(time.Minute)
		l = a.looks()
		assert.Equal(t, "False NoHolder", a.ready())
		assert.Contains(t, l.Metadata.Labels, api.RoleLabel)
		assert.Nil(t, l.Metadata.Labels[api.RoleLabel], "null takes the label away")
	})
}

func TestStandbyForwardsToTheHolderThatServes(t *testing.T) {
	simulate(t, func(w *world) {
		w.free(theSlot)
		var of ports
		a, b := w.start("a"), w.start("b", forwarding(&of))
		a.connect("s1")
		w.pass(time.Second)
		assert.Equal(t, "True StandingBy", b.ready())
		assert.Equal(t, "a holder of "+theSlot+" serves", b.looks().Status.Conditions[0].Message)
		open, target := of.state()
		assert.True(t, open)
		assert.Equal(t, a.config.PodIP, target)

		a.gates.end("s1")
		w.pass(status.WordsDelay)
		assert.Equal(t, "True HandingOver", b.ready())
		open, target = of.state()
		assert.True(t, open)
		assert.Empty(t, target, "connections are held")
		w.pass(29 * time.Second)
		assert.Equal(t, "True HandingOver", b.ready())
		w.pass(2 * time.Second)
		assert.Equal(t, "False NoHolder", b.ready(), "a lease duration and a renewal's period")
		open, _ = of.state()
		assert.False(t, open)
	})
}

func TestAPIServerOutageEndsForwardingOnceLeaseExpires(t *testing.T) {
	simulate(t, func(w *world) {
		w.free(theSlot)
		var of ports
		a, b := w.start("a"), w.start("b", forwarding(&of))
		a.connect("s1")
		w.pass(time.Minute)
		open, target := of.state()
		assert.True(t, open)
		assert.Equal(t, a.config.PodIP, target)

		b.link.set(func(l *link) { l.refuse = &kube.StatusError{Code: 503} })
		w.pass(24 * time.Second)
		_, target = of.state()
		assert.Equal(t, a.config.PodIP, target, "an outage that stops nobody")
		w.pass(7 * time.Second)
		open, target = of.state()
		assert.True(t, open, "held, as in any handover")
		assert.Empty(t, target, "the address may be another pod's by now")
		w.pass(time.Minute)
		open, _ = of.state()
		assert.False(t, open)

		b.link.set(func(l *link) { l.refuse = nil })
		w.pass(20 * time.Second)
		assert.Equal(t, "True StandingBy", b.ready())
		_, target = of.state()
		assert.Equal(t, a.config.PodIP, target)
	})
}

func TestStandbyClosesItsPortsBeforeTheGrant(t *testing.T) {
	simulate(t, func(w *world) {
		w.free(theSlot)
		var of ports
		a := w.start("a")
		a.connect("s1")
		w.within(time.Second, "child runs", func() bool { return a.running("s1") })
		b := w.start("b", forwarding(&of))
		b.gates.granting = func() {
			open, _ := of.state()
			assert.False(t, open, "the child needs the ports")
		}
		b.connect("s2")
		w.pass(time.Second)
		open, _ := of.state()
		require.True(t, open)
		a.gates.end("s1")
		w.within(time.Second, "taken over", func() bool { return b.running("s2") })
	})
}

func TestStandbyForwardsNothingToAnotherWorkload(t *testing.T) {
	for name, c := range map[string]struct {
		change func(p *ports) func(c *Config)
		want   string
	}{
		"with ports":    {forwarding, "False OtherWorkloadHolds"},
		"without ports": {func(*ports) func(c *Config) { return func(*Config) {} }, "True OtherWorkloadHolds"},
	} {
		t.Run(name, simulated(func(t *testing.T, w *world) {
			w.free(theSlot)
			a := w.start("a", func(c *Config) { c.Workload = "StatefulSet/ledger" })
			a.connect("s1")
			w.pass(time.Second)
			var of ports
			b := w.start("b", c.change(&of))
			w.pass(time.Second)
			assert.Equal(t, c.want, b.ready())
			open, _ := of.state()
			assert.False(t, open)
		}))
	}
}

func TestStandbyIsUnreadyWhileItsPortsAreTaken(t *testing.T) {
	simulate(t, func(w *world) {
		w.free(theSlot)
		of := ports{busy: errors.New("port 6379 is in use")}
		a, b := w.start("a"), w.start("b", forwarding(&of))
		a.connect("s1")
		w.pass(status.WordsDelay)
		assert.Equal(t, "False PortsInUse", b.ready())
		of.mu.Lock()
		of.busy = nil
		of.mu.Unlock()
		w.pass(2 * time.Second)
		assert.Equal(t, "True StandingBy", b.ready())
	})
}

// A write of the status reaches the API server only after the agent has given that write up.
func TestDelayedStatusWriteCannotOverwriteANewerStatus(t *testing.T) {
	simulate(t, func(w *world) {
		l := newLink(w.server, "a")
		s := l.status(w)
		standing := status.Appearance{Reason: status.ReadyStandingBy, Message: "b holds it"}
		s.Show(standing)
		w.pass(time.Second)
		l.set(func(l *link) { l.lateStatus = true })
		s.Show(status.Appearance{Ready: true, Hold: "h", Reason: status.ReadyHolding})
		w.pass(time.Millisecond)
		s.Show(standing)
		w.pass(2 * time.Second)
		require.NotEmpty(t, l.late)
		l.set(func(l *link) { _, _ = l.store(l.late) })
		assert.Contains(t, l.patches[len(l.patches)-1], status.ReadyStandingBy)
	})
}

func TestEventsAndMetricsReportChangesOfAHold(t *testing.T) {
	simulate(t, func(w *world) {
		w.free(theSlot)
		a := w.start("a")
		a.connect("s1")
		w.pass(7 * time.Second)
		text := a.agent.Metrics().Text()
		assert.Contains(t, text, "metaparticle_holding 1\n")
		assert.Contains(t, text, "metaparticle_transitions_total 1\n")
		assert.Contains(t, text, `metaparticle_renewals_total{result="stored"} 2`)
		assert.Contains(t, text, `metaparticle_writes_total{result="stored"} 1`)
		assert.True(t, a.agent.Metrics().Healthy())

		a.gates.report("s1", func(r *gate.Report) { r.Silent = true })
		w.pass(time.Second)
		a.gates.report("s1", func(r *gate.Report) { r.Silent, r.Connected = false, false })
		w.pass(30 * time.Second)
		close(a.stop)
		w.pass(time.Second)
		var reasons []string
		w.server.mu.Lock()
		for _, e := range w.server.events {
			reasons = append(reasons, e.Reason)
			assert.Equal(t, "a", e.PodName)
			assert.NotEmpty(t, e.Message)
		}
		w.server.mu.Unlock()
		assert.Equal(t, []string{"Acquired", "ShimSilent", "RenewDeadlinePassed", "NotReleased"}, reasons)
		text = a.agent.Metrics().Text()
		assert.Contains(t, text, "metaparticle_holding 0\n")
		assert.Contains(t, text, `metaparticle_holds_ended_total{reason="RenewDeadlinePassed"} 1`)
		for line := range strings.SplitSeq(strings.TrimSpace(text), "\n") {
			assert.Regexp(t, `^(# (HELP|TYPE) metaparticle_\w+ .+|metaparticle_\w+(\{\w+="[\w/]+"\})? -?[0-9.]+)$`, line)
		}
	})
}

func TestEachHookFailureIsReportedOnce(t *testing.T) {
	simulate(t, func(w *world) {
		w.free(theSlot)
		a := w.start("a")
		a.connect("s1")
		w.pass(time.Second)
		trouble := func(serial int, reason string) {
			a.gates.report("s1", func(r *gate.Report) {
				r.Trouble = gate.Trouble{Serial: serial, Reason: reason, Message: "as the kubelet says it"}
			})
			w.pass(time.Second)
		}
		trouble(1, gate.ReasonPreStop)
		trouble(1, gate.ReasonPreStop)
		trouble(2, gate.ReasonPreStop)
		trouble(3, gate.ReasonPostStart)
		var said []string
		w.server.mu.Lock()
		for _, e := range w.server.events {
			said = append(said, e.Reason+": "+e.Message)
		}
		w.server.mu.Unlock()
		assert.Equal(t, []string{
			"FailedPreStopHook: as the kubelet says it", "FailedPreStopHook: as the kubelet says it",
			"FailedPostStartHook: as the kubelet says it", "Killing: FailedPostStartHook",
		}, said[1:])
	})
}

func TestStandbyThatCannotReachHolderIsNotReady(t *testing.T) {
	simulate(t, func(w *world) {
		w.free(theSlot)
		of := ports{unanswered: make(chan string, 1)}
		a, b := w.start("a"), w.start("b", forwarding(&of))
		a.connect("s1")
		w.pass(time.Minute)
		require.Equal(t, "True StandingBy", b.ready())
		of.mu.Lock()
		of.unreachable = errors.New("i/o timeout")
		of.mu.Unlock()
		w.pass(10 * time.Minute)
		assert.Equal(t, "True StandingBy", b.ready(), "nothing has failed yet")
		of.unanswered <- a.config.PodIP
		w.pass(6 * time.Second)
		assert.Equal(t, "False HolderUnreachable", b.ready())
		assert.Contains(t, b.message(), "i/o timeout")
		of.mu.Lock()
		of.unreachable = nil
		of.mu.Unlock()
		w.pass(10 * time.Second)
		assert.Equal(t, "True StandingBy", b.ready())
	})
}

// replacing gives the pod a strict controller.
func replacing(c *Config) { c.ReplacesUnready = true }

// The start of the old revision's application takes longer than the shortest turn.
func TestStandbyStaysReadyDuringASlowApplicationStart(t *testing.T) {
	const starts = 4 * time.Minute
	simulate(t, func(w *world) {
		w.free(theSlot, nextLease)
		app := newPatient("readiness")
		a := w.start("a", of(oldRevision), app.probed("readiness"), replacing)
		a.connect("s1")
		w.within(time.Second, "the child runs", func() bool { return a.running("s1") })
		w.pass(starts)
		app.be(false, "readiness")
		w.pass(api.TurnRest + time.Second)
		require.Equal(t, "True Holding", a.ready())
		standby := w.start("a2", of(oldRevision), replacing)
		standby.connect("s2")
		w.pass(time.Second)
		seen := len(standby.link.patches) - 1
		app.be(true, "readiness")
		b := w.start("b", of(newRevision), replacing)
		b.connect("s3")
		w.within(4*time.Second, "the new child runs", func() bool { return b.running("s3") })
		b.gates.end("s3")
		w.within(time.Second, "the old child runs again", func() bool { return a.running("s1") })
		w.pass(starts)
		app.be(false, "readiness")
		w.pass(api.TurnRest)
		standby.link.patches = standby.link.patches[seen:]
		assert.Equal(t, []string{"True"}, standby.readiness())
	})
}

// The application's stop and its start each take longer than status.Handover.
func TestOldPodsStayReadyDespiteASlowApplication(t *testing.T) {
	const stops, starts = 110 * time.Second, 45 * time.Second
	simulate(t, func(w *world) {
		w.free(theSlot, nextLease)
		app := newPatient()
		a := w.start("a", of(oldRevision), app.probed("readiness"), replacing, func(c *Config) { c.Grace = 2 * time.Minute })
		a.connect("s1").stop = stops
		w.within(time.Second, "the old child runs", func() bool { return a.running("s1") })
		standby := w.start("a2", of(oldRevision), replacing, func(c *Config) { c.Grace = 2 * time.Minute })
		standby.connect("s2")
		w.pass(api.TurnRest + time.Second)
		seen := len(a.link.patches) - 1
		app.be(true, "readiness")
		b := w.start("b", of(newRevision), replacing)
		b.connect("s3")
		w.within(stops+time.Second, "the new child runs", func() bool { return b.running("s3") })
		late := w.start("a3", of(oldRevision), replacing, func(c *Config) { c.Grace = time.Second })
		w.pass(time.Second)
		require.Equal(t, "True", late.readiness()[len(late.readiness())-1])
		b.gates.end("s3")
		w.within(time.Second, "the old child runs again", func() bool { return a.running("s1") })
		w.pass(starts)
		app.be(false, "readiness")
		w.pass(api.TurnRest / 2)
		a.link.patches = a.link.patches[seen:]
		assert.Equal(t, []string{"True"}, a.readiness())
		assert.Equal(t, []string{"True"}, standby.readiness())
		assert.Equal(t, []string{"True"}, late.readiness())
	})
}

// Under a strict controller, only a pod that takes turns and whose revision is proven may be Ready
// without an application.
func TestUnsparedPodIsUnreadyWhileItStops(t *testing.T) {
	const stops = 5 * time.Minute
	slow := func(c *Config) { c.Grace = 2 * stops }
	for name, start := range map[string]func(w *world) *pod{
		"in its turn": func(w *world) *pod {
			w.start("a", of(oldRevision), replacing).connect("s1")
			w.pass(api.TurnRest + time.Second)
			return w.start("b", of(newRevision), replacing, slow, func(c *Config) { c.MinReady = 30 * time.Second })
		},
		"readiness is holder": func(w *world) *pod {
			return w.start("b", of(oldRevision), replacing, slow, func(c *Config) { c.Readiness = api.ReadinessHolder })
		},
	} {
		t.Run(name, func(t *testing.T) {
			simulate(t, func(w *world) {
				w.free(theSlot, nextLease)
				b := start(w)
				b.connect("s3").stop = stops
				w.within(4*time.Second, "the child runs", func() bool { return b.running("s3") })
				w.pass(api.TurnProof + 2*time.Second)
				require.Equal(t, "True Holding", b.ready())
				b.agent.Yield()
				w.pass(stops / 2)
				assert.Equal(t, "False Draining", b.ready())
				w.pass(stops)
			})
		})
	}
}

// If only the status message changes, the agent writes just the last message, after a delay.
func TestStandbyWritesChangedStatusMessageAfterADelay(t *testing.T) {
	simulate(t, func(w *world) {
		l := newLink(w.server, "a")
		s := l.status(w)
		say := func(message string) {
			s.Show(status.Appearance{Ready: true, Reason: status.ReadyStandingBy, Message: message})
		}
		say("first")
		w.pass(time.Second)
		require.Len(t, l.patches, 1)
		for range 10 {
			say("second")
			w.pass(status.WordsDelay / 25)
			say("third")
			w.pass(status.WordsDelay / 25)
		}
		w.pass(status.WordsDelay / 5)
		require.Len(t, l.patches, 2, "changes do not put the write off")
		assert.Contains(t, l.patches[1], "third")
	})
}
