// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package lifecycle

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/app"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/cluster"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/lease"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/process"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/software"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/space"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/status"
)

// The agent and the kubelet may learn of the pod's deletion at the same instant. Then both of them
// stop an application that started milliseconds ago.
//
// docs/reference/compatibility.md: lifecycle/exit-codes carried
func TestPodDeletionKeepsExitCodeOfStartingApplication(t *testing.T) {
	cluster.NeedLab(t, "it kills processes of pods")
	t.Parallel()
	s := space.New(t)
	const code = 9
	var all []*software.Specimen
	for i := range 6 {
		name := fmt.Sprintf("brief-%d", i)
		claim := map[string]string{api.LockAnnotation: name, api.LeaseDurationAnnotation: lease.Lasting.String()}
		all = append(all, software.NewSpecimen(s, software.Software{Name: "app", Serves: begun}, name, claim, func(p *corev1.PodTemplateSpec) {
			p.Spec.Containers[0].Args = append(p.Spec.Containers[0].Args, fmt.Sprintf("-stop-code=%d", code))
		}))
	}
	for _, p := range all {
		p.Start()
		pod := p.Pod(p.Name)
		// The application first installs its handler of SIGTERM, and then begins its record. A
		// SIGTERM before the handler's installation ends any Go program, with or without a gate.
		// So the function "begins" waits for the record.
		begins := func(after string) (id string) {
			p.Await(space.StartTimeout, p.Name+" runs", func() bool {
				now := p.Running(p.Name)
				if now == nil || now.ID == after {
					return false
				}
				id = now.ID
				return true
			})
			return id
		}
		first := begins("")
		process.SignalMain(p.Space, pod, unix.SIGKILL)
		begins(first)
		app.DeletePod(p.Space, pod)
		select {
		case last := <-p.Final:
			end := status.Container(last, "app")
			require.NotNil(t, end.State.Terminated, p.Name)
			assert.EqualValues(t, code, end.State.Terminated.ExitCode, p.Name)
			assert.EqualValues(t, 1, end.RestartCount, p.Name)
		case <-time.After(space.StartTimeout):
			require.FailNow(t, p.Name+" is not deleted")
		}
	}
}
