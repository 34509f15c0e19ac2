// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	coordinationlisters "k8s.io/client-go/listers/coordination/v1"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/test/cluster/lab"
	"github.com/metaparticle-io/metaparticle/test/e2e/record"
)

const (
	// startTimeout is for a first start: an image to pull, three pods to
	// schedule, all on a machine that five tests share. Scheduler and kubelets
	// hear of nothing for up to a minute after a restart of the API server, whom
	// they ask again and again less often.
	startTimeout = 3 * time.Minute
	// soon is for what comes by itself, however late on a machine that stalls, and
	// whose time nobody promises: a status, an Event beside it, a stream's answer.
	soon = 30 * time.Second
	// turn is how often a condition is looked at again if nothing changed in
	// the namespace: records are files, which send no events.
	turn = 10 * time.Millisecond
	// fresh is how old a running application's last stamp may be on a machine
	// that is busy.
	fresh = 300 * time.Millisecond
)

// space is a test's own namespace, watched.
type space struct {
	*testing.T
	name   string
	client kubernetes.Interface
	// dir is the host's directory of the namespace's records; empty on a
	// cluster of the user's own.
	dir string
	// tolerate judges an overlap that the test's fault makes unavoidable.
	tolerate func(record.Overlap) bool

	change chan struct{}
	pods   corelisters.PodNamespaceLister
	leases coordinationlisters.LeaseNamespaceLister
	events corelisters.EventNamespaceLister
}

// newSpace makes a namespace that opted in. When the test ends, no two
// applications of it may have run at once.
func newSpace(t *testing.T, change ...func(*corev1.Namespace)) *space {
	t.Helper()
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
		GenerateName: "e2e-" + shortName(t.Name()) + "-",
		Labels:       map[string]string{api.InjectionLabel: api.InjectionEnabled, "e2e": "true"},
	}}
	for _, f := range change {
		f(namespace)
	}
	namespace, err := cluster.client.CoreV1().Namespaces().Create(t.Context(), namespace, metav1.CreateOptions{})
	require.NoError(t, err)
	since := time.Now()
	s := &space{T: t, name: namespace.Name, client: cluster.client, change: make(chan struct{}, 1)}
	// t.Context ends before the cleanup, which still has to look.
	ctx, stop := context.WithCancel(context.Background())
	t.Cleanup(func() {
		s.judge()
		if t.Failed() {
			s.dump()
		}
		stop()
		if !t.Failed() || !*keep {
			s.remove()
		}
		if !t.Failed() && !testing.Verbose() {
			// A person who waits sees how far it is; what fails is printed by go test.
			fmt.Printf("passed %s %.0fs\n", t.Name(), time.Since(since).Seconds())
		}
	})
	if cluster.lab != nil {
		s.dir = filepath.Join(cluster.lab.SharedDir(), s.name)
		require.NoError(t, os.MkdirAll(s.dir, 0o777))
		require.NoError(t, os.Chmod(s.dir, 0o777), "whatever the umask, pods of every user record here")
	}
	s.watch(ctx)
	// Without it no pod is let in.
	s.await(startTimeout, "the namespace's service account", func() bool {
		_, err := s.client.CoreV1().ServiceAccounts(s.name).Get(t.Context(), "default", metav1.GetOptions{})
		return err == nil
	})
	return s
}

// shortName makes a test's name part of a namespace's.
func shortName(test string) string {
	test, _, _ = strings.Cut(strings.TrimPrefix(test, "Test"), "/")
	var b strings.Builder
	for i, r := range test {
		if i > 0 && r >= 'A' && r <= 'Z' {
			b.WriteByte('-')
		}
		b.WriteString(strings.ToLower(string(r)))
	}
	return strings.Trim(b.String()[:min(b.Len(), 40)], "-")
}

func (s *space) watch(ctx context.Context) {
	factory := informers.NewSharedInformerFactoryWithOptions(s.client, 0, informers.WithNamespace(s.name))
	core, coordination := factory.Core().V1(), factory.Coordination().V1()
	for _, informer := range []cache.SharedIndexInformer{
		core.Pods().Informer(), core.Events().Informer(), coordination.Leases().Informer(),
	} {
		_, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
			AddFunc:    func(any) { s.changed() },
			UpdateFunc: func(any, any) { s.changed() },
			DeleteFunc: func(any) { s.changed() },
		})
		require.NoError(s, err)
	}
	s.pods = core.Pods().Lister().Pods(s.name)
	s.events = core.Events().Lister().Events(s.name)
	s.leases = coordination.Leases().Lister().Leases(s.name)
	factory.Start(ctx.Done())
	factory.WaitForCacheSync(ctx.Done())
}

func (s *space) changed() {
	select {
	case s.change <- struct{}{}:
	default:
	}
}

// await waits until the condition holds.
func (s *space) await(timeout time.Duration, what string, condition func() bool) {
	s.Helper()
	if !s.within(timeout, condition) {
		require.FailNow(s, "not within "+timeout.String()+": "+what)
	}
}

// never watches for d that the condition does not hold.
func (s *space) never(d time.Duration, what string, condition func() bool) {
	s.Helper()
	if s.within(d, condition) {
		require.FailNow(s, "must not be: "+what)
	}
}

func (s *space) within(timeout time.Duration, condition func() bool) bool {
	deadline := time.NewTimer(timeout)
	defer deadline.Stop()
	ticker := time.NewTicker(turn)
	defer ticker.Stop()
	for {
		if condition() {
			return true
		}
		select {
		case <-s.change:
		case <-ticker.C:
		case <-deadline.C:
			return condition()
		case <-s.Context().Done():
			return false
		}
	}
}

// remark says what a person should know of a test that passes, too, of which go
// test prints no log.
func (s *space) remark(format string, args ...any) {
	s.Helper()
	s.Logf(format, args...)
	if !testing.Verbose() {
		fmt.Printf("%s: "+format+"\n", append([]any{s.Name()}, args...)...)
	}
}

// all are the pods of a workload: those labelled app=name.
func (s *space) all(app string) []*corev1.Pod {
	pods, err := s.pods.List(labels.SelectorFromSet(labels.Set{"app": app}))
	require.NoError(s, err)
	return pods
}

// pod is the pod of that name, or nil.
func (s *space) pod(name string) *corev1.Pod {
	pod, err := s.pods.Get(name)
	if err != nil {
		return nil
	}
	return pod
}

// lease is the slot of that name, or an empty one.
func (s *space) lease(slot string) *coordinationv1.Lease {
	lease, err := s.leases.Get(slot)
	if err != nil {
		return &coordinationv1.Lease{}
	}
	return lease
}

// identity is who a slot's Lease names; empty: nobody.
func (s *space) identity(slot string) string { return identity(s.lease(slot)) }

func identity(lease *coordinationv1.Lease) string {
	if holder := lease.Spec.HolderIdentity; holder != nil {
		return *holder
	}
	return ""
}

// holder is the pod that a slot's Lease names, or nil.
func (s *space) holder(slot string) *corev1.Pod { return s.named(s.lease(slot)) }

// named is the pod that a Lease names, or nil.
func (s *space) named(lease *coordinationv1.Lease) *corev1.Pod {
	name, uid, _ := strings.Cut(identity(lease), "_")
	if pod := s.pod(name); pod != nil && string(pod.UID) == uid {
		return pod
	}
	return nil
}

// awaitHolder waits for the pod that a slot's Lease names: the record may tell of
// its application before the watch tells of the Lease.
func (s *space) awaitHolder(slot string) (holder *corev1.Pod) {
	s.Helper()
	s.await(soon, "a holder of "+slot, func() bool {
		holder = s.holder(slot)
		return holder != nil
	})
	return holder
}

// record is what happened under a name.
func (s *space) record(name string) record.Record {
	s.Helper()
	if s.dir == "" {
		s.Skip("only on the test cluster (make cluster): the record needs nodes that share one kernel")
	}
	r, err := record.Read(s.dir, name)
	require.NoError(s, err)
	return r
}

// running is the one application that runs under a name now, or nil.
func (s *space) running(name string) *record.Process {
	running := s.record(name).Mains().Running(fresh)
	if len(running) == 0 {
		return nil
	}
	return &running[len(running)-1]
}

// judge holds every record of the namespace to the promise.
func (s *space) judge() {
	if s.dir == "" {
		return
	}
	files, err := filepath.Glob(filepath.Join(s.dir, "*.jsonl"))
	assert.NoError(s, err)
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".jsonl")
		r, err := record.Read(s.dir, name)
		if !assert.NoError(s, err) {
			continue
		}
		tolerated := map[string]bool{}
		for _, o := range r.Overlaps() {
			tolerated[o.B.ID] = s.tolerate != nil && s.tolerate(o)
			assert.True(s, tolerated[o.B.ID], "two at once under %s: %v", name, o)
		}
		for _, p := range r.Contended() {
			assert.True(s, tolerated[p.ID], "two at once under %s: %v met another's lock", name, p)
		}
		assert.NoError(s, r.TokensGrow(), name)
	}
}

func (s *space) remove() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	now := metav1.DeletePropagationBackground
	err := s.client.CoreV1().Namespaces().Delete(ctx, s.name, metav1.DeleteOptions{PropagationPolicy: &now})
	assert.NoError(s, ignoreNotFound(err))
	if s.dir != "" && !s.Failed() {
		// An application that is still stopping may write into it meanwhile; what
		// that leaves goes with the cluster.
		_ = os.RemoveAll(s.dir)
	}
}

func ignoreNotFound(err error) error {
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// mount is where the pods of the namespace have their records.
func (s *space) mount() string { return filepath.Join(lab.SharedMount, s.name) }

// event is an event about an object, or nil.
func (s *space) event(kind, name, reason string) *corev1.Event {
	events, err := s.events.List(everything)
	require.NoError(s, err)
	for _, e := range events {
		if e.InvolvedObject.Kind == kind && e.InvolvedObject.Name == name && e.Reason == reason {
			return e
		}
	}
	return nil
}

// everything selects all objects of the namespace.
var everything = labels.Everything()
