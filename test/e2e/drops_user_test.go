// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	corev1 "k8s.io/api/core/v1"

	"github.com/metaparticle-io/metaparticle/api"
)

// droppable is the security context in which people run images that begin as root
// and drop that: what the entrypoint needs, and nothing else.
func droppable() *corev1.SecurityContext {
	return &corev1.SecurityContext{Capabilities: &corev1.Capabilities{
		Drop: []corev1.Capability{"ALL"}, Add: []corev1.Capability{"SETUID", "SETGID"},
	}}
}

// dropping are applications that drop their user, and what each logs when it is
// asked to stop.
var dropping = map[string]struct {
	software
	stopped string
}{
	"gosu": {software{name: "redis-gosu", started: "Ready to accept connections", boots: 1, serves: begun, unordered: true,
		edit: func(p *corev1.PodTemplateSpec) { p.Spec.Containers[0].SecurityContext = droppable() },
	}, "Received SIGTERM"},
	"setpriv": {software{name: "redis-gosu", started: "the script runs as 1000", boots: 1, serves: begun,
		edit: func(p *corev1.PodTemplateSpec) {
			c := &p.Spec.Containers[0]
			c.SecurityContext = droppable()
			c.Command = []string{"setpriv", "--reuid=1000", "--regid=1000", "--clear-groups", "bash", "-c",
				`trap 'echo got TERM; exit 0' TERM; echo the script runs as $(id -u); while :; do sleep 1000 & wait; done`}
		},
	}, "got TERM"},
}

func begun(*space, *corev1.Pod) bool { return true }

// compat: lifecycle/drops-user carried
func TestApplicationThatDropsItsUserStopsWhenAsked(t *testing.T) {
	needLab(t, "it makes an image")
	t.Parallel()
	for name, w := range dropping {
		t.Run(name, func(t *testing.T) {
			s := newSpace(t)
			template := w.template(t, corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}})
			claim := map[string]string{api.SingletonAnnotation: "true", api.LeaseDurationAnnotation: lastingLease.String()}
			plain, gated := s.specimen(w.software, "plain", nil, template), s.specimen(w.software, "gated", claim, template)
			for _, p := range []*specimen{plain, gated} {
				p.start()
				p.followLog()
				p.deletePod(p.pod(p.name))
				p.awaitDeleted()
				end := p.lives[0]
				assert.Zero(t, end.code, "%s: %s", p.name, end.log)
				assert.Contains(t, end.log, w.stopped, p.name)
			}
			assert.Equal(t, plain.lives[0].reason, gated.lives[0].reason)

			a := lasting(name)
			a.replicas, a.edit = 2, template
			s.deployOf(a)
			first := s.awaitHolder(deploymentSlot(name))
			_, asked := s.yields(a)
			s.await(soon, "it was asked to stop", func() bool {
				return strings.Count(s.mustKubectl("", "logs", first.Name, "-c", "app"), w.stopped) == asked
			})
			assert.Zero(t, s.restarts(a), "a yield restarts nothing")
			assert.Empty(t, s.said(first, "SignalNotPermitted"))
		})
	}
}

// deployOf is deploy of software that keeps no record: its holder runs it.
func (s *space) deployOf(a app) {
	s.Helper()
	s.create(a)
	s.awaitGated(a)
	s.await(startTimeout, a.name+" runs", func() bool {
		holder := s.holder(deploymentSlot(a.name))
		return holder != nil && mainOf(s.pod(holder.Name)) != nil
	})
}
