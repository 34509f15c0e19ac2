// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package exclusive

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

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

// TestApplicationSurvivesTheOutageOfItsFailsafe lets the API server store nothing, and kills the application in
// the middle. In make test nothing answers for a while. With -every-fault each kind of outage lasts for four
// minutes, and the first one for eight.
//
// docs/reference/compatibility.md: lifecycle/failsafe carried
func TestApplicationSurvivesTheOutageOfItsFailsafe(t *testing.T) {
	for i, o := range fault.Outages() {
		value, lasts := "1m,alone", 36*time.Second // without the annotation it would stop after 15 s
		if software.Every {
			value, lasts = "10m,alone", 4*time.Minute
			if i == 0 {
				lasts *= 2
			}
		} else if i > 0 {
			break
		}
		t.Run(o.Name, func(t *testing.T) { survives(t, o, value, lasts) })
	}
}

func survives(t *testing.T, o fault.Outage, failsafe string, lasts time.Duration) {
	a := app.Singleton("failsafe")
	a.Replicas = 1
	a.Annotations[api.FailsafeAnnotation] = failsafe
	h := holder.Deploy(t, a, "it stops the API server")
	service := app.Service(h.Space, h.App)
	h.Await(space.StartTimeout, "the pod is behind the Service", func() bool { return len(app.Endpoints(h.Space, service)) == 1 })
	ask := func() *client.Client {
		requests := client.Start(h.Space, h.Lab, h.Before.Node, client.Anew, service.Spec.ClusterIP)
		h.Await(space.StartTimeout, "the Service answers", requests.Answered)
		return requests
	}
	ask().Stop() // these connections do not count: the node may learn of the Service late
	answers := func(requests *client.Client) {
		sum := requests.Stop()
		t.Logf("%d requests, the slowest took %v", sum.Answered, sum.Slowest)
		assert.Empty(t, sum.Failed)
	}

	requests, began := ask(), record.Now()
	end := o.Begin(t, h.Lab, h.Before.Node)
	other := func() bool { return app.After(h.Space, h.App, h.Before) != nil }
	h.Never(lasts/2, "another application", other)
	answers(requests)

	process.MustSignal(h.Space, h.Victim, process.Child, unix.SIGKILL)
	h.Await(space.Soon, "the application runs again", other)
	next := app.After(h.Space, h.App, h.Before)
	t.Logf("killed %v into the outage, it ran again after %v", h.Process(h.Before.ID).Last-began, next.Start-h.Process(h.Before.ID).Last)
	require.Equal(t, h.Before.Pod, next.Pod)
	assert.Equal(t, h.Before.Token, next.Token, "the hold went on")

	h.Before = next
	if o.Stores {
		again := func() bool { return app.Restarts(h.Space, h.App) == 1 && len(app.Endpoints(h.Space, service)) == 1 }
		h.Await(space.StartTimeout, "the pod is behind the Service again, as after every restart of a container", again)
	}
	ask().Stop() // these do not count either: the application opens its port a moment after its start
	requests = ask()
	h.Never(lasts-(record.Now()-began), "another application", other)
	t.Logf("the outage lasted %v", record.Now()-began)
	end()
	h.Never(lease.Fault, "another application", other)
	answers(requests)
	assert.Zero(t, h.Process(next.ID).Signalled, "nobody asked it to stop")

	app.DeletePod(h.Space, h.Victim)
	// After a restart of the API server each kubelet may learn of its pods a minute late.
	h.Await(space.StartTimeout, "a new pod runs it", other)
	long, problem := api.ParseFailsafe(failsafe)
	require.Empty(t, problem)
	// Without a release, the next pod waits for the duration in the Lease since the last renewal.
	app.VacantFor(h.Space, h.App, next, long.Stated(api.DefaultLeaseDuration)-api.RenewPeriod(api.DefaultLeaseDuration), "by a release")
}
