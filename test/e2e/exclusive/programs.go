// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package exclusive

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/test/cluster/lab"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/app"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/cluster"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/fault"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/lease"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/process"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/space"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/status"
	"github.com/metaparticle-io/metaparticle/test/e2e/record"
)

// voters returns an application of three programs that bid for an election by the local API.
func voters(name string) app.App {
	a := app.App{Name: name, Args: []string{"-bid=election/main"}, Annotations: app.Claim(api.LocalAnnotation, "election/main")}
	a.Annotations[api.LeaseDurationAnnotation] = lease.Fault.String()
	return a
}

// givenBack bounds the time from the end of a program that gives its hold back to the next start. Even a
// machine that stalls for seconds keeps this bound. The expiry of the Lease would take at least 16 s,
// because the last renewal is at most 3.4 s old.
const givenBack = lease.Fault / 2

// electionSlot is the Lease of the election in these tests.
var electionSlot = api.ElectionLease("main")

// leads waits until a program other than the given one leads.
func leads(s *space.Space, a app.App, before *record.Process) (next *record.Process) {
	s.Helper()
	s.Await(lease.Fault+space.Soon, "another program leads", func() bool {
		next = app.After(s, a, before)
		return next != nil
	})
	return next
}

func TestElectionLetsProgramsLeadOneByOne(t *testing.T) {
	t.Parallel()
	cluster.NeedLab(t, "it needs the record")
	s, a := space.New(t), voters("voters")
	app.Deploy(s, a)
	for _, pod := range s.Pods(a.Name) {
		assert.True(t, status.Ready(pod), "the pod's readiness is its own: %s", pod.Name)
		assert.Nil(t, process.Find(pod, process.Shim), "the containers stay unchanged")
	}
	first := app.AwaitRunning(s, a, space.Soon)
	assert.Equal(t, electionSlot, first.Slot)
	assert.Equal(t, first.Pod, s.AwaitHolder(electionSlot).Name)

	// When a program stops, the program gives its hold back.
	app.DeletePod(s, s.Pod(first.Pod))
	second := leads(s, a, first)
	app.VacantFor(s, a, first, givenBack, "the hold was given back")

	// The kubelet starts a killed program again. The agent has no proof that the killed program
	// ended, so the agent lets the Lease expire.
	process.Signal(s, s.Pod(second.Pod), process.Child, unix.SIGKILL)
	seen := lease.Renewed(s, electionSlot)
	third := leads(s, a, second)
	assert.GreaterOrEqual(t, third.Start, seen+lease.Fault, "the Lease has expired")

	// Without its agent a program gets no answer, and ends.
	process.MustSignal(s, s.Pod(third.Pod), process.Agent, unix.SIGKILL)
	seen = lease.Renewed(s, electionSlot)
	fourth := leads(s, a, third)
	assert.GreaterOrEqual(t, fourth.Start, seen+lease.Fault, "a new agent resumes nothing")
}

// endsBeforeTakeover cuts off the node of the leading program. The function demands that the
// program ends by its deadline, and that the next program leads only after the Lease has expired.
func endsBeforeTakeover(s *space.Space, l *lab.Cluster, a app.App) (before *record.Process) {
	s.Helper()
	before = app.AwaitRunning(s, a, space.Soon)
	victim := s.Pod(before.Pod)
	require.NotNil(s, victim)
	seen := lease.Renewed(s, electionSlot)
	heal := fault.Node(s.T, victim.Spec.NodeName, l.Cut, l.Heal)
	at := record.Now()
	next := leads(s, a, before)
	budget := lease.Budget(s.T, lease.Fault)
	assert.GreaterOrEqual(s, next.Start, seen+budget.Duration, "no program leads before the Lease has expired")
	assert.NotEqual(s, before.Node, next.Node)
	for _, p := range s.Record(a.RecordName()) {
		if p.ID == before.ID {
			assert.LessOrEqual(s, p.Last, at+budget.Deadline(), "the program has ended by the deadline")
		}
	}
	heal()
	assert.Equal(s, next.ID, app.AwaitRunning(s, a, space.Soon).ID, "the healed pod disturbs no program")
	return before
}

// leashedVoters returns an application of three programs that bid for an election, and that ignore
// the end of a hold. Shims kill these programs.
func leashedVoters(name string) app.App {
	a := voters(name)
	a.Args = append(a.Args, "-disobey")
	a.Annotations[api.OnAPILossAnnotation] = string(api.OnAPILossKill)
	return a
}

// The program ignores each answer of the local API, so only its shim ends the program.
//
// docs/reference/compatibility.md: pod/local-api-kill carried
func TestDisobedientProgramDiesBeforeTakeover(t *testing.T) {
	l := cluster.NeedLab(t, "it cuts a node off")
	s, a := space.New(t), leashedVoters("disobedient")
	app.Deploy(s, a)
	for _, pod := range s.Pods(a.Name) {
		assert.True(t, status.Ready(pod), "the pod's readiness is its own: %s", pod.Name)
		assert.NotNil(t, process.Find(pod, process.Shim))
	}
	before := endsBeforeTakeover(s, l, a)
	s.Await(space.Soon, "the pod's container has restarted", func() bool {
		pod := s.Pod(before.Pod)
		if pod == nil || len(pod.Status.ContainerStatuses) == 0 {
			return false
		}
		ended := pod.Status.ContainerStatuses[0].LastTerminationState.Terminated
		return ended != nil && ended.ExitCode == api.ExitLost
	})
}

// onNode returns an application of two programs on one node, on that node's network. The programs
// reach the local API over its Unix socket, and bid for the election.
func onNode(name, election, node string) app.App {
	a := voters(name)
	a.Replicas, a.Args = 2, []string{"-bid=election/" + election, "-socket=/run/api/api.sock", "-listen=127.0.0.1:0"}
	a.Annotations[api.LocalAnnotation] = "election/" + election
	a.Edit = func(template *corev1.PodTemplateSpec) {
		spec, container := &template.Spec, &template.Spec.Containers[0]
		spec.HostNetwork, spec.NodeName = true, node
		spec.Volumes = append(spec.Volumes, corev1.Volume{
			Name: api.LocalVolume, VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}},
		})
		container.Ports = nil
		container.VolumeMounts = append(container.VolumeMounts, corev1.VolumeMount{Name: api.LocalVolume, MountPath: "/run/api", ReadOnly: true})
	}
	return a
}

// Four agents serve on one node, and none of them takes a port. If a program called an agent of the
// other application, that agent would refuse the undeclared claim, and the program would end.
//
// docs/reference/compatibility.md: pod/local-api-socket carried
func TestProgramsOnHostNetworkReachAgentBySocket(t *testing.T) {
	t.Parallel()
	cluster.NeedLab(t, "it needs the record, and reads the ports of a node")
	s := space.New(t)
	nodes, err := s.Client.CoreV1().Nodes().List(s.Context(), metav1.ListOptions{})
	require.NoError(t, err)
	node := nodes.Items[len(nodes.Items)-1].Name
	a, beside := onNode("on-node", "main", node), onNode("beside", "other", node)
	app.Deploy(s, a)
	app.Deploy(s, beside)
	first, other := app.AwaitRunning(s, a, space.Soon), app.AwaitRunning(s, beside, space.Soon)
	assert.Equal(t, electionSlot, first.Slot)
	assert.Equal(t, api.ElectionLease("other"), other.Slot)
	agent := process.Find(s.Pod(first.Pod), process.Agent)
	require.NotNil(t, agent)
	assert.True(t, agent.Listens(10250), "the kubelet listens on the node's network")
	assert.False(t, agent.Listens(api.LocalPort))

	app.DeletePod(s, s.Pod(first.Pod))
	second := leads(s, a, first)
	app.VacantFor(s, a, first, givenBack, "the hold was given back")
	assert.Equal(t, other.ID, app.AwaitRunning(s, beside, space.Soon).ID)

	// Without its agent a program gets no answer, and ends.
	process.MustSignal(s, s.Pod(second.Pod), process.Agent, unix.SIGKILL)
	seen := lease.Renewed(s, electionSlot)
	third := leads(s, a, second)
	assert.GreaterOrEqual(t, third.Start, seen+lease.Fault, "the Lease has expired")
}

// mostOwn bounds the memory of an agent whose local API is in use by a hundred connections. The
// pages of the binary do not count, because all agents of a node share them.
const mostOwn = 10 << 20

func TestHundredConnectionsToLocalAPICostFewMegabytes(t *testing.T) {
	t.Parallel()
	cluster.NeedLab(t, "it measures processes")
	s, a := space.New(t), voters("followers")
	a.Replicas = 1
	a.Args = append(a.Args, "-follow=100")
	app.Deploy(s, a)
	leader := app.AwaitRunning(s, a, space.Soon)
	agent := process.Find(s.Pod(leader.Pod), process.Agent)
	require.NotNil(t, agent)
	s.Await(space.Soon, "a hundred connections are open", func() bool { return agent.Sockets() > 100 })
	app.DeletePod(s, s.AwaitHolder(electionSlot)) // each connection sees the next leader
	next := leads(s, a, leader)
	agent = process.Find(s.Pod(next.Pod), process.Agent)
	require.NotNil(t, agent)
	s.Await(space.Soon, "a hundred connections are open", func() bool { return agent.Sockets() > 100 })
	all, own := agent.Resident()
	t.Logf("%d kB resident, of which no file backs %d kB", all>>10, own>>10)
	assert.NotZero(t, own)
	assert.Less(t, own, mostOwn)
}
