// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package rollouts

import (
	"bufio"
	"context"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/retry"

	"github.com/metaparticle-io/metaparticle/test/cluster/lab"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/app"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/holder"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/kubectl"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/lease"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/space"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/status"
	"github.com/metaparticle-io/metaparticle/test/e2e/record"
)

const (
	// stalled is longer than the time until the first turn: the old version serves for a
	// minute before it yields. A second turn follows after a minute more.
	stalled = 100 * time.Second
	// mostLost bounds the connections that each change of the holder may lose. The port of
	// a pod changes hands between the application and the agent in milliseconds.
	mostLost = 10
)

// args gives the application other arguments, which is a new revision.
func args(h *holder.Holder, args ...string) {
	h.Helper()
	deployments := h.Client.AppsV1().Deployments(h.Namespace)
	err := retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		d, err := deployments.Get(h.Context(), h.App.Name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		changed := h.App
		changed.Args = args
		d.Spec.Template.Spec.Containers[0].Args = app.Template(h.Space, changed).Spec.Containers[0].Args
		_, err = deployments.Update(h.Context(), d, metav1.UpdateOptions{})
		return err
	})
	require.NoError(h, err)
}

// started returns the processes of the application that started after an instant.
func started(h *holder.Holder, after time.Duration) []record.Process {
	return slices.DeleteFunc(slices.Clone(h.Record(h.App.Name)), func(p record.Process) bool {
		return p.Parent != "" || p.Start <= after
	})
}

// readyPods returns the names of the pods that are Ready.
func readyPods(h *holder.Holder) (names []string) {
	for _, pod := range h.Pods(h.App.Name) {
		if pod.DeletionTimestamp == nil && status.Ready(pod) {
			names = append(names, pod.Name)
		}
	}
	slices.Sort(names)
	return names
}

func names(pods []*corev1.Pod) (names []string) {
	for _, pod := range pods {
		names = append(names, pod.Name)
	}
	slices.Sort(names)
	return names
}

// TestBrokenRevisionStalls applies a version that exits at once, and then a good one.
func TestBrokenRevisionStalls(t *testing.T) {
	t.Parallel()
	stalls(t, "stalled", 3)
}

// TestBrokenRevisionOfOneReplicaStalls does so with one replica.
func TestBrokenRevisionOfOneReplicaStalls(t *testing.T) {
	t.Parallel()
	stalls(t, "alone", 1)
}

func stalls(t *testing.T, name string, replicas int32) {
	a := app.Lasting(name)
	a.Replicas = replicas
	deployed := holder.Deploy(t, a, "it needs the record")
	h := &deployed
	kubectl.Must(h.Space, "", "rollout", "status", "deployment/"+name, kubectl.RolloutTimeout)
	olds := names(h.Pods(name))
	require.Len(t, olds, int(replicas))
	c := connect(h.Space, h.Lab, app.Service(h.Space, a))

	before := record.Now()
	args(h, "-exit-code=1", "-run-for=1ms")
	out, err := kubectl.Run(h.Space, "", "rollout", "status", "deployment/"+name, "--timeout="+stalled.String())
	require.Error(t, err, out)
	turns := slices.DeleteFunc(started(h, before), func(p record.Process) bool { return slices.Contains(olds, p.Pod) })
	assert.NotEmpty(t, turns, "the broken version has had its turn")
	assert.LessOrEqual(t, len(turns), 2)
	h.Await(space.Soon, "the old version runs", func() bool {
		now := h.Running(name)
		return now != nil && slices.Contains(olds, now.Pod)
	})
	h.Await(space.Soon, "the old pods alone are Ready", func() bool { return slices.Equal(olds, readyPods(h)) })
	answered, lost := c.seen()
	t.Logf("broken version: %d turns, %d connections answered, lost %q", len(turns), answered, lost)
	assert.Greater(t, answered, 1000)
	assert.LessOrEqual(t, len(lost), 2*mostLost*len(turns))

	c.forget()
	mended := record.Now()
	args(h, "-start-delay=200ms")
	kubectl.Must(h.Space, "", "rollout", "status", "deployment/"+name, kubectl.RolloutTimeout)
	good := slices.DeleteFunc(started(h, mended), func(p record.Process) bool { return slices.Contains(olds, p.Pod) })
	assert.Len(t, good, 1, "the application was stopped once")
	h.Await(space.StartTimeout, "the old pods are gone", func() bool { return len(h.Pods(name)) == int(replicas) })
	assert.Equal(t, good[0].ID, app.AwaitRunning(h.Space, a, space.Soon).ID)
	assert.NotEmpty(t, lease.Hold(h.Space, lease.OfDeployment(name)))
	answered, lost = c.seen()
	t.Logf("good version: %d connections answered, lost %q", answered, lost)
	assert.LessOrEqual(t, len(lost), 2*mostLost)
}

// connecting opens a connection to the address every 10 ms, and prints a line for each:
// "ok", or what went wrong. The end of its input ends it.
const connecting = `
pause=200
while [ $pause -gt 128 ]; do
	reply=refused
	if { exec 3<>"/dev/tcp/$1/80"; } 2>/dev/null; then
		reply=cut
		printf 'GET / HTTP/1.0\r\n\r\n' >&3 2>/dev/null
		IFS= read -r -t 20 reply <&3 2>/dev/null
		exec 3>&-
	fi
	case $reply in *' 200 '*) echo ok ;; *) echo "lost: $reply" ;; esac
	read -r -t 0.01
	pause=$?
done`

// client opens connections through a Service, from a node of the test cluster.
type client struct {
	mu sync.Mutex
	// answered counts the connections with an answer, lost has the others.
	answered int
	lost     []string
}

// connect starts a client, which ends with the test.
func connect(s *space.Space, l *lab.Cluster, service *corev1.Service) *client {
	c, done := &client{}, make(chan struct{})
	input, end := io.Pipe()
	reader, writer := io.Pipe()
	go func() {
		ctx := context.WithoutCancel(s.Context()) // a killed command would leave its children
		writer.CloseWithError(l.Exec(ctx, l.Nodes()[0], input, writer, os.Stderr, "bash", "-c", connecting, "connect", service.Spec.ClusterIP))
	}()
	go func() {
		defer close(done)
		for scanner := bufio.NewScanner(reader); scanner.Scan(); {
			c.note(scanner.Text())
		}
	}()
	s.Cleanup(func() {
		assert.NoError(s, end.Close())
		<-done
	})
	s.Await(space.StartTimeout, "the Service answers", func() bool {
		answered, _ := c.seen()
		return answered > 0
	})
	c.forget()
	require.Empty(s, c.lost)
	return c
}

func (c *client) note(line string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if strings.HasPrefix(line, "ok") {
		c.answered++
		return
	}
	c.lost = append(c.lost, line)
}

// seen returns how many connections had an answer, and how the others ended.
func (c *client) seen() (answered int, lost []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.answered, append([]string(nil), c.lost...)
}

// forget begins to count anew.
func (c *client) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.answered, c.lost = 0, nil
}
