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

// Fault is something that ends a hold, or does not.
type Fault struct {
	Name string
	// vacancy is for how long nobody runs after it at most.
	Vacancy time.Duration
	Strike  func(*space.Space, *corev1.Pod)
	// survivable: the application may run on.
	Survivable bool
}

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
		// A new agent resumes the hold, unless it sits in a back-off.
		{"agent killed", lease.Takeover, kill(process.Agent), true},
		{"agent and shim killed", lease.Takeover, kill(process.Agent, process.Shim), false},
		// It is above both containers, so the agent may die with the child.
		{"containerd's shim killed", lease.Takeover, kill(process.RuntimeShim), true},
	}
}
