// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package handovers

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/app"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/cluster"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/kubectl"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/process"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/space"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/status"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/webhook"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/workload"
	"github.com/metaparticle-io/metaparticle/test/e2e/record"
)

// TestRolloutAndHandoverNeedNoWebhook takes the webhook, and with it enroll, away once all pods exist. A pod that
// does not exist yet would wait for the webhook, so the Deployment makes all new pods at once.
func TestRolloutAndHandoverNeedNoWebhook(t *testing.T) {
	cluster.NeedLab(t, "it needs the record, and suspends a process")
	s := space.New(t)
	stuck := impatient("stuck", "/health/ready", 2)
	app.Create(s, stuck)
	probed := func(c *corev1.Container) { c.ReadinessProbe = readiness("/health/ready") }
	old, good := workload.Version{Name: "old", Edit: probed}, workload.Version{Name: "good", Edit: probed}
	w := workload.Start(s, workload.Named(s, "deployment-2", 2), old, grace)
	awaitReady(s, stuck)
	hangs := app.AwaitRunning(s, stuck, space.Soon)

	kubectl.Must(s, "", "patch", "deployment/"+w.App.Name, "-p", `{"spec":{"strategy":{"rollingUpdate":{"maxSurge":"100%"}}}}`)
	began := record.Now()
	// The turn would come at once, before the webhook is gone.
	kubectl.Must(s, "", "annotate", "lease", w.Slot(), api.PausedAnnotation+"="+string(api.PauseHold))
	w.Apply(good)
	s.Await(space.StartTimeout, "both new pods wait beside the two old ones", func() bool {
		up := 0
		for _, pod := range s.Pods(w.App.Name) {
			if status.ContainersRun(pod) {
				up++
			}
		}
		made, _ := w.Left(good)
		return made == 2 && up == 4
	})
	webhook.TakeAway(t)
	webhook.Refused(s, app.Bare(s, "later", webhook.Claims), `failed calling webhook "pods.metaparticle.io"`)
	require.Empty(t, w.Starts(began), "the turn comes after the webhook is gone")
	kubectl.Must(s, "", "annotate", "lease", w.Slot(), api.PausedAnnotation+"-")

	hangsAndMoves(s, stuck, hangs, func() { process.MustSignal(s, s.Pod(hangs.Pod), process.Child, unix.SIGSTOP) })
	require.NoError(t, w.Finishes(time.Minute))
	w.AwaitVersion(good)
	assert.Equal(t, good.Name, w.Runs())
	stops, _ := w.Stops(began)
	assert.Equal(t, 1, stops)
}
