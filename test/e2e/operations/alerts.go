// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package operations

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/test/cluster/lab"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/app"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/cluster"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/fault"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/kubectl"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/lease"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/prometheus"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/space"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/webhook"
)

// faster divides the durations in monitoring/rules.yaml, such as the time range of a query. The
// longest duration, one hour, becomes three minutes. The shortest range, five minutes, becomes 15 s.
const faster = 20

// alerted bounds the wait for an alert, and for its end. The bound is the sum of the longest
// duration, some seconds, and the time for the start of a pod.
const alerted = 3*time.Minute + 15*time.Second + space.StartTimeout

// Each alert of monitoring/rules.yaml about a workload fires after its fault, and ends after the
// repair. An ordinary user of a namespace can cause each of these faults.
func TestWorkloadAlertsFireUntilFaultsAreRepaired(t *testing.T) {
	t.Parallel()
	p := prometheus.Start(t, faster)
	t.Run("an ordinary handover fires nothing", func(t *testing.T) {
		a := app.Lasting("ordinary")
		app.Deploy(p.Space, a)
		_, yields := app.Yields(p.Space, a)
		t.Logf("%d yields", yields)
		p.Silent(faster * time.Second)
		app.Scale(p.Space, a, 0)
	})
	workloadFaults(p)
}

// Each alert about the installation fires after its fault, and ends after the repair. The faults
// affect the whole cluster, so the test runs alone.
func TestClusterAlertsFireUntilFaultsAreRepaired(t *testing.T) {
	p := prometheus.Start(t, faster)
	renewed := expire(t)
	restored := slowServer(t, p)

	webhook.Scale(t, 0)
	t.Cleanup(func() { webhook.Scale(t, 2) })
	p.AwaitFires(alerted, "MetaparticleNobodyEnrolls")
	webhook.Scale(t, 2)
	p.AwaitEnds(alerted, "MetaparticleNobodyEnrolls")

	p.AwaitFires(alerted, "MetaparticleCertificateExpires")
	renewed()
	p.AwaitEnds(renewalTimeout+alerted, "MetaparticleCertificateExpires")
	restored()
}

// slowServer stops the API server for six of nine seconds, again and again, until two alerts have
// fired. These alerts are about a slow API server, and about late renewals. The lease of the test's
// pod lasts 20 s. So the pod keeps its slot, although most of its renewals are late. The agent
// gives up each attempt to renew after 1.7 s. The returned function waits until both alerts have
// ended.
func slowServer(t *testing.T, p *prometheus.Server) (restored func()) {
	a := app.Singleton("renewing")
	a.Replicas, a.Annotations[api.LeaseDurationAnnotation] = 1, "20s"
	app.Deploy(p.Space, a)
	server := cluster.Lab.PID(lab.ControlPlane, "apiserver")
	require.NotZero(t, server)
	run := func() { assert.NoError(t, unix.Kill(server, unix.SIGCONT)) }
	t.Cleanup(run)
	slow, late := false, false
	turn := time.NewTicker(3 * time.Second)
	defer turn.Stop()
	for cycle := 0; !slow || !late; cycle++ {
		require.Less(t, cycle, 30, "alerts of a slow API server: slow %v, late %v", slow, late)
		require.NoError(t, unix.Kill(server, unix.SIGSTOP))
		<-turn.C
		<-turn.C
		run()
		slow = slow || p.Fires("MetaparticleAPISlow") != nil
		late = late || p.Fires("MetaparticleRenewalsLate", "workload=Deployment/renewing", "namespace="+p.Namespace) != nil
		<-turn.C
	}
	p.Remark("fires: MetaparticleAPISlow and MetaparticleRenewalsLate")
	fault.AwaitAPI(t)
	return func() {
		p.AwaitEnds(alerted, "MetaparticleAPISlow")
		p.AwaitEnds(alerted, "MetaparticleRenewalsLate")
		app.Scale(p.Space, a, 0)
		for _, node := range cluster.Lab.Nodes() {
			fault.AwaitNode(t, node)
		}
	}
}

// workloadFaults causes all faults of single workloads together, and later repairs all of them. The
// alert about refused pods names only the reason, not the namespace. So no other test may cause a
// refusal for the reason PortTaken.
func workloadFaults(p *prometheus.Server) {
	p.Helper()
	here := "namespace=" + p.Namespace
	lacking := app.App{Name: "lacking", Record: "$" + api.SlotEnv, Replicas: 1, Annotations: app.Claim(api.ShardsAnnotation, "2")}
	app.Create(p.Space, lacking)
	refused := app.Singleton("refused")
	refused.Edit = func(t *corev1.PodTemplateSpec) {
		t.Spec.Containers[0].Ports = []corev1.ContainerPort{{ContainerPort: api.AgentPort}}
	}
	app.Create(p.Space, refused)
	flapping := app.Singleton("flapping")
	flapping.Replicas = 1
	app.Deploy(p.Space, flapping)
	unsupported := app.Singleton("unsupported")
	unsupported.Replicas = 1
	unsupported.Annotations[api.FailsafeAnnotation] = "10m"
	app.Deploy(p.Space, unsupported)
	poor, poorer := space.New(p.T), app.Singleton("poor")
	unlimit := forbidRights(poor)
	app.Create(poor, poorer)
	later := app.App{Name: "later", Replicas: 1, Annotations: map[string]string{api.AfterAnnotation: "lock.never"}}
	app.Create(poor, later)

	p.AwaitFires(alerted, "MetaparticleShardsLackPods", here)
	resume := pauseShards(p, lacking)
	p.AwaitFires(alerted, "MetaparticlePodsRefused", "reason=PortTaken")
	p.AwaitFires(alerted, "MetaparticleEnrollBehind", "namespace="+poor.Namespace)
	p.AwaitFires(alerted, "MetaparticleEnrollFails", "namespace="+poor.Namespace, "step=conditions")
	p.AwaitFires(alerted, "MetaparticleNobodyHolds", "namespace="+poor.Namespace, "workload=Deployment/poor")
	yieldUntil(p, flapping, func() bool { return p.Fires("MetaparticleFlapping", here, "workload=Deployment/flapping") != nil })
	p.AwaitFires(alerted, "MetaparticleNoSupporter", here, "workload=Deployment/unsupported")
	p.AwaitFires(alerted, "MetaparticleRecoverUnfinished", here)
	p.AwaitFires(alerted, "MetaparticleSlotsPaused", here, "pause=hold")

	resume()
	app.Scale(p.Space, unsupported, 2)
	unlimit()
	app.Scale(p.Space, lacking, 2)
	require.NoError(p, p.Client.AppsV1().Deployments(p.Namespace).Delete(p.Context(), refused.Name, metav1.DeleteOptions{}))
	p.AwaitEnds(alerted, "MetaparticleEnrollBehind", "namespace="+poor.Namespace)
	p.AwaitEnds(alerted, "MetaparticleEnrollFails", "namespace="+poor.Namespace)
	p.AwaitEnds(alerted, "MetaparticleNobodyHolds", "namespace="+poor.Namespace)
	app.Scale(poor, later, 0)
	p.AwaitEnds(alerted, "MetaparticleRecoverUnfinished", here)
	p.AwaitEnds(alerted, "MetaparticleSlotsPaused", here)
	app.AwaitRunning(poor, poorer, space.StartTimeout)
	p.AwaitEnds(alerted, "MetaparticleShardsLackPods", here)
	p.AwaitEnds(alerted, "MetaparticleFlapping", here)
	p.AwaitEnds(alerted, "MetaparticlePodsRefused", "reason=PortTaken")
	p.AwaitEnds(alerted, "MetaparticleNoSupporter", here)
	for _, a := range []app.App{lacking, flapping, unsupported} {
		app.Scale(p.Space, a, 0)
	}
}

// yieldUntil makes the only pod of an application yield again and again, until the function
// "condition" returns true. The pod takes its slot back each time.
func yieldUntil(p *prometheus.Server, a app.App, condition func() bool) {
	p.Helper()
	last := ""
	p.Every(alerted, "enough holds of "+a.Name, func() bool {
		l := p.Lease(lease.OfDeployment(a.Name))
		if pod, hold := p.Named(l), l.Annotations[api.HoldAnnotation]; pod != nil && hold != last {
			last = hold
			kubectl.Must(p.Space, "", "exec", pod.Name, "-c", api.AgentContainer, "--", "/agent", "yield")
		}
		return condition()
	})
	p.Remark("fires: MetaparticleFlapping")
}

// pauseShards pauses the first shard of an application as a person does, and the second shard as an
// interrupted recovery does. The returned function ends both pauses.
func pauseShards(p *prometheus.Server, a app.App) (resume func()) {
	p.Helper()
	group := api.ShardGroup(api.Workload{Group: "apps", Kind: "Deployment", Name: a.Name})
	for n, pause := range []api.Pause{api.PauseHold, api.PauseRecover} {
		kubectl.Must(p.Space, "", "annotate", "lease", api.ShardLease(group, n), api.PausedAnnotation+"="+string(pause))
	}
	return func() {
		for n := range 2 {
			kubectl.Must(p.Space, "", "annotate", "lease", api.ShardLease(group, n), api.PausedAnnotation+"-")
		}
	}
}

// forbidRights makes the API server refuse new Leases and Roles in the namespace, by a quota, until
// the returned function is called.
func forbidRights(s *space.Space) (permit func()) {
	s.Helper()
	const (
		leases = corev1.ResourceName("count/leases.coordination.k8s.io")
		roles  = corev1.ResourceName("count/roles.rbac.authorization.k8s.io")
	)
	quotas := s.Client.CoreV1().ResourceQuotas(s.Namespace)
	_, err := quotas.Create(s.Context(), &corev1.ResourceQuota{
		ObjectMeta: metav1.ObjectMeta{Name: "no-rights"},
		Spec:       corev1.ResourceQuotaSpec{Hard: corev1.ResourceList{leases: resource.MustParse("0"), roles: resource.MustParse("0")}},
	}, metav1.CreateOptions{})
	require.NoError(s, err)
	s.Await(space.Soon, "the quota counts", func() bool {
		q, err := quotas.Get(s.Context(), "no-rights", metav1.GetOptions{})
		require.NoError(s, err)
		_, countedLeases := q.Status.Used[leases]
		_, countedRoles := q.Status.Used[roles]
		return countedLeases && countedRoles
	})
	return func() {
		require.NoError(s, quotas.Delete(s.Context(), "no-rights", metav1.DeleteOptions{}))
	}
}

// expire makes cert-manager issue a certificate that is valid for one day. The returned function
// restores the Certificate's earlier durations. The end of the test restores these durations, too.
func expire(t *testing.T) (renewed func()) {
	t.Helper()
	client, err := dynamic.NewForConfig(cluster.Config)
	require.NoError(t, err)
	certificates := client.Resource(schema.GroupVersionResource{Group: "cert-manager.io", Version: "v1", Resource: "certificates"}).
		Namespace(webhook.Namespace)
	patch := func(spec string) {
		ctx := context.WithoutCancel(t.Context())
		_, err := certificates.Patch(ctx, webhook.Name, types.MergePatchType, []byte(`{"spec":`+spec+`}`), metav1.PatchOptions{})
		assert.NoError(t, err)
	}
	before, err := certificates.Get(t.Context(), webhook.Name, metav1.GetOptions{})
	require.NoError(t, err)
	spec := before.Object["spec"].(map[string]any)
	change := func(duration, renewBefore any) {
		patch(fmt.Sprintf(`{"duration":%q,"renewBefore":%q}`, duration, renewBefore))
	}
	change("24h", "1h")
	renewed = sync.OnceFunc(func() { change(spec["duration"], spec["renewBefore"]) })
	t.Cleanup(renewed)
	return renewed
}
