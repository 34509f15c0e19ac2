// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package space

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
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
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/cluster"
	"github.com/metaparticle-io/metaparticle/test/e2e/record"
)

const (
	// StartTimeout bounds a first start, on a machine that five tests share. The start pulls
	// an image and schedules three pods. The scheduler and the kubelets may need up to a
	// minute to reconnect after a restart of the API server.
	StartTimeout = 3 * time.Minute
	// Soon bounds the wait for information without a promised time, such as a status, an
	// Event or the answer of a stream. A busy machine may delay each of them for seconds.
	Soon = 30 * time.Second
	// CheckInterval is the interval between two checks of a condition while nothing changes in the
	// namespace. The checks are necessary, because records are files and send no events.
	CheckInterval = 10 * time.Millisecond
	// longestInterval bounds the pause after a slow check, such as a call of kubectl.
	longestInterval = time.Second
	// Fresh is the greatest age of a running application's last time stamp in the record, even on a
	// busy machine.
	Fresh = 300 * time.Millisecond
)

// Keep reports whether the namespaces of failed tests are kept.
var Keep bool

// Space is a namespace of a test's own, with a watch on its objects.
type Space struct {
	*testing.T
	Namespace string
	Client    kubernetes.Interface
	// Dir is the host's directory of the namespace's records; empty on a cluster of the
	// user's own.
	Dir string
	// Tolerate reports whether the test's fault makes an overlap unavoidable; nil means
	// never.
	Tolerate func(record.Overlap) bool
	// TokensGoBack reports that the test's fault makes tokens smaller.
	TokensGoBack bool

	began  time.Time
	change chan struct{}
	pods   corelisters.PodNamespaceLister
	leases coordinationlisters.LeaseNamespaceLister
	events corelisters.EventNamespaceLister

	history history
}

// Label is the label of each namespace that a test has made.
const Label = "e2e"

// opened reports whether a test has had a space.
var opened atomic.Bool

// Opened reports whether a test of this process has had a space. Every end-to-end test
// has a space. If Opened returns false, no test has run.
func Opened() bool { return opened.Load() }

// New makes a namespace that has opted in to the injection. The functions in the argument "change"
// may edit the namespace first. The cleanup of the space fails the test if a record of the
// namespace shows that two applications ran at once.
func New(t *testing.T, change ...func(*corev1.Namespace)) *Space {
	t.Helper()
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
		GenerateName: "e2e-" + shortName(t.Name()) + "-",
		Labels:       map[string]string{api.InjectionLabel: api.InjectionEnabled, Label: "true"},
	}}
	for _, f := range change {
		f(namespace)
	}
	namespace, err := cluster.Client.CoreV1().Namespaces().Create(t.Context(), namespace, metav1.CreateOptions{})
	require.NoError(t, err)
	s := open(t, namespace.Name)
	// The API server admits a pod only once the namespace's service account exists.
	s.Await(StartTimeout, "the namespace's service account", func() bool {
		_, err := s.Client.CoreV1().ServiceAccounts(s.Namespace).Get(t.Context(), "default", metav1.GetOptions{})
		return err == nil
	})
	return s
}

// open watches a namespace until the test ends. The namespace need not exist yet.
func open(t *testing.T, namespace string) *Space {
	t.Helper()
	opened.Store(true)
	s := &Space{T: t, Namespace: namespace, Client: cluster.Client, began: time.Now(), change: make(chan struct{}, 1)}
	// The informers need their own context, because t.Context ends before the cleanup,
	// which still reads the lists.
	ctx, stop := context.WithCancel(context.Background())
	t.Cleanup(func() {
		judge(s)
		if t.Failed() {
			dump(s)
		}
		stop()
		if !t.Failed() || !Keep {
			remove(s)
		}
		if !t.Failed() && !testing.Verbose() {
			// This line shows the progress to a person; go test itself prints the failures.
			fmt.Printf("passed %s %.0fs\n", t.Name(), time.Since(s.began).Seconds())
		}
	})
	if cluster.Lab != nil {
		s.Dir = filepath.Join(cluster.Lab.SharedDir(), s.Namespace)
		require.NoError(t, os.MkdirAll(s.Dir, 0o777))
		require.NoError(t, os.Chmod(s.Dir, 0o777), "whatever the umask, pods of every user record here")
	}
	watch(s, ctx)
	return s
}

// shortName makes a part of a namespace's name from the name of a test.
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

// watch keeps lists of the namespace's pods, Leases and Events.
func watch(s *Space, ctx context.Context) {
	factory := informers.NewSharedInformerFactoryWithOptions(s.Client, 0, informers.WithNamespace(s.Namespace))
	core, coordination := factory.Core().V1(), factory.Coordination().V1()
	for _, informer := range []cache.SharedIndexInformer{
		core.Pods().Informer(), core.Events().Informer(), coordination.Leases().Informer(),
	} {
		_, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
			AddFunc:    func(object any) { s.history.note(object); s.Changed() },
			UpdateFunc: func(_, object any) { s.history.note(object); s.Changed() },
			DeleteFunc: func(any) { s.Changed() },
		})
		require.NoError(s, err)
	}
	s.pods = core.Pods().Lister().Pods(s.Namespace)
	s.events = core.Events().Lister().Events(s.Namespace)
	s.leases = coordination.Leases().Lister().Leases(s.Namespace)
	factory.Start(ctx.Done())
	factory.WaitForCacheSync(ctx.Done())
}

// Changed makes a waiting function check its condition again.
func (s *Space) Changed() {
	select {
	case s.change <- struct{}{}:
	default:
	}
}

// Await waits until the condition is true. After the timeout, Await fails the test.
func (s *Space) Await(timeout time.Duration, what string, condition func() bool) {
	s.Helper()
	if !s.Within(timeout, condition) {
		require.FailNow(s, "not within "+timeout.String()+": "+what)
	}
}

// The method Never fails the test if the condition becomes true within the time d.
func (s *Space) Never(d time.Duration, what string, condition func() bool) {
	s.Helper()
	if s.Within(d, condition) {
		require.FailNow(s, "must not be: "+what)
	}
}

// Within waits until the condition is true, and reports whether that was in time.
func (s *Space) Within(timeout time.Duration, condition func() bool) bool {
	deadline := time.NewTimer(timeout)
	defer deadline.Stop()
	for {
		begin := time.Now()
		if condition() {
			return true
		}
		// Slow checks without a pause between them would slow down the pods under test.
		change, pause := s.change, max(CheckInterval, min(4*time.Since(begin), longestInterval))
		if pause > 10*CheckInterval {
			change = nil
		}
		select {
		case <-change:
		case <-time.After(pause):
		case <-deadline.C:
			return condition()
		case <-s.Context().Done():
			return false
		}
	}
}

// Remark prints a message even if the test passes. Without -v, go test prints only the logs of
// failed tests.
func (s *Space) Remark(format string, args ...any) {
	s.Helper()
	s.Logf(format, args...)
	if !testing.Verbose() {
		fmt.Printf("%s: "+format+"\n", append([]any{s.Name()}, args...)...)
	}
}

// Pods returns the pods of a workload, by the label app.
func (s *Space) Pods(app string) []*corev1.Pod {
	pods, err := s.pods.List(labels.SelectorFromSet(labels.Set{"app": app}))
	require.NoError(s, err)
	return pods
}

// Pod returns the pod with the given name, or nil.
func (s *Space) Pod(name string) *corev1.Pod {
	pod, err := s.pods.Get(name)
	if err != nil {
		return nil
	}
	return pod
}

// Lease returns the Lease of a slot, or an empty Lease.
func (s *Space) Lease(slot string) *coordinationv1.Lease {
	lease, err := s.leases.Get(slot)
	if err != nil {
		return &coordinationv1.Lease{}
	}
	return lease
}

// Identity returns the holderIdentity of a slot's Lease; empty means no holder.
func (s *Space) Identity(slot string) string { return IdentityOf(s.Lease(slot)) }

// IdentityOf returns the holderIdentity of a Lease; empty means no holder.
func IdentityOf(lease *coordinationv1.Lease) string {
	if holder := lease.Spec.HolderIdentity; holder != nil {
		return *holder
	}
	return ""
}

// Holder returns the pod that a slot's Lease names, or nil.
func (s *Space) Holder(slot string) *corev1.Pod { return s.Named(s.Lease(slot)) }

// Named returns the pod that a Lease names, or nil.
func (s *Space) Named(lease *coordinationv1.Lease) *corev1.Pod {
	name, uid, _ := strings.Cut(IdentityOf(lease), "_")
	if pod := s.Pod(name); pod != nil && string(pod.UID) == uid {
		return pod
	}
	return nil
}

// AwaitHolder waits until the test's watch shows a pod in a slot's Lease, and returns that pod. The
// watch may be later than the record that shows a running application.
func (s *Space) AwaitHolder(slot string) (holder *corev1.Pod) {
	s.Helper()
	s.Await(Soon, "a holder of "+slot, func() bool {
		holder = s.Holder(slot)
		return holder != nil
	})
	return holder
}

// Record returns the record with the given name, or skips the test on a cluster without records.
func (s *Space) Record(name string) record.Record {
	s.Helper()
	if s.Dir == "" {
		s.Skip("only on the test cluster (make cluster): the record needs nodes that share one kernel")
	}
	r, err := record.Read(s.Dir, name)
	require.NoError(s, err)
	return r
}

// Running returns the application's process that runs now, or nil. The argument is the name of the
// record. If several processes run, Running returns the latest.
func (s *Space) Running(name string) *record.Process {
	running := s.Record(name).Mains().Running(Fresh)
	if len(running) == 0 {
		return nil
	}
	return &running[len(running)-1]
}

// judge fails the test if a record shows an overlap that Tolerate does not accept, or a fencing
// token that did not grow. If TokensGoBack is true, judge ignores the tokens.
func judge(s *Space) {
	if s.Dir == "" {
		return
	}
	files, err := filepath.Glob(filepath.Join(s.Dir, "*.jsonl"))
	assert.NoError(s, err)
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".jsonl")
		r, err := record.Read(s.Dir, name)
		if !assert.NoError(s, err) {
			continue
		}
		tolerated := map[string]bool{}
		for _, o := range r.Overlaps() {
			tolerated[o.B.ID] = s.Tolerate != nil && s.Tolerate(o)
			assert.True(s, tolerated[o.B.ID], "two at once under %s: %v", name, o)
		}
		for _, p := range r.Contended() {
			assert.True(s, tolerated[p.ID], "two at once under %s: %v met another's lock", name, p)
		}
		if !s.TokensGoBack {
			assert.NoError(s, r.TokensGrow(), name)
		}
	}
}

// remove deletes the namespace and, if the test passed, the directory of its records.
func remove(s *Space) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	now := metav1.DeletePropagationBackground
	err := s.Client.CoreV1().Namespaces().Delete(ctx, s.Namespace, metav1.DeleteOptions{PropagationPolicy: &now})
	assert.True(s, err == nil || apierrors.IsNotFound(err) || apierrors.IsConflict(err), "the test may have begun the deletion: %v", err)
	if s.Dir != "" && !s.Failed() {
		// An application that is still stopping may write a file after the removal. That
		// file vanishes with the cluster.
		_ = os.RemoveAll(s.Dir)
	}
}

// IgnoreNotFound returns nil if err says that an object is gone. Otherwise the result is err.
func IgnoreNotFound(err error) error {
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// Mount returns the directory of the namespace's records, as the nodes see it.
func (s *Space) Mount() string { return filepath.Join(lab.SharedMount, s.Namespace) }
