// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package holder

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/test/cluster/lab"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/app"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/cluster"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/lease"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/process"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/space"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/status"
	"github.com/metaparticle-io/metaparticle/test/e2e/record"
)

// Holder is a deployed singleton with the pod that held its slot at the beginning.
type Holder struct {
	*space.Space
	App app.App
	Lab *lab.Cluster
	// Before is the process of the application at the beginning. Victim is the pod of this
	// process.
	Before *record.Process
	Victim *corev1.Pod
	// Seen is the instant of the last renewal that the test read before the fault. At is
	// the instant after the fault. The holder's last renewal is between these two
	// instants.
	Seen, At time.Duration
}

// Deploy deploys a singleton and waits until one pod runs the application. The argument "reason"
// is the cause for which the test needs the test cluster.
func Deploy(t *testing.T, a app.App, reason string) Holder {
	t.Helper()
	l := cluster.NeedLab(t, reason)
	return Holder{Space: space.New(t), Lab: l}.Beside(a)
}

// Beside deploys another singleton in the same namespace, as Deploy does.
func (h Holder) Beside(a app.App) Holder {
	h.Helper()
	app.Deploy(h.Space, a)
	h.App, h.Before = a, app.AwaitRunning(h.Space, a, space.Soon)
	h.Victim = h.Pod(h.Before.Pod)
	require.NotNil(h, h.Victim)
	return h
}

// Suffers injects a fault. Suffers sets Seen to the last renewal before the fault, and At
// to the instant after the fault.
func (h *Holder) Suffers(do func()) {
	h.Helper()
	h.Seen = lease.Renewed(h.Space, lease.OfDeployment(h.App.Name))
	do()
	h.At = record.Now()
}

// TakenOver waits until another pod runs the application, and returns the process of that pod. The
// old child must be dead by its deadline. The next child must start after the lease has expired,
// but soon after that instant.
func (h *Holder) TakenOver() *record.Process {
	h.Helper()
	b := lease.Budget(h.T, lease.Fault)
	var next *record.Process
	h.Await(b.Duration+space.Soon, "another takes over", func() bool {
		next = app.After(h.Space, h.App, h.Before)
		return next != nil
	})
	old := h.Process(h.Before.ID)
	assert.LessOrEqual(h, old.Last, h.At+b.Deadline(), "the child is dead at the deadline")
	assert.GreaterOrEqual(h, next.Start, h.Seen+b.Duration, "nobody starts before the lease has run out")
	assert.LessOrEqual(h, next.Start, h.At+b.Duration+b.Duration/2, "somebody starts when the lease has run out")
	assert.NotEqual(h, h.Victim.Spec.NodeName, next.Node)
	h.Logf("child dead %v after the fault, the next one started %v after it",
		(old.Last - h.At).Round(time.Millisecond), (next.Start - h.At).Round(time.Millisecond))
	return next
}

// Process returns a process from the current record.
func (h Holder) Process(id string) record.Process {
	h.Helper()
	for _, p := range h.Record(h.App.RecordName()) {
		if p.ID == id {
			return p
		}
	}
	require.FailNow(h, "not in the record: "+id)
	return record.Process{}
}

// StandsBy waits until the pod that lost its slot stands by.
func (h Holder) StandsBy() {
	h.Helper()
	h.Await(space.StartTimeout, "the old pod stands by", func() bool {
		pod := h.Pod(h.Victim.Name)
		return pod != nil && status.ContainersRun(pod) && process.Find(pod, process.Shim) != nil && process.Find(pod, process.Child) == nil &&
			pod.Labels[api.RoleLabel] == ""
	})
}
