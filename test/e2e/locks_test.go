// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	batchv1 "k8s.io/api/batch/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/test/e2e/record"
)

// ran are the pods that a record knows of whose names begin so.
func (s *space) ran(name, app string) bool {
	for _, p := range s.record(name) {
		if pod := p.Pod; len(pod) > len(app) && pod[:len(app)+1] == app+"-" {
			return true
		}
	}
	return false
}

// compat: kinds/cron-job kinds/stateful-set-parallel kinds/job carried
func TestOneLockSharedByDeploymentStatefulSetAndCronJob(t *testing.T) {
	needLab(t, "it needs the record")
	t.Parallel()
	s := newSpace(t)
	const lock = "books"
	// Each has a turn, ends, and comes again after a back-off.
	turns := []string{"-run-for=1s", "-stop-delay=100ms"}
	web, db, job := locked("web", lock), locked("db", lock), locked("nightly", lock)
	web.replicas, web.args, db.args = 2, turns, turns
	job.args = []string{"-run-for=1s"}
	s.create(web)
	_, err := s.client.AppsV1().StatefulSets(s.name).Create(t.Context(), s.statefulSet(db), metav1.CreateOptions{})
	require.NoError(t, err)
	cron, err := s.client.BatchV1().CronJobs(s.name).Create(t.Context(), s.cronJob(job), metav1.CreateOptions{})
	require.NoError(t, err)
	s.await(startTimeout, "somebody has the lock", func() bool { return s.running(lock) != nil })

	jobs := []string{"nightly-1", "nightly-2"}
	for _, name := range jobs {
		s.mustKubectl("", "create", "job", name, "--from=cronjob/"+cron.Name)
	}
	for _, name := range jobs {
		s.await(startTimeout, name+" is complete", func() bool {
			job, err := s.client.BatchV1().Jobs(s.name).Get(t.Context(), name, metav1.GetOptions{})
			return err == nil && complete(job)
		})
	}
	s.await(startTimeout, "each has had its turn", func() bool {
		return s.ran(lock, "web") && s.ran(lock, "db") && s.ran(lock, "nightly-1") && s.ran(lock, "nightly-2")
	})
	for _, p := range s.record(lock) {
		assert.Equal(t, api.LockLease(lock), p.Slot)
	}
}

func complete(job *batchv1.Job) bool {
	for _, c := range job.Status.Conditions {
		if c.Type == batchv1.JobComplete {
			return c.Status == "True"
		}
	}
	return false
}

func TestTwoLocksInOppositeOrderDoNotDeadlock(t *testing.T) {
	needLab(t, "it needs the record")
	t.Parallel()
	s := newSpace(t)
	both := func(name, locks string) app {
		return app{name: name, record: "left,right", replicas: 2, annotations: claim(api.LockAnnotation, locks),
			args: []string{"-run-for=500ms"}}
	}
	apps := []app{both("ab", "left,right"), both("ba", "right,left"), locked("a", "left"), locked("b", "right")}
	apps[2].args, apps[3].args = []string{"-run-for=500ms"}, []string{"-run-for=500ms"}
	for _, a := range apps {
		s.create(a)
	}
	s.await(startTimeout, "each of them has had both its locks", func() bool {
		return s.ran("left", "ab") && s.ran("right", "ab") && s.ran("left", "ba") && s.ran("right", "ba") &&
			s.ran("left", "a") && s.ran("right", "b")
	})
	for _, p := range s.record("left") {
		if p.Pod[:2] == "ab" || p.Pod[:2] == "ba" {
			assert.Equal(t, api.LockLease("left")+","+api.LockLease("right"), p.Slot)
		}
	}
}

// elector is a program on client-go's elector that stops its work before it
// releases, as the guarantee asks.
type elector struct {
	s    *space
	slot string
	name string
	// stop ends it; done is closed when it has released.
	stop context.CancelFunc
	done chan struct{}
}

func (s *space) elect(slot, name string) *elector {
	s.Helper()
	ctx, stop := context.WithCancel(context.Background())
	e := &elector{s: s, slot: slot, name: name, stop: stop, done: make(chan struct{})}
	lock := &resourcelock.LeaseLock{
		LeaseMeta: metav1.ObjectMeta{Namespace: s.name, Name: slot}, Client: s.client.CoordinationV1(),
		LockConfig: resourcelock.ResourceLockConfig{Identity: "elector"},
	}
	// Work ends before the release: the elector runs until the work has ended.
	working := make(chan struct{})
	config := leaderelection.LeaderElectionConfig{
		// It rides out what the pods' lease does.
		Lock: lock, LeaseDuration: faultLease, RenewDeadline: faultLease / 2, RetryPeriod: time.Second,
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

// work is recorded like the application's.
func (e *elector) work(ctx context.Context) {
	w, err := record.Begin(e.s.dir, e.name, record.Meta{Pod: "elector", UID: "elector", Node: "host"})
	if !assert.NoError(e.s, err) {
		return
	}
	<-ctx.Done()
	assert.NoError(e.s, w.End(0))
	assert.NoError(e.s, w.Lock.Close())
}

func TestProgramOnClientGoAndAnnotatedPodExcludeEachOther(t *testing.T) {
	needLab(t, "it needs the record")
	t.Parallel()
	s := newSpace(t)
	const lock = "shared"
	slot := api.LockLease(lock)
	a := locked("pods", lock)
	a.replicas, a.annotations[api.LeaseDurationAnnotation] = 2, faultLease.String()
	s.deploy(a)
	first := s.awaitRunning(a, soon)

	e := s.elect(slot, lock)
	s.never(faultLease+handover, "the elector has the lock that a pod holds", func() bool { now := s.running(lock); return now != nil && now.ID != first.ID })

	// The pods leave, the elector gets it, and keeps it when they are back.
	s.scale(a, 0)
	s.await(faultLease+startTimeout, "the elector has the lock", func() bool {
		now := s.running(lock)
		return now != nil && now.Pod == "elector"
	})
	s.scale(a, 2)
	s.awaitGated(a)
	s.never(faultLease+handover, "a pod has the lock that the elector holds", func() bool { now := s.running(lock); return now != nil && now.Pod != "elector" })

	before := s.awaitRunning(a, soon)
	require.Equal(t, "elector", before.Pod)
	e.stop()
	s.await(startTimeout, "a pod has the lock that the elector released", func() bool { return s.after(a, before) != nil })
	assert.Less(t, s.vacancyAfter(a, before), faultLease/2, "by a release")
}

func (s *space) scale(a app, replicas int32) {
	s.Helper()
	// A patch, as kubectl scale sends: the Deployment's controller writes, too.
	patch := fmt.Appendf(nil, `{"spec":{"replicas":%d}}`, replicas)
	_, err := s.client.AppsV1().Deployments(s.name).Patch(s.Context(), a.name, types.MergePatchType, patch, metav1.PatchOptions{}, "scale")
	require.NoError(s, err)
}
