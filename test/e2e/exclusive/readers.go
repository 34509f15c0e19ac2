// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package exclusive

import (
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/app"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/cluster"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/fault"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/lease"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/process"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/space"
	"github.com/metaparticle-io/metaparticle/test/e2e/record"
)

// catalog is a read-write lock with three slots for readers. Each slot has a separate record, and a
// writer takes the flocks of all three records. So a failed flock proves that a writer ran beside a
// reader, or that two pods ran under one slot.
type catalog struct{ *space.Space }

// places are the Leases of the readers' slots, and intent is the Lease that a writer takes first.
var (
	places = api.Claim{Kind: api.RWLock, Name: "catalog", Size: 3}.Slots(api.Workload{})[1:4]
	intent = api.IntentLease("catalog")
)

// programs returns an application of programs that bid for the lock. The argument "as" is the role
// of the programs, "reader" or "writer".
func (catalog) programs(as string, replicas int32, records string) app.App {
	a := app.App{Name: as, Replicas: replicas, Record: records, Args: []string{"-bid=rwlock/catalog", "-as=" + as}}
	a.Annotations = app.Claim(api.LocalAnnotation, "rwlock/catalog=3")
	a.Annotations[api.LeaseDurationAnnotation] = lease.Fault.String()
	return a
}

// running returns the programs with the given role that run now.
func (c catalog) running(as string) (now record.Record) {
	for _, place := range places {
		for _, p := range c.Record(place).Mains().Running(space.Fresh) {
			if strings.HasPrefix(p.Pod, as+"-") && !slices.ContainsFunc(now, func(o record.Process) bool { return o.Pod == p.Pod }) {
				now = append(now, p)
			}
		}
	}
	return now
}

// await waits until exactly n programs with the given role run, and returns these programs.
func (c catalog) await(as string, n int) (now record.Record) {
	c.Helper()
	c.Await(2*lease.Fault+space.StartTimeout, as+"s run", func() bool {
		now = c.running(as)
		return len(now) == n
	})
	return now
}

// end reads the record of the process's slot again, and returns the process with its newest time
// stamp. If the record lacks the process, end returns the argument.
func (c catalog) end(of record.Process) record.Process {
	for _, p := range c.Record(of.Slot) {
		if p.ID == of.ID {
			return p
		}
	}
	return of
}

func TestReadersAndWritersNeverRunTogetherDespiteKills(t *testing.T) {
	l := cluster.NeedLab(t, "it cuts a node off")
	c := catalog{space.New(t)}
	readers, writers := c.programs("reader", 3, "$"+api.SlotEnv), c.programs("writer", 1, strings.Join(places, ","))
	app.Create(c.Space, readers)
	read := c.await("reader", 3)
	for _, place := range places {
		assert.True(t, slices.ContainsFunc(read, func(p record.Process) bool { return p.Slot == place }), "all read at once: %v", read)
	}

	app.Create(c.Space, writers)
	app.AwaitGated(c.Space, writers)
	writer := c.AwaitHolder(intent)
	require.Equal(t, "writer", writer.Labels["app"], "a writer that waits has the intent")
	// The test disconnects the node of read[2] below, so the writer must be on another node.
	if far := slices.IndexFunc(read, func(p record.Process) bool { return p.Node != writer.Spec.NodeName }); assert.GreaterOrEqual(t, far, 0) {
		read[far], read[2] = read[2], read[far]
	}

	// When a reader stops, the reader gives its slot back. No other reader takes the slot before
	// the writer.
	app.DeletePod(c.Space, c.Pod(read[0].Pod))
	c.Await(space.StartTimeout, "the reader ends", func() bool { return c.end(read[0]).Ended })
	app.AwaitGated(c.Space, readers)
	c.Never(lease.Handover, "a reader passes the writer, or the writer reads", func() bool {
		return len(c.running("reader")) > 2 || len(c.running("writer")) > 0
	})

	// The test kills the program of a second reader, and disconnects the node of a third. The
	// writer waits until the Leases of both readers expire.
	process.Signal(c.Space, c.Pod(read[1].Pod), process.Child, unix.SIGKILL)
	killed := lease.Renewed(c.Space, read[1].Slot)
	seen := lease.Renewed(c.Space, read[2].Slot)
	heal := fault.Node(t, read[2].Node, l.Cut, l.Heal)
	cut := record.Now()
	wrote := c.await("writer", 1)[0]
	assert.GreaterOrEqual(t, wrote.Start, max(seen, killed)+lease.Fault, "each Lease has expired")
	assert.LessOrEqual(t, c.end(read[2]).Last, cut+lease.Budget(t, lease.Fault).Deadline(), "the program has ended by the deadline")
	assert.Equal(t, writer.Name, wrote.Pod)
	heal()
	c.Never(lease.Handover, "a reader runs beside the writer", func() bool { return len(c.running("reader")) > 0 })

	// After the death of a writer no program gets the lock until the writer's Leases have expired.
	seen = lease.Renewed(c.Space, intent)
	process.MustSignal(c.Space, c.Pod(wrote.Pod), process.Child, unix.SIGKILL)
	dead := record.Now()
	var next record.Record
	c.Await(2*lease.Fault+space.StartTimeout, "the lock has a next holder", func() bool {
		next = append(c.running("reader"), c.running("writer")...)
		next = slices.DeleteFunc(next, func(p record.Process) bool { return p.Pod == wrote.Pod && p.Start <= dead })
		return len(next) > 0
	})
	for _, p := range next {
		assert.GreaterOrEqual(t, p.Start, seen+lease.Fault)
	}

	app.Scale(c.Space, writers, 0)
	c.await("reader", 3)
	c.Await(space.Soon, "the intent is free", func() bool { return c.Identity(intent) == "" })
}
