// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"bytes"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/app"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/client"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/holder"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/kubectl"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/lease"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/process"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/space"
	"github.com/metaparticle-io/metaparticle/test/e2e/record"
)

const (
	// The constant named starts is the time that the application takes until it serves. The
	// constant named stops is the time that the application takes to stop. A new connection
	// may wait for both.
	starts, stops = time.Second, 500 * time.Millisecond
	// The constant named busy is the further delay that a node under load may cause. If the whole
	// machine stands still for longer, the client notices that as well.
	busy = 3 * time.Second
)

// slow returns an application that takes a while to start and to stop.
func slow(name string) app.App {
	a := app.Lasting(name)
	a.Args = []string{"-start-delay=" + starts.String(), "-stop-delay=" + stops.String()}
	a.Edit = func(template *corev1.PodTemplateSpec) {
		template.Spec.Containers[0].ReadinessProbe = &corev1.Probe{ProbeHandler: corev1.ProbeHandler{
			TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromInt32(8080)},
		}}
	}
	return a
}

// askAnew starts a client on the holder's first node, which opens connections to the Service. The
// client before that client does not count, because the node may learn of the Service late.
func askAnew(h holder.Holder, service *corev1.Service) (requests *client.Client) {
	for range 2 {
		if requests != nil {
			requests.Stop()
		}
		requests = client.Start(h.Space, h.Lab, h.Before.Node, client.Anew, service.Spec.ClusterIP)
		h.Await(space.StartTimeout, "the Service answers", requests.Answered)
	}
	return requests
}

// sendsToAll reports whether the rules of a node's kube-proxy contain the address of each pod of the
// application.
func sendsToAll(h holder.Holder, node string) bool {
	var rules bytes.Buffer
	require.NoError(h, h.Lab.Exec(h.Context(), node, nil, &rules, os.Stderr, "nft", "list", "table", "ip", "kube-proxy"))
	return !slices.ContainsFunc(h.Pods(h.App.Name), func(pod *corev1.Pod) bool { return !strings.Contains(rules.String(), pod.Status.PodIP+" ") })
}

// A planned handover among three pods refuses and resets no new connection. In each pod the port
// passes between application and agent only when no node sends connections to that pod. The test
// runs alone, because other tests would use up the processors. With too little CPU the standbys might
// offer too late, or the nodes might learn too late which pods are Ready.
func TestConnectionsAreNeverRefusedDuringAHandover(t *testing.T) {
	a := slow("smooth")
	h := holder.Deploy(t, a, "it needs a client on a node")
	service, slot := app.Service(h.Space, h.App), lease.OfDeployment(a.Name)
	kubectl.Must(h.Space, "", "rollout", "status", "deployment/smooth", kubectl.RolloutTimeout)
	for _, handover := range []struct {
		name  string
		begin func(before *record.Process)
	}{
		{"deletion", func(before *record.Process) { app.DeletePod(h.Space, h.Pod(before.Pod)) }},
		{"yield", func(*record.Process) {
			kubectl.Must(h.Space, "", "annotate", "lease/"+slot, api.YieldAnnotation+"="+lease.Hold(h.Space, slot))
		}},
		{"rollout", func(*record.Process) {
			kubectl.Must(h.Space, "", "set", "env", "deployment/smooth", "RELEASE=2")
			kubectl.Must(h.Space, "", "rollout", "status", "deployment/smooth", kubectl.RolloutTimeout)
		}},
	} {
		h.Await(space.StartTimeout, "three pods are behind the Service", func() bool {
			return len(app.Endpoints(h.Space, service)) == 3 && len(h.Pods(a.Name)) == 3
		})
		before := app.AwaitRunning(h.Space, a, space.Soon)
		requests := askAnew(h, service)
		handover.begin(before)
		h.Await(space.StartTimeout, "the application runs in another pod", func() bool { return app.After(h.Space, a, before) != nil })
		h.Await(space.StartTimeout, "three pods are behind the Service again", func() bool {
			return len(app.Endpoints(h.Space, service)) == 3 && len(h.Pods(a.Name)) == 3
		})
		sum := requests.Stop()
		old := h.Process(before.ID)
		t.Logf("%s, W of %v: %d connections answered, lost %q. The slowest took %v. The application itself took %v of that to stop and to start. "+
			"Between the two processes %v passed.",
			handover.name, api.DefaultEndpointDelay, sum.Answered, sum.Failed, sum.Slowest, old.Last-old.Signalled+starts, app.VacancyAfter(h.Space, a, before))
		assert.Empty(t, sum.Failed, handover.name)
		assert.Greater(t, sum.Answered, 100, handover.name)
		assert.Less(t, sum.Slowest, starts+stops+busy+sum.Paused, handover.name)
	}
}

// A node learns later than the endpoint delay which pods have left their Services. Meanwhile that node
// sends connections to the successor, and the successor forwards these connections to the holder. So the
// holder serves until no more connections come to the successor. The test runs alone for the same reason
// as [TestConnectionsAreNeverRefusedDuringAHandover].
func TestNodeThatLearnsLateCausesNoReset(t *testing.T) {
	const late = api.DefaultEndpointDelay + 1500*time.Millisecond
	a := slow("late")
	h := holder.Deploy(t, a, "it freezes the proxy of a node")
	service, slot := app.Service(h.Space, h.App), lease.OfDeployment(a.Name)
	kubectl.Must(h.Space, "", "rollout", "status", "deployment/late", kubectl.RolloutTimeout)
	h.Await(space.StartTimeout, "three pods are behind the Service", func() bool { return len(app.Endpoints(h.Space, service)) == 3 })
	requests := askAnew(h, service)
	before := app.AwaitRunning(h.Space, a, space.Soon)
	h.Await(space.StartTimeout, "the node sends connections to all three pods", func() bool { return sendsToAll(h, h.Before.Node) })
	thaw := process.FreezePID(h.Space, h.Lab.PID(h.Before.Node, "proxy"))
	kubectl.Must(h.Space, "", "annotate", "lease/"+slot, api.YieldAnnotation+"="+lease.Hold(h.Space, slot))
	h.Await(space.StartTimeout, "the holder and its successor have left the Service", func() bool { return len(app.Endpoints(h.Space, service)) == 1 })
	left := time.Now()
	h.Await(space.StartTimeout, "the node is late", func() bool { return time.Since(left) > late })
	require.NotNil(t, h.Running(a.Name))
	assert.Equal(t, before.ID, h.Running(a.Name).ID, "the holder still serves")
	thaw()
	h.Await(space.StartTimeout, "the application runs in another pod", func() bool { return app.After(h.Space, a, before) != nil })
	h.Await(space.StartTimeout, "three pods are behind the Service again", func() bool { return len(app.Endpoints(h.Space, service)) == 3 })
	sum := requests.Stop()
	t.Logf("%d connections answered, lost %q. The slowest took %v.", sum.Answered, sum.Failed, sum.Slowest)
	assert.Empty(t, sum.Failed)
	assert.Greater(t, sum.Answered, 100)
}
