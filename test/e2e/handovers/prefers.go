// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package handovers

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/test/cluster/lab"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/app"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/cluster"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/fault"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/kubectl"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/lease"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/space"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/status"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/webhook"
	"github.com/metaparticle-io/metaparticle/test/e2e/record"
)

const (
	// settled is how long a holder serves before it yields to a preferred pod, and how long a preferred pod is
	// Ready before it wishes for the slot.
	settled = 5 * time.Minute
	// prefers bounds the time until the slot moves to the preferred pod.
	prefers = settled + time.Minute
)

// The zone near has one node, and the zone far has the others.
const near, far = "near", "far"

// zones puts the nodes into zones until the test ends. Pods carry the zone of their node.
func zones(t *testing.T, l *lab.Cluster) {
	t.Helper()
	for i, node := range l.Nodes() {
		zone := far
		if i == 0 {
			zone = near
		}
		label(t.Context(), t, node, corev1.LabelTopologyZone, `"`+zone+`"`)
		t.Cleanup(func() { label(context.WithoutCancel(t.Context()), t, node, corev1.LabelTopologyZone, "null") })
	}
}

// label sets a label of a node. The value null removes the label.
func label(ctx context.Context, t *testing.T, node, key, value string) {
	t.Helper()
	patch := fmt.Appendf(nil, `{"metadata":{"labels":{%q:%s}}}`, key, value)
	_, err := cluster.Client.CoreV1().Nodes().Patch(ctx, node, types.MergePatchType, patch, metav1.PatchOptions{})
	require.NoError(t, err)
}

// choosy is an application whose pods in the zone near are preferred. Each pod has a node of its own, and only the nodes that
// the test has opened get pods.
type choosy struct {
	*space.Space
	app.App
	nodes []string
}

func newChoosy(t *testing.T, l *lab.Cluster, a app.App) choosy {
	t.Helper()
	a.Replicas = 3
	c := choosy{space.New(t), a, l.Nodes()}
	require.Len(t, c.nodes, 3)
	c.Annotations[api.PreferAnnotation] = corev1.LabelTopologyZone + "=" + near
	edit := c.Edit
	c.Edit = func(template *corev1.PodTemplateSpec) {
		if edit != nil {
			edit(template)
		}
		template.Spec.NodeSelector = map[string]string{c.key(): "true"}
		template.Spec.Affinity = &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{
			RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{{
				TopologyKey: corev1.LabelHostname, LabelSelector: c.Selector(), MatchLabelKeys: []string{"pod-template-hash"},
			}},
		}}
	}
	return c
}

// key is the label of the nodes that are open for the application.
func (c choosy) key() string { return "e2e/" + c.Namespace }

func (c choosy) open(nodes ...string) {
	c.Helper()
	for _, node := range nodes {
		label(c.Context(), c.T, node, c.key(), `"true"`)
		c.Cleanup(func() { c.shut(node) })
	}
}

func (c choosy) shut(node string) {
	c.Helper()
	label(context.WithoutCancel(c.Context()), c.T, node, c.key(), "null")
}

// deployNear creates the application so that the pod in the zone near holds the slot.
func (c choosy) deployNear() (before *record.Process) {
	c.Helper()
	c.open(c.nodes[0])
	app.Create(c.Space, c.App)
	before = app.AwaitRunning(c.Space, c.App, space.StartTimeout)
	c.open(c.nodes[1:]...)
	awaitReady(c.Space, c.App)
	return before
}

// readyAt returns the second in which the agent of a pod on the node wrote that the pod is Ready; zero for none.
func (c choosy) readyAt(node string) (at time.Duration) {
	for _, pod := range ready(c.Space, c.App) {
		for _, condition := range pod.Status.Conditions {
			if pod.Spec.NodeName == node && condition.Type == api.ReadyCondition {
				at = record.Now() - time.Since(condition.LastTransitionTime.Time)
			}
		}
	}
	return at
}

// TestPreferredPodGetsTheSlotBack takes seven minutes, because a preference waits for five.
//
// docs/reference/compatibility.md: lifecycle/prefer carried
func TestPreferredPodGetsTheSlotBack(t *testing.T) {
	l := cluster.NeedLab(t, "it labels nodes, and needs the record")
	cluster.NeedFeature(t, cluster.PodTopologyLabels)
	t.Parallel()
	zones(t, l)
	atOnce(t, map[string]func(*testing.T){
		"once its node is back":      func(t *testing.T) { returns(newChoosy(t, l, app.Lasting("returns"))) },
		"not after it hung":          func(t *testing.T) { hung(newChoosy(t, l, impatient("hung", "/health/ready", 3))) },
		"in a rollout of preference": func(t *testing.T) { changes(newChoosy(t, l, app.Lasting("changes"))) },
		"by the index of its pod":    firstPodHolds,
	})
}

// returns keeps the preferred pod away from its node for a while.
func returns(c choosy) {
	before := c.deployNear()
	c.shut(c.nodes[0])
	app.DeletePod(c.Space, c.Pod(before.Pod))
	next := moves(c.Space, c.App, space.StartTimeout, before)
	c.open(c.nodes[0])
	c.comesBack(next)
}

// comesBack requires that the slot moves to the preferred pod five minutes after both the preferred pod is
// Ready and the holder serves, and then stays there.
func (c choosy) comesBack(holder *record.Process) {
	c.Helper()
	assert.NotEqual(c, c.nodes[0], holder.Node)
	back := time.Duration(0)
	c.Await(space.StartTimeout, "the preferred pod is back", func() bool { back = c.readyAt(c.nodes[0]); return back != 0 })
	next := moves(c.Space, c.App, prefers, holder)
	assert.Equal(c, c.nodes[0], next.Node)
	assert.GreaterOrEqual(c, next.Start, max(holder.Start, back)+settled)
	app.VacantFor(c.Space, c.App, holder, lease.Released, "by a release")
	c.Logf("moved %v after the node was back", next.Start-back)
	rests(c.Space, c.App, next, space.Soon)
}

// firstPodHolds lets the pods of a StatefulSet prefer the first of them, whose slot goes to another pod meanwhile.
func firstPodHolds(t *testing.T) {
	s := space.New(t)
	a := app.Lasting("indexed")
	a.Replicas = 2
	a.Annotations[api.PreferAnnotation] = appsv1.PodIndexLabel + "=0"
	kubectl.Must(s, kubectl.Manifest(s, app.StatefulSet(s, a)), "create", "-f", "-")
	awaitReady(s, a)
	before := app.AwaitRunning(s, a, space.Soon)
	const first = "indexed-0"
	if before.Pod == first {
		app.DeletePod(s, s.Pod(first))
		before = moves(s, a, space.StartTimeout, before)
		assert.NotEqual(t, first, before.Pod)
	}
	next := moves(s, a, prefers, before)
	assert.Equal(t, first, next.Pod)
	assert.GreaterOrEqual(t, next.Start, before.Start+settled)
	rests(s, a, next, space.Soon)
}

// TestSlotReturnsWithACrashedNode crashes the preferred pod's node. The webhook is away when the slot returns.
func TestSlotReturnsWithACrashedNode(t *testing.T) {
	l := cluster.NeedLab(t, "it crashes a node")
	cluster.NeedFeature(t, cluster.PodTopologyLabels)
	zones(t, l)
	c := newChoosy(t, l, app.Lasting("crashed"))
	before := c.deployNear()
	boot := fault.Node(t, c.nodes[0], l.Crash, l.Boot)
	next := moves(c.Space, c.App, lease.Lasting+space.Soon, before)
	boot()
	pod := c.Pod(before.Pod)
	c.Await(space.StartTimeout, "the pod has started again", func() bool { return status.Restarted(c.Space, pod) > 0 })
	webhook.TakeAway(t) // a preference needs no webhook either
	c.comesBack(next)
}

// hung lets the preferred holder hang. The slot moves, and does not come back when a preference would move it.
func hung(c choosy) {
	before := c.deployNear()
	next := hangsAndMoves(c.Space, c.App, before, func() { answers(c.Space, c.Pod(before.Pod), "503") })
	assert.NotEqual(c, c.nodes[0], next.Node)
	awaitReady(c.Space, c.App)
	rests(c.Space, c.App, next, prefers)
	awaitReady(c.Space, c.App)
}

// changes rolls out a template that prefers the other zone, while only the zone near has room for a new pod.
// Five minutes later the slot moves to the other zone, and stays there.
func changes(c choosy) {
	before := c.deployNear()
	for _, node := range c.nodes[1:] {
		c.shut(node)
	}
	kubectl.Must(c.Space, "", "annotate", "--overwrite", "deployment/"+c.App.Name, api.PreferAnnotation+"="+corev1.LabelTopologyZone+"="+far)
	next := moves(c.Space, c.App, space.StartTimeout, before)
	assert.Equal(c, c.nodes[0], next.Node, "the new template has no other pod yet")
	c.open(c.nodes[1:]...)
	kubectl.Must(c.Space, "", "rollout", "status", "deployment/"+c.App.Name, kubectl.RolloutTimeout)
	assert.Equal(c, next.ID, app.AwaitRunning(c.Space, c.App, space.Soon).ID, "the rollout stops the application once")
	third := moves(c.Space, c.App, prefers, next)
	assert.NotEqual(c, c.nodes[0], third.Node)
	assert.GreaterOrEqual(c, third.Start, next.Start+settled)
	rests(c.Space, c.App, third, space.Soon)
}
