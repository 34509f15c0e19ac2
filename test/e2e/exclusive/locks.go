// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package exclusive

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/app"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/cluster"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/kubectl"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/lease"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/space"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/status"
	"github.com/metaparticle-io/metaparticle/test/e2e/record"
)

// docs/reference/compatibility.md: kinds/cron-job kinds/stateful-set-parallel kinds/job carried
func TestLockIsExclusiveAmongDifferentTypesOfWorkloads(t *testing.T) {
	cluster.NeedLab(t, "it needs the record")
	t.Parallel()
	s := space.New(t)
	const lock = "books"
	// The applications of web and db run for a second, end, and start again after a back-off.
	turns := []string{"-run-for=1s", "-stop-delay=100ms"}
	web, db, job := app.Locked("web", lock), app.Locked("db", lock), app.Locked("nightly", lock)
	web.Replicas, web.Args, db.Args = 2, turns, turns
	job.Args = []string{"-run-for=1s"}
	app.Create(s, web)
	_, err := s.Client.AppsV1().StatefulSets(s.Namespace).Create(t.Context(), app.StatefulSet(s, db), metav1.CreateOptions{})
	require.NoError(t, err)
	cron, err := s.Client.BatchV1().CronJobs(s.Namespace).Create(t.Context(), app.CronJob(s, job), metav1.CreateOptions{})
	require.NoError(t, err)
	s.Await(space.StartTimeout, "somebody has the lock", func() bool { return s.Running(lock) != nil })

	jobs := []string{"nightly-1", "nightly-2"}
	for _, name := range jobs {
		kubectl.Must(s, "", "create", "job", name, "--from=cronjob/"+cron.Name)
	}
	for _, name := range jobs {
		s.Await(space.StartTimeout, name+" is complete", func() bool {
			job, err := s.Client.BatchV1().Jobs(s.Namespace).Get(t.Context(), name, metav1.GetOptions{})
			return err == nil && status.Complete(job)
		})
	}
	s.Await(space.StartTimeout, "each has had its turn", func() bool {
		for _, name := range append(jobs, "web", "db") {
			if !slices.ContainsFunc(s.Record(lock), func(p record.Process) bool { return strings.HasPrefix(p.Pod, name+"-") }) {
				return false
			}
		}
		return true
	})
	for _, p := range s.Record(lock) {
		assert.Equal(t, api.LockLease(lock), p.Slot)
	}
}

// elector is a program that competes for a slot by the leader election of client-go. As the
// guarantees require, the program stops its work before its release.
type elector struct {
	s    *space.Space
	slot string
	name string
	// stop is the function that ends the program. The channel "done" is closed after the release.
	stop context.CancelFunc
	done chan struct{}
}

// elect starts an elector, which competes for a slot. While the elector leads, the elector records
// its work under the given name.
func elect(s *space.Space, slot, name string) *elector {
	s.Helper()
	ctx, stop := context.WithCancel(context.Background())
	e := &elector{s: s, slot: slot, name: name, stop: stop, done: make(chan struct{})}
	lock := &resourcelock.LeaseLock{
		LeaseMeta: metav1.ObjectMeta{Namespace: s.Namespace, Name: slot}, Client: s.Client.CoordinationV1(),
		LockConfig: resourcelock.ResourceLockConfig{Identity: "elector"},
	}
	// The elector runs until the work has ended, so that the work ends before the release.
	working := make(chan struct{})
	config := leaderelection.LeaderElectionConfig{
		// With these times the elector survives the same delays as a pod with the same
		// lease duration.
		Lock: lock, LeaseDuration: lease.Fault, RenewDeadline: lease.Fault / 2, RetryPeriod: time.Second,
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: func(context.Context) { defer close(working); e.work(ctx) },
			OnStoppedLeading: func() {},
		},
		ReleaseOnCancel: true,
	}
	le, err := leaderelection.NewLeaderElector(config)
	require.NoError(s, err)
	outer, release := context.WithCancel(context.Background())
	go func() {
		<-ctx.Done()
		if le.IsLeader() {
			<-working
		}
		release()
	}()
	go func() { defer close(e.done); le.Run(outer) }()
	s.Cleanup(func() { stop(); <-e.done })
	return e
}

// work pretends to work until the context ends. Like the test application, the method "work" writes
// a record of its start and its end.
func (e *elector) work(ctx context.Context) {
	w, err := record.Begin(e.s.Dir, e.name, record.Meta{Pod: "elector", UID: "elector", Node: "host"})
	if !assert.NoError(e.s, err) {
		return
	}
	<-ctx.Done()
	assert.NoError(e.s, w.End(0))
	assert.NoError(e.s, w.Lock.Close())
}

func TestPodAndClientGoElectorExcludeEachOther(t *testing.T) {
	cluster.NeedLab(t, "it needs the record")
	t.Parallel()
	s := space.New(t)
	const lock = "shared"
	slot := api.LockLease(lock)
	a := app.Locked("pods", lock)
	a.Replicas, a.Annotations[api.LeaseDurationAnnotation] = 2, lease.Fault.String()
	app.Deploy(s, a)
	first := app.AwaitRunning(s, a, space.Soon)

	e := elect(s, slot, lock)
	s.Never(lease.Fault+lease.Handover, "the elector has the lock that a pod holds", func() bool { now := s.Running(lock); return now != nil && now.ID != first.ID })

	// The test deletes the pods, so the elector takes the lock. The elector keeps the
	// lock when new pods start.
	app.Scale(s, a, 0)
	s.Await(lease.Fault+space.StartTimeout, "the elector has the lock", func() bool {
		now := s.Running(lock)
		return now != nil && now.Pod == "elector"
	})
	app.Scale(s, a, 2)
	app.AwaitGated(s, a)
	s.Never(lease.Fault+lease.Handover, "a pod has the lock that the elector holds", func() bool { now := s.Running(lock); return now != nil && now.Pod != "elector" })

	before := app.AwaitRunning(s, a, space.Soon)
	require.Equal(t, "elector", before.Pod)
	e.stop()
	s.Await(space.StartTimeout, "a pod has the lock that the elector released", func() bool { return app.After(s, a, before) != nil })
	app.VacantFor(s, a, before, lease.Fault/2, "by a release")
}
