// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package fault

import (
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"github.com/metaparticle-io/metaparticle/test/e2e/harness/app"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/lease"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/process"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/space"
)

// Fault harms the pod that holds a slot.
type Fault struct {
	Name string
	// Vacancy is the longest allowed time after the fault without a pod that runs the
	// application.
	Vacancy time.Duration
	Strike  func(*space.Space, *corev1.Pod)
	// Survivable reports that the application may run on after the fault.
	Survivable bool
}

// OfPods returns the faults that harm one pod and nothing else.
func OfPods() []Fault {
	kill := func(roles ...process.Role) func(*space.Space, *corev1.Pod) {
		return func(s *space.Space, pod *corev1.Pod) {
			for _, r := range roles {
				process.Signal(s, pod, r, unix.SIGKILL)
			}
		}
	}
	return []Fault{
		{"pod deleted", lease.Handover, app.DeletePod, false},
		{"child killed", lease.Handover, kill(process.Child), false},
		{"shim killed", lease.Handover, kill(process.Shim), false},
		// Usually a new agent resumes the hold, and the application runs on. If the agent's container
		// waits in a back-off, the Lease expires, and a standby takes over.
		{"agent killed", lease.Takeover, kill(process.Agent), true},
		{"agent and shim killed", lease.Takeover, kill(process.Agent, process.Shim), false},
		// containerd's shim is the parent process of all containers of the pod. After its death the
		// agent may end or run on. The child, too, may end or run on.
		{"containerd's shim killed", lease.Takeover, kill(process.RuntimeShim), true},
	}
}
