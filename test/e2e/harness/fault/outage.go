// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package fault

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/metaparticle-io/metaparticle/test/cluster/lab"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/process"
)

// Outage is a way in which the API server stores nothing for a holder.
type Outage struct {
	Name string
	// Begin begins the outage for the pods of a node, or for all. The result ends the outage, and waits until
	// the API server, and the node, work again.
	Begin func(t *testing.T, l *lab.Cluster, node string) (end func())
	// Stores reports that writes are stored, if late. So nodes learn from the API server that a pod is not Ready.
	Stores bool
	// OneNode reports that only the pods of one node are affected.
	OneNode bool
}

// Outages returns all ways. In the first one nothing answers.
func Outages() []Outage {
	return []Outage{
		{Name: "nothing answers", Begin: func(t *testing.T, l *lab.Cluster, _ string) func() {
			up := Component(t, l, lab.ControlPlane, "apiserver")
			return func() {
				up()
				AwaitAPI(t)
			}
		}},
		{Name: "writes fail", Begin: noSpace},
		{Name: "writes are slow", Begin: slowDisk, Stores: true},
		{Name: "the node is cut off from the API server", OneNode: true, Begin: func(t *testing.T, l *lab.Cluster, node string) func() {
			return Node(t, node, l.CutFromAPI, l.ReachAPI)
		}},
	}
}

// once calls the function at the first of two occasions: its caller's call, and the end of the test.
func once(t *testing.T, f func()) (call func()) {
	done := false
	call = func() {
		if !done {
			done = true
			f()
		}
	}
	t.Cleanup(call)
	return call
}

// noSpace lets etcd refuse all writes, as if its disk were full. Reads work.
func noSpace(t *testing.T, l *lab.Cluster, _ string) (end func()) {
	alarm := func(ctx context.Context, action string) {
		body := strings.NewReader(fmt.Sprintf(`{"action":%q,"memberID":"0","alarm":"NOSPACE"}`, action))
		request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://127.0.0.1:2379/v3/maintenance/alarm", body)
		require.NoError(t, err)
		dial := func(ctx context.Context, network, address string) (conn net.Conn, err error) {
			err = process.Beside(l.PID(lab.ControlPlane, "etcd"), func() (err error) {
				conn, err = new(net.Dialer).DialContext(ctx, network, address)
				return err
			})
			return conn, err
		}
		client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DialContext: dial}}
		answer, err := client.Do(request)
		require.NoError(t, err)
		defer answer.Body.Close()
		require.Equal(t, http.StatusOK, answer.StatusCode)
	}
	alarm(t.Context(), "ACTIVATE")
	return once(t, func() {
		alarm(context.Background(), "DEACTIVATE")
		AwaitAPI(t)
	})
}

// Of each round of a slow disk, etcd stands still for most of the time. So a write takes some seconds.
const (
	stands = 4 * time.Second
	works  = 250 * time.Millisecond
)

// slowDisk lets etcd answer only in short moments. An agent with the default lease duration gives up a
// request after 2.5 s.
func slowDisk(t *testing.T, l *lab.Cluster, _ string) (end func()) {
	pid := l.PID(lab.ControlPlane, "etcd")
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			assert.NoError(t, unix.Kill(pid, unix.SIGSTOP))
			wait(ctx, stands)
			assert.NoError(t, unix.Kill(pid, unix.SIGCONT))
			wait(ctx, works)
		}
	}()
	return once(t, func() {
		stop()
		<-done
		AwaitAPI(t)
	})
}

func wait(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
