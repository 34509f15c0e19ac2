// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package rollouts

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/cluster"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/space"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/workload"
	"github.com/metaparticle-io/metaparticle/test/e2e/record"
)

const (
	// turnEnds bounds the time until the end of a turn in which the application never
	// serves. The old version serves for a minute before the turn, and the turn lasts for
	// another minute.
	turnEnds = 2*time.Minute + space.Soon
	// asksNothing is longer than the time after which a holder yields to a pod that asks. So if the
	// holder has not yielded by then, no pod has asked.
	asksNothing = 75 * time.Second
	// grace is the pods' grace period in seconds. The period is short, because some
	// versions ignore their stop signal.
	grace = 5
)

// probed returns an edit that gives the container a readiness probe of a path.
func probed(path string) func(*corev1.Container) {
	return func(c *corev1.Container) {
		c.ReadinessProbe = &corev1.Probe{PeriodSeconds: 1, ProbeHandler: corev1.ProbeHandler{
			HTTPGet: &corev1.HTTPGetAction{Path: path, Port: intstr.FromString("http")},
		}}
	}
}

// TestRolloutStallsHoweverTheNewRevisionIsBroken applies versions that do not exit immediately, but
// are broken in other ways. The old version serves again after one turn of the new version, or is
// never stopped.
func TestRolloutStallsHoweverTheNewRevisionIsBroken(t *testing.T) {
	cluster.NeedLab(t, "it needs the record")
	t.Parallel()
	ready := probed("/health/ready")
	for _, test := range []struct {
		name    string
		version workload.Version
		turns   int
	}{
		{"never ready", workload.Version{Edit: probed("/health/ready?host=elsewhere")}, 1},
		{"hangs", workload.Version{Args: []string{"-start-delay=1h", "-ignore-term"}, Edit: ready}, 1},
		{"crashes once ready", workload.Version{Args: []string{"-run-for=5s", "-exit-code=1"}, Edit: ready}, 1},
		{"image missing", workload.Version{Edit: func(c *corev1.Container) {
			// The container has a command, because the webhook would otherwise read the
			// command from the missing image, and refuse the pod.
			name, _, _ := strings.Cut(c.Image, "@")
			c.Image, c.Command = name+":missing", []string{"/app"}
		}}, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			old, broken := workload.Version{Name: "old", Edit: ready}, test.version
			broken.Name = "broken"
			s := space.New(t)
			w := workload.Start(s, workload.Named(s, "deployment-1", 1), old, grace)
			began := record.Now()
			w.Apply(broken)
			if test.turns == 0 {
				w.Never(asksNothing, "a stop of the old version", func() bool { return len(w.Starts(began)) > 0 })
			} else {
				w.Await(turnEnds, "the old version runs again", func() bool {
					return len(w.Starts(began)) > 1 && w.Runs() == old.Name
				})
			}
			stops, _ := w.Stops(began)
			assert.LessOrEqual(t, len(w.Starts(began)), 2*test.turns)
			t.Logf("%d stops, %d starts", stops, len(w.Starts(began)))
			require.Error(t, w.Finishes(time.Second))
			pods, readies := w.Left(broken)
			assert.Equal(t, 1, pods)
			assert.Zero(t, readies, "no pod of the broken version is Ready")
			w.Await(space.Soon, "the old pod is Ready", func() bool { _, readies := w.Left(old); return readies == 1 })
		})
	}
}

// Some controllers replace each old pod that is not Ready. So an old pod stays Ready while its
// application stops for a turn. The old pod also stays Ready while its application starts after
// that turn. If the old pod were not Ready, the stalled rollout of a broken version would replace
// one old pod after the other.
func TestStalledRolloutKeepsTheRemainingOldPods(t *testing.T) {
	cluster.NeedLab(t, "it needs the record")
	t.Parallel()
	// The old version takes ten seconds to start. If the probe failed during this start, the
	// kubelet would make the old pod not Ready after three failures, which take six seconds. The
	// timeout of the probe is long, because on a busy machine an application that serves may answer
	// late.
	patient := func(c *corev1.Container) {
		probed("/health/ready")(c)
		c.ReadinessProbe.PeriodSeconds, c.ReadinessProbe.TimeoutSeconds = 2, 15
	}
	old := workload.Version{Name: "old", Args: []string{"-start-delay=10s", "-stop-delay=2s"}, Edit: patient}
	broken := workload.Version{Name: "broken", Args: []string{"-exit-code=1", "-run-for=1ms"}, Edit: patient}
	for _, name := range []string{"daemonset", "statefulset-3-parallel"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := space.New(t)
			w := workload.Start(s, workload.Named(s, name, 3), old, grace)
			w.Await(space.StartTimeout, "the old version is proven", func() bool {
				return strings.Contains(s.Lease(w.Slot()).Annotations[api.RolloutAnnotation], "proven")
			})
			began := record.Now()
			w.Apply(broken)
			w.Await(turnEnds, "the broken version has its turn", func() bool { return len(w.Failed(began)) > 0 })
			w.Await(space.StartTimeout, "the old version serves again", func() bool {
				return s.Lease(w.Slot()).Annotations[api.ServingAnnotation] != "" && w.Runs() == old.Name
			})
			_, ready := w.Left(old)
			assert.Equal(t, 2, ready)
			require.Error(t, w.Finishes(time.Second))
			pods, _ := w.Left(broken)
			assert.Equal(t, 1, pods, "one old pod was replaced")
		})
	}
}
