// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package operations

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/test/cluster/lab"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/app"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/client"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/cluster"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/kubectl"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/lease"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/space"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/status"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/webhook"
	"github.com/metaparticle-io/metaparticle/test/e2e/record"
)

// Earlier is the Git revision of the version from which
// [TestUpgradeAndRollbackNeverStopTheApplication] upgrades; empty means that the test is skipped.
var Earlier string

// version is an installable version of the product.
type version struct {
	t *testing.T
	// tree is the path of the directory with the files of the version.
	tree string
	// arguments are the flags of the install command, which name the images and the registries
	// of the test cluster.
	arguments []string
	// agent is the image of the agent.
	agent string
}

// install runs the version's own install command. The command applies the version's manifests, and
// waits until the version's webhook gates a pod.
func (v version) install() {
	v.t.Helper()
	out, err := v.run("go", append([]string{"run", "./tools/install"}, v.arguments...)...)
	require.NoError(v.t, err, out)
}

// run runs a program in the files of the version.
func (v version) run(name string, args ...string) (output string, err error) {
	cmd := exec.CommandContext(context.Background(), name, args...)
	cmd.Dir, cmd.Env = v.tree, append(os.Environ(), "KUBECONFIG="+cluster.Kubeconfig, "CGO_ENABLED=0")
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// present returns the version of this checkout, with the images of the present installation.
func present(t *testing.T) version {
	t.Helper()
	v := version{t: t, tree: "../..", arguments: installArguments(t)}
	v.agent = v.arguments[slices.Index(v.arguments, "-agent-image")+1]
	return v
}

// earlier checks out the Git revision, builds its images, and pushes them to the cluster's
// registry.
func earlier(t *testing.T, now version, revision string) version {
	t.Helper()
	const folder = "/metaparticle-earlier"
	v := version{t: t, tree: t.TempDir()}
	archive := filepath.Join(v.tree, "tree.tar")
	out, err := now.run("git", "archive", "-o", archive, revision)
	require.NoError(t, err, out)
	out, err = v.run("tar", "-xf", archive)
	require.NoError(t, err, out)
	out, err = v.run("go", "run", "-trimpath", "./tools/images", "-version", "earlier", "-out", filepath.Join(v.tree, "out"),
		"-platforms", "linux/"+runtime.GOARCH, "-push", cluster.Lab.Registry()+folder, "-insecure")
	require.NoError(t, err, out)
	v.arguments = slices.Clone(now.arguments)
	for line := range strings.Lines(out) {
		fields := strings.Fields(line)
		if len(fields) < 3 || fields[1] != "all" {
			continue
		}
		image := lab.RegistryInCluster + folder + "/" + fields[0] + "@" + fields[2]
		at := slices.Index(v.arguments, "-"+fields[0]+"-image")
		require.GreaterOrEqual(t, at, 0, out)
		v.arguments[at+1] = image
		if fields[0] == "agent" {
			v.agent = image
		}
	}
	require.NotEmpty(t, v.agent, out)
	return v
}

// admissions counts the proposals of [propose], and lists the refusals.
type admissions struct {
	mu      sync.Mutex
	count   int
	refused []string
}

// propose proposes pods and a Deployment by dry run, again and again. The returned function ends
// the proposals, and returns their number and the refusals.
func propose(s *space.Space) (stop func() (count int, refused []string)) {
	a := &admissions{}
	ctx, cancel := context.WithCancel(s.Context())
	done := make(chan struct{})
	plain, singleton := app.Bare(s, "plain", nil), app.Bare(s, "proposed", webhook.Claims)
	locked := app.Bare(s, "locked", map[string]string{api.LockAnnotation: "proposed"})
	deployment := app.Deployment(s, app.Singleton("proposed"))
	dryRun := metav1.CreateOptions{DryRun: webhook.DryRun}
	go func() {
		defer close(done)
		ticker := time.NewTicker(10 * space.CheckInterval)
		defer ticker.Stop()
		for {
			for _, pod := range []*corev1.Pod{plain, singleton, locked} {
				_, err := s.Client.CoreV1().Pods(s.Namespace).Create(ctx, pod, dryRun)
				a.note(ctx, pod.Name, err)
			}
			_, err := s.Client.AppsV1().Deployments(s.Namespace).Create(ctx, deployment, dryRun)
			a.note(ctx, "deployment", err)
			select {
			case <-ticker.C:
			case <-ctx.Done():
				return
			}
		}
	}()
	return func() (int, []string) {
		cancel()
		<-done
		return a.count, a.refused
	}
}

func (a *admissions) note(ctx context.Context, name string, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if ctx.Err() != nil {
		return // the function "stop" has cancelled the request
	}
	a.count++
	if err != nil {
		a.refused = append(a.refused, time.Now().Format(time.StampMilli)+" "+name+": "+err.Error())
	}
}

// upgrading is the test of one upgrade, with its applications.
type upgrading struct {
	*space.Space
	singleton app.App
	// ask starts a client of the singleton.
	ask func() *client.Client
	// stops counts the stops of the singleton that the test's handovers and rollouts have caused.
	stops int
}

// clients runs a client that sends requests all the time, until the function "do" has returned. At
// most the given number of requests may fail; a negative number sets no bound. A handover has no
// bound here: the tests of package traffic bound the requests that a handover loses.
func (u *upgrading) clients(name string, most int, do func()) {
	u.Helper()
	asking := u.ask()
	u.Await(space.StartTimeout, "the client has an answer", asking.Answered)
	do()
	sum := asking.Stop()
	u.Remark("%s: %d answers, %d requests failed, the slowest took %s", name, sum.Answered, len(sum.Failed), sum.Slowest.Round(time.Millisecond))
	if n := len(sum.Failed); n > 0 {
		u.Remark("%s: the first failure %s, the last %s", name, sum.Failed[0], sum.Failed[n-1])
	}
	if most >= 0 {
		assert.LessOrEqual(u, len(sum.Failed), most, "%s: %v", name, sum.Failed)
	}
}

// changes installs a version while the applications run, and while [propose] creates objects by
// dry run. The function requires that the singleton never stops, and that no dry run is
// refused.
func (u *upgrading) changes(name string, install func()) {
	u.Helper()
	before := app.AwaitRunning(u.Space, u.singleton, space.StartTimeout)
	began := time.Now()
	stop := propose(u.Space)
	u.clients(name, 0, func() {
		install()
		// During this wait the holder renews its Lease at least once.
		u.Never(lease.Handover+5*time.Second, "another application", func() bool { return app.After(u.Space, u.singleton, before) != nil })
	})
	count, refused := stop()
	u.Remark("%s: %s, %d proposals, %d refused", name, time.Since(began).Round(time.Second), count, len(refused))
	assert.Empty(u, refused, name)
	assert.Greater(u, count, 20)
	now := app.AwaitRunning(u.Space, u.singleton, space.Soon)
	assert.Equal(u, before.ID, now.ID, "%s stops nothing", name)
}

// grows adds a replica, and requires that the new pod is the only one with the agent of the
// version.
func (u *upgrading) grows(v version, replicas int32) {
	u.Helper()
	app.Scale(u.Space, u.singleton, replicas)
	u.singleton.Replicas = replicas
	app.AwaitGated(u.Space, u.singleton)
	assert.Equal(u, 1, u.agents()[v.agent], "the new pod has the agent of the version")
}

// agents counts the pods of the singleton by the image of their agent. Pods that are being deleted
// count, because their application may still run.
func (u *upgrading) agents() map[string]int {
	count := map[string]int{}
	for _, pod := range u.Pods(u.singleton.Name) {
		for _, c := range pod.Spec.InitContainers {
			if c.Name == api.AgentContainer {
				count[c.Image]++
			}
		}
	}
	return count
}

// handsOver deletes the holder. Then all standbys compete, whichever version their agents have.
func (u *upgrading) handsOver(name string) {
	u.Helper()
	u.clients("a handover "+name, -1, func() {
		app.HandsOver(u.Space, u.singleton)
		app.AwaitGated(u.Space, u.singleton)
	})
	u.stops++
}

// mostInRollout bounds the failed requests in a rollout from version 0.1.0, or back to 0.1.0. The client
// sends about a hundred requests a second. docs/operate/upgrade.md tells of failures for up to two seconds.
const mostInRollout = 500

// rolls replaces all pods, so that all of them have the agent of the version.
func (u *upgrading) rolls(v version) {
	u.Helper()
	before := len(u.starts())
	u.clients("a rollout to "+v.agent, mostInRollout, func() {
		kubectl.Must(u.Space, "", "rollout", "restart", "deployment/"+u.singleton.Name)
		kubectl.Must(u.Space, "", "rollout", "status", "deployment/"+u.singleton.Name, kubectl.RolloutTimeout)
		u.Await(space.StartTimeout, "all pods have the agent of the version", func() bool {
			return u.agents()[v.agent] == int(u.singleton.Replicas) && len(u.agents()) == 1
		})
		app.AwaitRunning(u.Space, u.singleton, space.StartTimeout)
		u.awaitReady()
	})
	stops := len(u.starts()) - before
	u.Remark("the rollout to %s stopped the application %d times", v.agent, stops)
	assert.Positive(u, stops)
	u.stops += stops
}

// awaitReady waits until all pods of the singleton are Ready.
func (u *upgrading) awaitReady() {
	u.Helper()
	u.Await(space.StartTimeout, "all pods are Ready", func() bool {
		return !slices.ContainsFunc(u.Pods(u.singleton.Name), func(pod *corev1.Pod) bool { return !status.Ready(pod) })
	})
}

// starts returns the first process of each start of the singleton's application. A process with
// a parent is a descendant of such a process.
func (u *upgrading) starts() (all []record.Process) {
	for _, p := range u.Record(u.singleton.RecordName()) {
		if p.Parent == "" {
			all = append(all, p)
		}
	}
	return all
}

// competes deploys the application "next". The pod of this application must wait while the
// application "before" holds the lock. Then competes deletes the holder's Deployment.
func (u *upgrading) competes(before, next app.App) {
	u.Helper()
	app.Create(u.Space, next)
	app.AwaitGated(u.Space, next)
	now := app.AwaitRunning(u.Space, before, space.Soon)
	u.Never(lease.Handover, "another holder of the lock", func() bool { return app.After(u.Space, before, now) != nil })
	kubectl.Must(u.Space, "", "delete", "deployment", before.Name)
	u.Await(space.StartTimeout, next.Name+" holds the lock", func() bool { return app.After(u.Space, before, now) != nil })
}

// lockedBy returns an application that claims the lock "shared". The lease is so long that the
// holder keeps the lock on a busy machine.
func lockedBy(name string) app.App {
	a := app.Locked(name, "shared")
	a.Annotations[api.LeaseDurationAnnotation] = lease.Lasting.String()
	return a
}

// The test runs only for "make upgrade", because the test compiles an earlier version of the
// product. The applications run from the first installation to the last one, and clients send
// requests all the time. The cleanup of the space fails the test if two applications of one slot
// ever run at once.
func TestUpgradeAndRollbackNeverStopTheApplication(t *testing.T) {
	if Earlier == "" {
		t.Skip("make upgrade FROM=revision")
	}
	l := cluster.NeedLab(t, "it installs two versions")
	s := space.New(t)
	now, charted := present(t), newChart(t)
	before := earlier(t, now, Earlier)
	t.Cleanup(func() {
		_, _ = charted.run("uninstall", releaseName, "--no-hooks", "--ignore-not-found")
		now.install()
		webhook.AwaitGating(s)
	})
	out, err := install(t, "-uninstall")
	require.NoError(t, err, out)
	before.install()
	webhook.AwaitGating(s)

	u := &upgrading{Space: s, singleton: app.Lasting("upgraded")}
	u.singleton.Replicas = 2
	app.Deploy(s, u.singleton)
	first := lockedBy("locked-first")
	app.Deploy(s, first)
	require.Equal(t, map[string]int{before.agent: 2}, u.agents())
	service := app.Service(s, u.singleton)
	u.ask = func() *client.Client {
		return client.Start(s, l, l.Nodes()[0], client.Anew, service.Spec.ClusterIP)
	}
	// A node refuses connections to the new Service until the node knows the Service's endpoints.
	u.clients("the first answer", -1, func() {})

	u.changes("upgrade", now.install)
	u.grows(now, 3)
	u.handsOver("beside pods of the new version")
	second := lockedBy("locked-second")
	u.competes(first, second)
	u.rolls(now)

	u.changes("rollback", before.install)
	u.grows(before, 4)
	u.handsOver("after the rollback")
	third := lockedBy("locked-third")
	u.competes(second, third)
	u.rolls(before)

	u.changes("upgrade by Helm", func() {
		charted.must(append([]string{"install", releaseName, charted.dir, "--wait", "--take-ownership"}, charted.values...)...)
	})
	u.rolls(now)

	u.handsOver("between pods of this version")

	assert.Len(t, u.starts(), u.stops+1, "no stop but those that the test asked for")
	// A new holder is Ready only once its application serves.
	u.awaitReady()
	u.saidNothing()
}

// saidNothing requires that no controller's pod was refused, and that no policy refused a write of
// an agent.
func (u *upgrading) saidNothing() {
	u.Helper()
	for _, e := range u.Events() {
		assert.NotEqual(u, "FailedCreate", e.Reason, e.Message)
	}
	for _, pod := range u.Pods(u.singleton.Name) {
		if pod.DeletionTimestamp != nil {
			continue // the pod of the last handover may vanish before kubectl reads its log
		}
		log := kubectl.Must(u.Space, "", "logs", pod.Name, "-c", api.AgentContainer)
		assert.NotRegexp(u, "NotYours|NotYourIdentity|NotYourself|NoIdentity", log)
	}
}
