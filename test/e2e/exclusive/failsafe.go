// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package exclusive

import (
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/app"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/client"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/fault"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/holder"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/lease"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/process"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/software"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/space"
	"github.com/metaparticle-io/metaparticle/test/e2e/record"
)

// TestApplicationSurvivesTheOutageOfItsFailsafe lets the API server store nothing, and kills the applications in
// the middle: that of a single pod, and that of a pod with two standbys. In make test nothing answers for a while.
// With -every-fault each kind of outage lasts for four minutes, and the first one for eight.
//
// docs/reference/compatibility.md: lifecycle/failsafe carried
func TestApplicationSurvivesTheOutageOfItsFailsafe(t *testing.T) {
	for i, o := range fault.Outages() {
		outage, lasts := "1m", 36*time.Second // without the annotation they would stop after 15 s
		if software.Every {
			outage, lasts = "10m", 4*time.Minute
			if i == 0 {
				lasts *= 2
			}
		} else if i > 0 {
			break
		}
		t.Run(o.Name, func(t *testing.T) { survive(t, o, outage, lasts) })
	}
}

func survive(t *testing.T, o fault.Outage, outage string, lasts time.Duration) {
	alone := &safe{Holder: holder.Deploy(t, single("alone", outage+",alone", 1), "it stops the API server")}
	all := []*safe{alone}
	if !o.OneNode { // standbys that reach the API server promise nothing
		all = append(all, &safe{Holder: alone.Beside(single("supported", outage, 3))})
	}
	each := func(do func(*safe)) {
		for _, s := range all {
			do(s)
		}
	}
	each((*safe).begins)
	moved := func() bool { return slices.ContainsFunc(all, (*safe).other) }

	each((*safe).ask)
	began := record.Now()
	end := o.Begin(t, alone.Lab, alone.Before.Node)
	alone.Never(lasts/2, "another application", moved)
	each((*safe).answered)

	each((*safe).restarts)
	if o.Stores {
		each(func(s *safe) {
			s.Await(space.StartTimeout, "the pods are behind the Service again, as after every restart of a container",
				func() bool { return app.Restarts(s.Space, s.App) == 1 && s.serves() })
		})
	}
	each((*safe).asks) // these do not count either: the application opens its port a moment after its start
	each((*safe).ask)
	alone.Never(lasts-(record.Now()-began), "another application", moved)
	t.Logf("the outage lasted %v", record.Now()-began)
	end()
	alone.Never(lease.Fault, "another application", moved)
	each((*safe).answered)
	for _, s := range all {
		assert.Zero(t, s.Process(s.Before.ID).Signalled, "nobody asked it to stop")
		app.DeletePod(s.Space, s.Victim)
	}
	each((*safe).released)
}

// safe is an application with a failsafe, behind a Service.
type safe struct {
	holder.Holder
	service  *corev1.Service
	requests *client.Client
}

// single returns a singleton with a failsafe and the default lease duration.
func single(name, failsafe string, replicas int32) app.App {
	a := app.Lasting(name)
	a.Replicas = replicas
	a.Annotations[api.FailsafeAnnotation] = failsafe
	return a
}

// begins waits until the pods are behind a Service, and standbys support the holder.
func (s *safe) begins() {
	s.Helper()
	s.service = app.Service(s.Space, s.App)
	s.Await(space.StartTimeout, "the pods are behind the Service", s.serves)
	s.asks() // these connections do not count: the node may learn of the Service late
	if s.App.Replicas > 1 {
		s.supported()
	}
}

// supported waits until two standbys support the holder.
func (s *safe) supported() {
	s.Helper()
	s.Await(space.StartTimeout, "two standbys support the holder", func() bool {
		return len(lease.Supporters(s.Space, lease.OfDeployment(s.App.Name)).IDs) == api.MostSupporters
	})
}

// serves reports whether all pods are behind the Service.
func (s *safe) serves() bool { return len(app.Endpoints(s.Space, s.service)) == int(*s.App.Count()) }

// other reports whether another process than before runs the application.
func (s *safe) other() bool { return app.After(s.Space, s.App, s.Before) != nil }

// ask sends requests to the Service until the call of answered.
func (s *safe) ask() {
	s.Helper()
	s.requests = client.Start(s.Space, s.Lab, s.Before.Node, client.Anew, s.service.Spec.ClusterIP)
	s.Await(space.StartTimeout, "the Service answers", s.requests.Answered)
}

// asks waits until the Service answers.
func (s *safe) asks() {
	s.Helper()
	s.ask()
	s.requests.Stop()
}

// answered ends the requests, and requires that all had an answer.
func (s *safe) answered() {
	s.Helper()
	sum := s.requests.Stop()
	s.Logf("%s: %d requests, the slowest took %v", s.App.Name, sum.Answered, sum.Slowest)
	assert.Empty(s, sum.Failed, s.App.Name)
}

// restarts kills the application, and requires that it starts again in the same hold.
func (s *safe) restarts() {
	s.Helper()
	process.MustSignal(s.Space, s.Victim, process.Child, unix.SIGKILL)
	s.Await(space.Soon, s.App.Name+" runs again", s.other)
	next := app.After(s.Space, s.App, s.Before)
	s.Logf("%s ran again %v after the kill", s.App.Name, next.Start-s.Process(s.Before.ID).Last)
	require.Equal(s, s.Before.Pod, next.Pod)
	assert.Equal(s, s.Before.Token, next.Token, "the hold went on")
	s.Before = next
}

// released waits for the next pod after the deletion of the holder, and requires that the holder released the slot.
func (s *safe) released() {
	s.Helper()
	// After a restart of the API server each kubelet may learn of its pods a minute late.
	s.Await(space.StartTimeout, "another pod runs "+s.App.Name, s.other)
	// Without a release, a standby waits for the lease duration since the last renewal, and other pods for the
	// duration in the Lease.
	wait := api.DefaultLeaseDuration
	failsafe, problem := api.ParseFailsafe(s.App.Annotations[api.FailsafeAnnotation])
	require.Empty(s, problem)
	if failsafe.Alone {
		wait = failsafe.Stated(wait)
	}
	app.VacantFor(s.Space, s.App, s.Before, wait-api.RenewPeriod(api.DefaultLeaseDuration), s.App.Name+": by a release")
}

// TestSupportersKeepNoSlotFromACutOffHolder cuts the holder's node off, in several ways. The slot stays where it is
// only if the holder reaches the API server.
func TestSupportersKeepNoSlotFromACutOffHolder(t *testing.T) {
	suffering := func(t *testing.T, name string) *safe {
		a := app.Suffering(name)
		a.Annotations[api.FailsafeAnnotation] = "10m"
		s := &safe{Holder: holder.Deploy(t, a, "it cuts a node off")}
		s.supported()
		return s
	}
	const renews = lease.Fault / 6
	t.Run("a dead node", func(t *testing.T) {
		h := suffering(t, "dead")
		var boot func()
		h.Suffers(func() { boot = fault.Node(t, h.Victim.Spec.NodeName, h.Lab.Crash, h.Lab.Boot) })
		h.TakenOver()
		boot()
	})
	t.Run("from the API server and the standbys", func(t *testing.T) {
		h := suffering(t, "cut")
		var heal func()
		h.Suffers(func() { heal = fault.Node(t, h.Victim.Spec.NodeName, h.Lab.Cut, h.Lab.Heal) })
		h.TakenOver()
		heal()
		h.StandsBy()
	})
	t.Run("from the API server", func(t *testing.T) {
		h := suffering(t, "apart")
		var heal func()
		h.Suffers(func() { heal = fault.Node(t, h.Victim.Spec.NodeName, h.Lab.CutFromAPI, h.Lab.ReachAPI) })
		// A standby promises until it has written for a third of the lease duration, and then waits for its promise.
		most := lease.Fault + 2*renews + lease.Fault + space.Soon
		h.Await(most, "another takes over", h.other)
		next := app.After(h.Space, h.App, h.Before)
		assert.GreaterOrEqual(t, next.Start, h.Seen+lease.Fault, "nobody starts before the lease has run out")
		assert.LessOrEqual(t, next.Start, h.At+lease.Fault+2*renews+lease.Fault+lease.Handover)
		assert.NotEqual(t, h.Victim.Spec.NodeName, next.Node)
		t.Logf("child dead %v after the fault, the next one started %v after it", h.Process(h.Before.ID).Last-h.At, next.Start-h.At)
		heal()
		h.StandsBy()
	})
	t.Run("from the standbys", func(t *testing.T) {
		h := suffering(t, "lonely")
		var heal func()
		h.Suffers(func() { heal = fault.Node(t, h.Victim.Spec.NodeName, h.Lab.CutFromPods, h.Lab.ReachPods) })
		h.Never(2*lease.Fault, "another application", h.other)
		slot := lease.OfDeployment(h.App.Name)
		h.Await(2*lease.Fault+space.Soon, "the holder has no supporters", func() bool {
			return len(lease.Supporters(h.Space, slot).IDs) == 0 && *h.Lease(slot).Spec.LeaseDurationSeconds == int32(lease.Fault/time.Second)
		})
		heal()
		h.supported()
		assert.False(t, h.other())
		assert.Zero(t, h.Process(h.Before.ID).Signalled, "nobody asked it to stop")
	})
}
