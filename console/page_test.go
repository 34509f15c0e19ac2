// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package console

import (
	"bufio"
	"context"
	"io"
	"log/slog"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/console/serve"
	"github.com/metaparticle-io/metaparticle/console/view"
	"github.com/metaparticle-io/metaparticle/listing"
	"github.com/metaparticle-io/metaparticle/listing/listingtest"
)

// pipes is a listener in memory, so that a bubble's clock decides about all timeouts.
type pipes struct {
	come chan net.Conn
	gone chan struct{}
	// The field "open" counts the server's ends that are open.
	open *atomic.Int32
}

func (p pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.come:
		p.open.Add(1)
		return &counted{Conn: c, closed: sync.OnceFunc(func() { p.open.Add(-1) })}, nil
	case <-p.gone:
		return nil, net.ErrClosed
	}
}

// counted is the server's end of a connection.
type counted struct {
	net.Conn
	closed func()
}

func (c *counted) Close() error {
	c.closed()
	return c.Conn.Close()
}

func (p pipes) Close() error { close(p.gone); return nil }

func (p pipes) Addr() net.Addr { return &net.UnixAddr{} }

// paging is the page's server in a bubble of package synctest. The server runs as in the console.
type paging struct {
	*testing.T
	pipes
}

// pages runs a test in a bubble with the page's server.
func pages(t *testing.T, test func(p paging)) {
	synctest.Test(t, func(t *testing.T) {
		p := paging{t, pipes{make(chan net.Conn), make(chan struct{}), new(atomic.Int32)}}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- serveUntil(ctx, p.pipes, maxPageConnections, pageServer(serve.New().Handler())) }()
		test(p)
		cancel()
		assert.NoError(t, <-ended)
	})
}

// asks connects, and sends a text.
func (p paging) asks(sends string) net.Conn {
	ours, theirs := net.Pipe()
	p.Cleanup(func() { ours.Close() })
	p.come <- theirs
	_, _ = io.WriteString(ours, sends)
	return ours
}

// connections returns the number of open connections.
func (p paging) connections() int {
	synctest.Wait()
	return int(p.open.Load())
}

const (
	readsStream = "GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n"
	readsStyle  = "GET /console.css HTTP/1.1\r\nHost: localhost\r\n\r\n"
)

func TestConsoleClosesPageConnectionsThatNobodyUses(t *testing.T) {
	for name, c := range map[string]struct {
		sends string
		most  time.Duration
		reads bool
	}{
		"silence":                      {"", headerTimeout, true},
		"half a header":                {"GET / HTTP/1.1\r\nHost: ", headerTimeout, true},
		"half a body":                  {"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nx", bodyTimeout, true},
		"an answer":                    {readsStyle, idleTimeout, true},
		"an answer that nobody reads":  {readsStyle, answerTimeout, false},
		"a refusal that nobody reads":  {"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n", answerTimeout, false},
		"a stream that nobody reads":   {readsStream, time.Minute, false},
		"a body that nobody asked for": {"GET / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n", bodyTimeout, true},
	} {
		t.Run(name, func(t *testing.T) {
			pages(t, func(p paging) {
				connection := p.asks(c.sends)
				require.Equal(t, 1, p.connections())
				if c.reads {
					go func() { _, _ = io.Copy(io.Discard, connection) }()
				}
				<-time.After(c.most + time.Second)
				assert.Zero(t, p.connections())
			})
		})
	}
}

func TestConsoleStreamOutlivesTheTimeoutsOfRequests(t *testing.T) {
	pages(t, func(p paging) {
		stream := bufio.NewReader(p.asks(readsStream))
		begun := time.Now()
		for time.Since(begun) < 10*answerTimeout {
			_, err := stream.ReadString('\n')
			require.NoError(t, err, "after %s", time.Since(begun))
		}
	})
}

func TestConnectionFloodNeverEndsAnOpenConsoleStream(t *testing.T) {
	pages(t, func(p paging) {
		stream := bufio.NewReader(p.asks(readsStream))
		for i := range 3 * maxPageConnections {
			p.asks([]string{"", readsStyle}[i%2]) // nobody reads the answers
			require.LessOrEqual(t, p.connections(), maxPageConnections)
		}
		for range 20 {
			_, err := stream.ReadString('\n')
			require.NoError(t, err)
		}
	})
}

// huge returns 100 objects of a kind. Two of them have labels of 1.3 MiB.
func huge[T any](about func(*T) *metav1.ObjectMeta) (all []T) {
	for i := range 100 {
		var object T
		meta := about(&object)
		*meta = metav1.ObjectMeta{Namespace: "shop", Name: "lock.a-" + strconv.Itoa(i), Labels: map[string]string{api.ManagedLabel: "true", api.GatedLabel: api.Gated}}
		if i == 40 || i == 41 {
			for n := range 100_000 {
				meta.Labels["a"+strconv.FormatInt(int64(n), 36)] = ""
			}
		}
		all = append(all, object)
	}
	return all
}

// Otherwise the API server would send all objects of a kind at once. A user who may create pods, Events
// or Leases could then fill the memory of the console.
func TestConsoleReadsPagesFromServersWithoutStreams(t *testing.T) {
	server := listingtest.Start(t, map[string]runtime.Object{
		"/apis/coordination.k8s.io/v1/leases": &coordinationv1.LeaseList{Items: huge(func(l *coordinationv1.Lease) *metav1.ObjectMeta { return &l.ObjectMeta })},
		"/api/v1/pods":                        &corev1.PodList{Items: huge(func(p *corev1.Pod) *metav1.ObjectMeta { return &p.ObjectMeta })},
		"/apis/apps/v1/deployments":           &appsv1.DeploymentList{Items: huge(func(d *appsv1.Deployment) *metav1.ObjectMeta { return &d.ObjectMeta })},
		"/apis/apps/v1/statefulsets":          new(appsv1.StatefulSetList),
		"/apis/apps/v1/daemonsets":            new(appsv1.DaemonSetList),
		"/apis/batch/v1/jobs":                 new(batchv1.JobList),
		"/api/v1/events":                      &corev1.EventList{Items: huge(func(e *corev1.Event) *metav1.ObjectMeta { return &e.ObjectMeta })},
	})
	shown := make(chan int, 1)
	w, err := newWatch(&rest.Config{Host: server.URL, QPS: -1}, func(slots []view.Slot, _ string) error {
		select {
		case shown <- len(slots):
		default:
		}
		return nil
	}, func(string) error { return nil }, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	go func() { _ = w.run(t.Context()) }()
	assert.Equal(t, 100, <-shown)
	var pods corev1.PodList
	require.NoError(t, w.cache.List(t.Context(), &pods))
	require.Len(t, pods.Items, 100)
	for _, p := range pods.Items {
		assert.LessOrEqual(t, len(p.Labels), 1, p.Name)
	}
	for _, size := range server.Sizes() {
		assert.LessOrEqual(t, size, listing.PerPage)
	}
	assert.Contains(t, server.Sizes(), listing.PerPage/2, "a page with two huge objects is read in smaller parts")
}

// The caches strip the objects of a page once more.
func TestObjectsStrippedForTheConsoleStayTheSame(t *testing.T) {
	s := whole()
	var all []runtime.Object
	for _, l := range s.Leases {
		all = append(all, l)
	}
	for _, p := range s.Pods {
		all = append(all, p)
	}
	for _, e := range s.Events {
		all = append(all, e)
	}
	for _, w := range s.Workloads {
		all = append(all, w)
	}
	for _, object := range all {
		once := stripped(t, object)
		want := once.DeepCopyObject()
		assert.Equal(t, want, stripped(t, once))
	}
}
