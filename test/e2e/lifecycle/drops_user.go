// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package lifecycle

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	corev1 "k8s.io/api/core/v1"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/app"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/cluster"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/kubectl"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/lease"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/process"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/software"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/space"
)

// droppable returns a usual security context of images that start as root and change
// their user. The context has only the capabilities that the entrypoint needs.
func droppable() *corev1.SecurityContext {
	return &corev1.SecurityContext{Capabilities: &corev1.Capabilities{
		Drop: []corev1.Capability{"ALL"}, Add: []corev1.Capability{"SETUID", "SETGID"},
	}}
}

// The map named dropping has applications that start as root and change their user, each with its
// log line at the stop signal.
var dropping = map[string]struct {
	software.Software
	stopped string
}{
	"gosu": {software.Software{Name: "redis-gosu", Started: "Ready to accept connections", Boots: 1, Serves: begun, Unordered: true,
		Edit: func(p *corev1.PodTemplateSpec) { p.Spec.Containers[0].SecurityContext = droppable() },
	}, "Received SIGTERM"},
	"setpriv": {software.Software{Name: "redis-gosu", Started: "the script runs as 1000", Boots: 1, Serves: begun,
		Edit: func(p *corev1.PodTemplateSpec) {
			c := &p.Spec.Containers[0]
			c.SecurityContext = droppable()
			c.Command = []string{"setpriv", "--reuid=1000", "--regid=1000", "--clear-groups", "bash", "-c",
				`trap 'echo got TERM; exit 0' TERM; echo the script runs as $(id -u); while :; do sleep 1000 & wait; done`}
		},
	}, "got TERM"},
}

// begun reports every pod as serving, because these tests send no requests to the
// application.
func begun(*space.Space, *corev1.Pod) bool { return true }

// docs/reference/compatibility.md: lifecycle/drops-user carried
func TestApplicationThatChangesUserGetsTheStopSignal(t *testing.T) {
	cluster.NeedLab(t, "it makes an image")
	t.Parallel()
	for name, w := range dropping {
		t.Run(name, func(t *testing.T) {
			s := space.New(t)
			template := w.Template(t, corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}})
			claim := map[string]string{api.SingletonAnnotation: "true", api.LeaseDurationAnnotation: lease.Lasting.String()}
			plain, gated := software.NewSpecimen(s, w.Software, "plain", nil, template), software.NewSpecimen(s, w.Software, "gated", claim, template)
			for _, p := range []*software.Specimen{plain, gated} {
				p.Start()
				p.FollowLog()
				app.DeletePod(p.Space, p.Pod(p.Name))
				p.AwaitDeleted()
				end := p.Lives[0]
				assert.Zero(t, end.Code, "%s: %s", p.Name, end.Log)
				assert.Contains(t, end.Log, w.stopped, p.Name)
			}
			assert.Equal(t, plain.Lives[0].Reason, gated.Lives[0].Reason)

			a := app.Lasting(name)
			a.Replicas, a.Edit = 2, template
			deployOf(s, a)
			first := s.AwaitHolder(lease.OfDeployment(name))
			_, asked := app.Yields(s, a)
			s.Await(space.Soon, "it was asked to stop", func() bool {
				return strings.Count(kubectl.Must(s, "", "logs", first.Name, "-c", "app"), w.stopped) == asked
			})
			assert.Zero(t, app.Restarts(s, a), "a yield restarts nothing")
			assert.Empty(t, s.EventMessages(first, "SignalNotPermitted"))
		})
	}
}

// deployOf deploys an application that keeps no record, and waits until the holder runs
// it.
func deployOf(s *space.Space, a app.App) {
	s.Helper()
	app.Create(s, a)
	app.AwaitGated(s, a)
	s.Await(space.StartTimeout, a.Name+" runs", func() bool {
		holder := s.Holder(lease.OfDeployment(a.Name))
		return holder != nil && process.Main(s.Pod(holder.Name)) != nil
	})
}
