// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package operations

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/test/cluster/lab"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/app"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/cluster"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/fault"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/holder"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/lease"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/space"
	"github.com/metaparticle-io/metaparticle/test/e2e/record"
)

// etcdutl builds etcd's own tool for restores.
func etcdutl(t *testing.T) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "etcdutl")
	build := exec.CommandContext(t.Context(), "go", "build", "-C", "../etcdutl", "-trimpath", "-o", binary, "go.etcd.io/etcd/etcdutl/v3")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := build.CombinedOutput()
	require.NoError(t, err, "%s", out)
	return binary
}

// saved stops etcd, copies its database, and starts etcd again. The result is the path of the copy.
func saved(t *testing.T, l *lab.Cluster) string {
	t.Helper()
	snapshot := filepath.Join(t.TempDir(), "snapshot.db")
	start := fault.Component(t, l, lab.ControlPlane, "etcd")
	data, err := os.ReadFile(l.Path("etcd", "member", "snap", "db"))
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(snapshot, data, 0o600))
	start()
	fault.AwaitAPI(t)
	return snapshot
}

// bumped has arguments for etcdutl. With these arguments etcd's revision is higher after the
// restore than before.
var bumped = []string{"--bump-revision=1000000000", "--mark-compacted"}

// restore replaces the data of the stopped etcd by the data of the snapshot.
func restore(t *testing.T, l *lab.Cluster, tool, snapshot string, more ...string) {
	t.Helper()
	restored, lost := l.Path("etcd.restored"), l.Path("etcd.lost")
	t.Cleanup(func() { assert.NoError(t, os.RemoveAll(lost)) })
	const peer = "http://127.0.0.1:2380"
	out, err := exec.CommandContext(t.Context(), tool, append([]string{"snapshot", "restore", snapshot, "--skip-hash-check", "--data-dir=" + restored,
		"--name=cp", "--initial-cluster=cp=" + peer, "--initial-advertise-peer-urls=" + peer}, more...)...).CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.NoError(t, os.Rename(l.Path("etcd"), lost))
	require.NoError(t, os.Rename(restored, l.Path("etcd")))
}

// restoration is an application, and a restore of etcd as docs/operate/restore-etcd.md describes. The snapshot
// of etcd is older than the application's latest hold.
type restoration struct {
	holder.Holder
	// second is the process that started after the snapshot was taken.
	second *record.Process
	// floor is etcd's revision shortly before the restore.
	floor int
}

// restored deploys an application, copies the data of etcd, and makes another pod the holder. Then
// restored restores the copied data. The argument "more" has further arguments for etcdutl.
func restored(t *testing.T, name string, more ...string) restoration {
	t.Helper()
	tool := etcdutl(t)
	r := restoration{Holder: holder.Deploy(t, app.Suffering(name), "it restores etcd")}
	// The restore would bring back the Leases of an earlier test, although the pods of that test
	// are gone.
	r.Await(space.StartTimeout, "no namespace of an earlier test is left, because the command recover looks at all", func() bool {
		spaces, err := r.Client.CoreV1().Namespaces().List(t.Context(), metav1.ListOptions{LabelSelector: space.Label})
		require.NoError(t, err)
		return len(spaces.Items) == 1
	})
	snapshot := saved(t, r.Lab)
	app.DeletePod(r.Space, r.Victim)
	r.Await(space.StartTimeout, "another pod holds", func() bool {
		r.second = app.After(r.Space, r.App, r.Before)
		return r.second != nil
	})
	assert.Greater(t, token(t, r.second), token(t, r.Before))
	lose(t, lostWrites)
	r.floor = revision(t)

	startEtcd := fault.Component(t, r.Lab, lab.ControlPlane, "etcd")
	startAPI := fault.Component(t, r.Lab, lab.ControlPlane, "apiserver")
	require.True(t, r.Within(lease.Fault, func() bool { return app.Vacant(r.Space, r.App.Name) }),
		"within a lease duration without an API server, the application has stopped")
	assert.GreaterOrEqual(t, lostRevision(t, tool, r.Lab)+batch, r.floor, "the lost data tell the floor")
	restore(t, r.Lab, tool, snapshot, more...)
	startEtcd()
	startAPI()
	fault.AwaitAPI(t)
	for _, node := range r.Lab.Nodes() {
		fault.AwaitNode(t, node)
	}
	return r
}

// lostWrites is the number of writes that a restore loses at least. After the restore, the cluster
// writes a few hundred times before the test reads etcd's revision. So without --bump-revision the
// revision is still smaller than before the restore.
const lostWrites = 1500

// lose writes an object for the given number of times.
func lose(t *testing.T, writes int) {
	t.Helper()
	objects := cluster.Client.CoreV1().ConfigMaps(metav1.NamespaceDefault)
	object, err := objects.Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{GenerateName: "lost-"}}, metav1.CreateOptions{})
	require.NoError(t, err)
	for n := range writes {
		object.Data = map[string]string{"n": strconv.Itoa(n)}
		object, err = objects.Update(t.Context(), object, metav1.UpdateOptions{})
		require.NoError(t, err)
	}
	require.NoError(t, objects.Delete(t.Context(), object.Name, metav1.DeleteOptions{}))
}

// batch is the number of writes that etcd commits at once by default. After a crash, up to this
// number of writes may be only in etcd's log, and not in its database.
const batch = 10_000

// lostRevision returns the revision in etcd's database file before the restore. docs/operate/recover.md
// tells a person to compute the floor for the command "recover" from this revision.
func lostRevision(t *testing.T, tool string, l *lab.Cluster) int {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), tool, "snapshot", "status", l.Path("etcd", "member", "snap", "db"), "-w", "json").Output()
	require.NoError(t, err)
	var status struct{ Revision int }
	require.NoError(t, json.Unmarshal(out, &status), "%s", out)
	return status.Revision
}

// revision returns the present revision of etcd, as the API server reports it.
func revision(t *testing.T) int {
	t.Helper()
	list, err := cluster.Client.CoordinationV1().Leases(metav1.NamespaceDefault).List(t.Context(), metav1.ListOptions{})
	require.NoError(t, err)
	n, err := strconv.Atoi(list.ResourceVersion)
	require.NoError(t, err)
	return n
}

// token returns the token of a process.
func token(t *testing.T, p *record.Process) int {
	t.Helper()
	n, err := strconv.Atoi(p.Token)
	require.NoError(t, err)
	return n
}

// runs waits until another process than the given one runs the application.
func (r restoration) runs(before *record.Process) (now *record.Process) {
	r.Helper()
	r.Await(space.StartTimeout, "the application runs again", func() bool {
		now = app.After(r.Space, r.App, before)
		return now != nil
	})
	return now
}

func TestRestoredEtcdKeepsSlotsExclusive(t *testing.T) {
	r := restored(t, "restored", bumped...)
	third := r.runs(r.second)
	t.Logf("tokens: %d, then %d, and %d after the restore", token(t, r.Before), token(t, r.second), token(t, third))
	assert.Greater(t, token(t, third), token(t, r.second), "a token never goes back")
	app.DeletePod(r.Space, r.Pod(third.Pod))
	r.runs(third)
}

// A restore without --bump-revision makes the tokens of new holds smaller than those of earlier
// holds. After the command "recover", new tokens are greater than those of all earlier holds.
func TestRecoverCommandRaisesTokensAfterARestore(t *testing.T) {
	r := restored(t, "recovered")
	r.TokensGoBack = true // the restore makes tokens smaller
	low := revision(t)
	assert.Less(t, low, r.floor, "the revision went back")
	third := r.runs(r.second)
	t.Logf("tokens: %d, then %d, and %d after the restore; revision %d, then %d", token(t, r.Before), token(t, r.second), token(t, third), r.floor, low)

	floor := r.floor + 10_000 // a person names a floor above etcd's revision before the restore
	began := time.Now()
	out := newPlugin(r.Space).run(0, "recover", "--floor", strconv.Itoa(floor))
	t.Logf("recover took %s: %s", time.Since(began).Round(time.Second), out)
	fourth := r.runs(third)
	assert.Greater(t, token(t, fourth), floor)
	assert.NotContains(t, r.Lease(lease.OfDeployment(r.App.Name)).Annotations, api.PausedAnnotation)
	app.DeletePod(r.Space, r.Pod(fourth.Pod))
	assert.Greater(t, token(t, r.runs(fourth)), token(t, fourth))
}
