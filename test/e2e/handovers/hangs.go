// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package handovers

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/app"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/cluster"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/lease"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/process"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/software"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/space"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/status"
	"github.com/metaparticle-io/metaparticle/test/e2e/record"
)

const (
	yieldAfter = 10 * time.Second
	// grace is the pods' grace period in seconds. A suspended process needs all of it.
	grace = 5
	// detected bounds the time until the probe has failed.
	detected = 8 * time.Second
	// The first end of a hold whose application hangs comes at the earliest a minute after the beginning of the
	// hold, and the second one two minutes after the beginning of its own.
	firstHang, secondHang = time.Minute, 2 * time.Minute
	// answered bounds the time in which standbys answer, and the next application starts. On a busy machine no
	// answer may come within two seconds. Then the holder announces its end again ten seconds later.
	answered = 2*time.Second + 10*time.Second + lease.Handover
)

// readiness returns a probe of the path, or the application's own health command if the path is empty. A node
// under load may delay an answer by up to 3 s, so the timeout is longer than that.
func readiness(path string) *corev1.Probe {
	p := &corev1.Probe{PeriodSeconds: 2, TimeoutSeconds: 5, FailureThreshold: 1}
	p.HTTPGet = &corev1.HTTPGetAction{Path: path, Port: intstr.FromInt32(8080)}
	if path == "" {
		p.ProbeHandler = corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"/app", "-check", "ready"}}}
	}
	return p
}

// impatient returns an application that hands over if it hangs. Without a path for its readiness probe it
// has no ports, like a worker without a Service.
func impatient(name, path string, replicas int32) app.App {
	a := app.Lasting(name)
	a.Replicas, a.Grace = replicas, grace
	a.Annotations[api.YieldAfterAnnotation] = yieldAfter.String()
	a.Edit = func(t *corev1.PodTemplateSpec) {
		c := &t.Spec.Containers[0]
		c.ReadinessProbe = readiness(path)
		if path == "" {
			c.Ports = nil
		}
	}
	return a
}

// deploy creates the application, and waits until all its pods are Ready and one of them runs it.
func deploy(s *space.Space, a app.App) (before *record.Process) {
	s.Helper()
	app.Deploy(s, a)
	awaitReady(s, a)
	return app.AwaitRunning(s, a, space.Soon)
}

// awaitReady waits until as many pods are Ready as the application has replicas.
func awaitReady(s *space.Space, a app.App) {
	s.Helper()
	s.Await(space.StartTimeout, "all pods of "+a.Name+" are Ready", func() bool { return len(ready(s, a)) == int(*a.Count()) })
}

// ready returns the application's pods that are Ready, and are not being deleted.
func ready(s *space.Space, a app.App) []*corev1.Pod {
	return slices.DeleteFunc(s.Pods(a.Name), func(pod *corev1.Pod) bool { return pod.DeletionTimestamp != nil || !status.Ready(pod) })
}

// acquired returns the instant at which the present holder of a slot acquired it, on the record's clock.
func acquired(s *space.Space, slot string) time.Duration {
	s.Helper()
	l, err := s.Client.CoordinationV1().Leases(s.Namespace).Get(s.Context(), slot, metav1.GetOptions{})
	require.NoError(s, err)
	require.NotNil(s, l.Spec.AcquireTime)
	return record.Now() - time.Since(l.Spec.AcquireTime.Time)
}

// get sends a request to the application in a pod.
func get(s *space.Space, pod *corev1.Pod, path string, parameters map[string]string) {
	s.Helper()
	_, err := s.Client.CoreV1().Pods(s.Namespace).ProxyGet("http", pod.Name, "8080", path, parameters).DoRaw(s.Context())
	require.NoError(s, err)
}

// answers makes the application in a pod answer its readiness probe with the code.
func answers(s *space.Space, pod *corev1.Pod, code string) {
	s.Helper()
	get(s, pod, "set", map[string]string{"probe": "ready", "code": code})
}

// atOnce runs the subtests at once, but not more than five. They wait most of the time, so they take the place of
// one parallel test.
func atOnce(t *testing.T, tests map[string]func(*testing.T)) {
	t.Helper()
	var group sync.WaitGroup
	room := make(chan struct{}, 5)
	for name, test := range tests {
		group.Go(func() {
			room <- struct{}{}
			defer func() { <-room }()
			t.Run(name, test)
		})
	}
	group.Wait()
}

// hang is a way in which an application hangs.
type hang struct {
	name string
	do   func(*space.Space, *corev1.Pod)
	edit func(*corev1.Container)
}

var hangs = []hang{
	{"suspended", func(s *space.Space, pod *corev1.Pod) { process.MustSignal(s, pod, process.Child, unix.SIGSTOP) }, nil},
	{"deadlocked", func(s *space.Space, pod *corev1.Pod) { get(s, pod, "deadlock", nil) }, nil},
	{"unready", func(s *space.Space, pod *corev1.Pod) { answers(s, pod, "503") }, func(c *corev1.Container) {
		live := readiness("/health/live")
		live.FailureThreshold = 5
		c.LivenessProbe = live
	}},
}

// TestHolderThatHangsHandsOver lets applications hang. In make test, each way to hang meets one number of
// replicas, with or without a Service. With -every-fault each way meets both numbers, with and without a
// Service.
//
// docs/reference/compatibility.md: lifecycle/yield-after carried
func TestHolderThatHangsHandsOver(t *testing.T) {
	cluster.NeedLab(t, "it needs the record, and suspends processes")
	t.Parallel()
	tests := map[string]func(*testing.T){
		"dead database":   slotRestsWhileADatabaseIsDead,
		"nobody can take": holderStaysIfNobodyCanTakeTheSlot,
	}
	for i, h := range hangs {
		for _, replicas := range []int32{2, 3} {
			for _, service := range []bool{false, true} {
				usual := replicas == []int32{3, 2, 3}[i] && service == (i != 1)
				if usual || software.Every {
					tests[fmt.Sprintf("%s, %d replicas, service %v", h.name, replicas, service)] = func(t *testing.T) {
						h.movesTheSlot(t, replicas, service)
					}
				}
			}
		}
	}
	atOnce(t, tests)
}

// movesTheSlot lets the application of the holder hang, and then deletes the next holder.
func (h hang) movesTheSlot(t *testing.T, replicas int32, served bool) {
	s := space.New(t)
	path := ""
	if served {
		path = "/health/ready"
	}
	a := impatient(h.name, path, replicas)
	probed := a.Edit
	a.Edit = func(t *corev1.PodTemplateSpec) {
		probed(t)
		if h.edit != nil {
			h.edit(&t.Spec.Containers[0])
		}
	}
	var service *corev1.Service
	if served {
		service = app.Service(s, a)
	}
	before := deploy(s, a)
	victim := s.Pod(before.Pod)
	if replicas == 2 { // the first minute of the hold is over when the application hangs
		rests(s, a, before, acquired(s, lease.OfDeployment(a.Name))+firstHang-record.Now())
	}
	next := hangsAndMoves(s, a, before, func() { h.do(s, victim) })
	s.Await(space.Soon, "an Event tells why", func() bool { return s.Event("Pod", victim.Name, "Hung") != nil })
	if served {
		s.Await(space.Soon, "the Service sends all requests to the next holder", func() bool {
			pods := app.Endpoints(s, service)
			return len(pods) > 0 && !slices.ContainsFunc(pods, func(name string) bool {
				pod := s.Pod(name)
				return pod == nil || app.Ask(s, pod) != next.Pod
			})
		})
	}
	app.DeletePod(s, s.Pod(next.Pod))
	third := moves(s, a, space.StartTimeout, next)
	if third.Start < next.Start+2*yieldAfter-time.Second {
		assert.NotEqual(t, victim.Name, third.Pod, "the pod that hung takes nothing that another pod can take")
	}
	assert.Zero(t, app.Restarts(s, a))
}

// hangsAndMoves lets the application hang, and requires that the slot moves to another pod once, and in time.
// The result is the process that runs in that pod.
func hangsAndMoves(s *space.Space, a app.App, before *record.Process, do func()) (next *record.Process) {
	s.Helper()
	began, hung, wall := acquired(s, lease.OfDeployment(a.Name)), record.Now(), time.Now()
	do()
	done := record.Now()
	due := max(began+firstHang, done+detected+yieldAfter)
	const stops = grace*time.Second + answered
	next = moves(s, a, due-done+stops+space.Soon, before)
	assert.NotEqual(s, before.Pod, next.Pod)
	assert.GreaterOrEqual(s, next.Start, max(began+firstHang, hung+yieldAfter))
	stalled := space.Stalled(wall)
	assert.LessOrEqual(s, next.Start, due+stops+stalled, "writes stalled for %v", stalled)
	s.Logf("moved %v after the hold began, and %v after the application hung", next.Start-began, next.Start-done)
	return next
}

// moves waits until another process than the one in the argument "before" runs the application.
func moves(s *space.Space, a app.App, timeout time.Duration, before *record.Process) (next *record.Process) {
	s.Helper()
	s.Await(timeout, a.Name+" runs elsewhere", func() bool { next = app.After(s, a, before); return next != nil })
	return next
}

// rests requires that the process runs for the time d, and no other one starts.
func rests(s *space.Space, a app.App, now *record.Process, d time.Duration) {
	s.Helper()
	s.Never(d, "a further start of "+a.Name, func() bool {
		all := s.Record(a.RecordName()).Mains()
		return all[len(all)-1].ID != now.ID
	})
	assert.Equal(s, now.ID, app.AwaitRunning(s, a, space.Soon).ID)
}

// slotRestsWhileADatabaseIsDead kills a database on which all replicas depend. The application in the
// second pod never serves, so it does not hang. Once the database is back, that application serves.
func slotRestsWhileADatabaseIsDead(t *testing.T) {
	s := space.New(t)
	database := app.App{Name: "database", Replicas: 1}
	app.Create(s, database)
	address := app.Service(s, database).Spec.ClusterIP + ":80"
	a := impatient("client", "/health/ready?needs="+address, 3)
	before := deploy(s, a)
	next := hangsAndMoves(s, a, before, func() {
		app.Scale(s, database, 0)
		s.Await(space.Soon, "the database is gone", func() bool { return len(s.Pods(database.Name)) == 0 })
	})
	rests(s, a, next, secondHang+yieldAfter+answered)
	assert.Empty(t, ready(s, a))

	app.Scale(s, database, 1)
	awaitReady(s, a)
	assert.Equal(t, next.ID, app.AwaitRunning(s, a, space.Soon).ID)
}

// holderStaysIfNobodyCanTakeTheSlot lets an application hang while the only other pod lacks its image.
func holderStaysIfNobodyCanTakeTheSlot(t *testing.T) {
	s := space.New(t)
	a, other := impatient("stuck", "/health/ready", 1), app.Locked("imageless", "ledger")
	delete(a.Annotations, api.SingletonAnnotation)
	a.Annotations[api.LockAnnotation], a.Record = other.Record, other.Record
	before := deploy(s, a)
	victim := s.Pod(before.Pod)
	other.Edit = func(t *corev1.PodTemplateSpec) {
		// The container has a command, because the webhook would otherwise read the command from the
		// missing image, and refuse the pod.
		c := &t.Spec.Containers[0]
		name, _, _ := strings.Cut(c.Image, "@")
		c.Image, c.Command = name+":missing", []string{"/app"}
	}
	app.Create(s, other)
	s.Await(space.StartTimeout, "the other pod waits for its image", func() bool {
		return slices.ContainsFunc(s.Pods(other.Name), func(pod *corev1.Pod) bool {
			waits := status.Container(pod.Status, "app").State.Waiting
			return waits != nil && strings.Contains(waits.Reason, "ImagePull")
		})
	})
	slot := api.LockLease(other.Record)
	answers(s, victim, "503")
	s.Await(firstHang+space.Soon, "the holder announces its end", func() bool { return s.Lease(slot).Annotations[api.LeavingAnnotation] != "" })
	s.Await(space.Soon, "the holder withdraws the announcement", func() bool { return s.Lease(slot).Annotations[api.LeavingAnnotation] == "" })
	rests(s, a, before, 3*yieldAfter)
	answers(s, victim, "200")
	awaitReady(s, a)
	now := app.AwaitRunning(s, a, space.Soon)
	assert.Equal(t, before.ID, now.ID)
	assert.Zero(t, now.Signalled)
}
