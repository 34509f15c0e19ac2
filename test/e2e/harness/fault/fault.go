// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package fault

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/metaparticle-io/metaparticle/test/cluster/lab"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/cluster"
)

// Component kills a component of a node. The component starts again when the returned
// function is called, or when the test ends.
func Component(t *testing.T, l *lab.Cluster, node, component string) (up func()) {
	t.Helper()
	require.NoError(t, l.Kill(t.Context(), node, component))
	started := false
	up = func() {
		if !started {
			started = true
			assert.NoError(t, l.Start(context.Background(), node, component))
		}
	}
	t.Cleanup(func() {
		up()
		AwaitAPI(t)
	})
	return up
}

// AwaitAPI waits until the API server answers.
func AwaitAPI(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), nodeTimeout)
	defer cancel()
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for {
		one, stop := context.WithTimeout(ctx, time.Second)
		_, err := cluster.Client.CoreV1().Namespaces().Get(one, "default", metav1.GetOptions{})
		stop()
		if err == nil {
			return
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			require.NoError(t, err, "the API server answers")
		}
	}
}

// nodeTimeout bounds the return of a node or of the API server. While the API server does not
// answer, a kubelet tries again at growing intervals of at most a minute. After the first answer,
// the kubelet sends the node's next status 10 s later. After 5 s more the node loses its taints.
// The remaining time is for a busy machine.
const nodeTimeout = 2 * time.Minute

// Node injects a fault into a node. When the returned function is called, or when the test ends,
// Node repairs the node and waits until the node is Ready.
func Node(t *testing.T, node string, do, undo func(context.Context, string) error) (undone func()) {
	t.Helper()
	require.NoError(t, do(t.Context(), node))
	done := false
	undone = func() {
		if !done {
			done = true
			assert.NoError(t, undo(context.Background(), node))
			AwaitNode(t, node)
		}
	}
	t.Cleanup(undone)
	return undone
}

// startsWithin is the time for which a component must live to count as started.
const startsWithin = 2 * time.Second

// revive starts the dead components of a node, as an init system would, and reports whether
// any was dead. All nodes share the inotify instances of one machine, so a component may get
// no instance. A kubelet or kube-proxy without an inotify instance ends at its start. Even a
// node without kube-proxy is Ready, but no agent there can connect to the API server.
func revive(ctx context.Context, node string) (ended bool) {
	for _, component := range lab.Components(node) {
		if cluster.Lab.PID(node, component) == 0 {
			ended = true
			_ = cluster.Lab.Start(ctx, node, component)
		}
	}
	return ended
}

// AwaitNode waits until a node is Ready and has no taint. Meanwhile AwaitNode starts the dead
// components of the node.
func AwaitNode(t *testing.T, name string) {
	t.Helper()
	started := time.Now()
	ctx, cancel := context.WithTimeout(context.Background(), nodeTimeout)
	defer cancel()
	ticker := time.NewTicker(200 * time.Millisecond)
	defer ticker.Stop()
	for {
		if revive(ctx, name) {
			started = time.Now()
		}
		node, err := cluster.Client.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{})
		if err == nil && len(node.Spec.Taints) == 0 && nodeReady(node) && time.Since(started) > startsWithin {
			return
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			assert.Fail(t, "node is not Ready again", "%s: %v", name, err)
			return
		}
	}
}

func nodeReady(node *corev1.Node) bool {
	for _, c := range node.Status.Conditions {
		if c.Type == corev1.NodeReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}
