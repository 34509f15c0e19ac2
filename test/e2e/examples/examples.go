// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package examples

import (
	"bufio"
	"cmp"
	"context"
	"io"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/app"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/cluster"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/kubectl"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/process"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/software"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/space"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/status"
	"github.com/metaparticle-io/metaparticle/test/image/public"
	"github.com/metaparticle-io/metaparticle/test/witness"
)

// images puts the images of the examples into the registry, once for all tests.
var images = sync.OnceValue(func() error { return public.Push(context.Background(), cluster.Lab.Registry()) })

// example is an applied folder of the examples.
type example struct {
	*space.Space
	*software.Families
}

// apply applies the folder in a namespace of its own. The argument "app" is the value of the label
// "app" of the example's pods.
func apply(t *testing.T, name, app string) example {
	t.Helper()
	t.Parallel()
	return applyAlone(t, name, app)
}

// applyAlone is apply for a test that fails beside other tests.
func applyAlone(t *testing.T, name, app string) example {
	t.Helper()
	cluster.NeedLab(t, "its registry has the images, and its machine shows the processes")
	require.NoError(t, images())
	s := space.New(t)
	e := example{s, software.NewFamilies(s, app)}
	out := kubectl.Must(s, "", "apply", "-f", folderOf(name))
	assert.NotContains(t, out, "Warning", "an example is free of mistakes")
	return e
}

// folderOf returns the path of an example.
func folderOf(name string) string { return filepath.Join("..", "..", "examples", name) }

// living returns the applications that run now.
func (e example) living() []witness.Family {
	return slices.DeleteFunc(e.All(), func(f witness.Family) bool { return f.End > 0 })
}

// awaitOther waits until an application runs in another pod than the given one, and returns
// the other pod. Without a given pod (nil), any pod will do.
func (e example) awaitOther(than *corev1.Pod) (now *corev1.Pod) {
	e.Space.Helper()
	e.Await(space.StartTimeout, "the application runs in another pod", func() bool {
		_, now = e.Living()
		return now != nil && (than == nil || now.UID != than.UID)
	})
	return now
}

// jobTimeout is longer than any example's Job takes on a busy machine.
const jobTimeout = 6 * time.Minute

// complete waits until the Job has succeeded.
func (e example) complete(name string) {
	e.Space.Helper()
	e.Await(jobTimeout, "Job "+name+" is complete", func() bool {
		job, err := e.Client.BatchV1().Jobs(e.Namespace).Get(e.Context(), name, metav1.GetOptions{})
		require.NoError(e, err)
		return status.Complete(job)
	})
}

func TestNightlyExampleFinishesOneBackupDespiteDeletion(t *testing.T) {
	e := apply(t, "nightly", "nightly")
	// The test starts each Job itself, whatever the time of day.
	kubectl.Must(e.Space, "", "patch", "cronjob", "nightly", "-p", `{"spec":{"suspend":true}}`)
	start := func(job string) { kubectl.Must(e.Space, "", "create", "job", "--from=cronjob/nightly", job) }
	start("first")
	first := e.awaitOther(nil)
	// Even on a busy machine the first Job must not end before the second Job has begun. So the
	// test freezes the first Job's application.
	thaw := process.Freeze(e.Space, first, "sh")
	start("second")
	e.complete("second")
	assert.NotContains(t, kubectl.Must(e.Space, "", "logs", "job/second", "-c", "backup"), "the backup begins")
	assert.Len(t, e.living(), 1, "the second run has skipped the first one, not waited for its end")
	thaw()

	app.DeletePod(e.Space, first)
	next := e.awaitOther(first)
	e.complete("first")
	assert.Contains(t, kubectl.Must(e.Space, "", "logs", next.Name, "-c", "backup"), "the backup is complete")
	assert.Len(t, e.All(), 2)
	e.NeverMoreThan(1)
}

func TestLicenceExampleRunsThreeTasksAtMost(t *testing.T) {
	e := apply(t, "licence", "solver")
	e.Await(space.StartTimeout, "three tasks run", func() bool { return len(e.living()) == 3 })
	_, victim := e.Living()
	require.NotNil(t, victim)
	app.DeletePod(e.Space, victim)
	e.complete("solver")
	assert.Equal(t, "0-5", kubectl.Must(e.Space, "", "get", "job", "solver", "-o", "jsonpath={.status.completedIndexes}"))
	assert.GreaterOrEqual(t, len(e.All()), 7, "six tasks, and the one that was deleted")
	e.NeverMoreThan(3)
}

// warmUp has two instants of one replica, in seconds. The warm-up begins at the instant in the
// field "reads", and ends at the instant in the field "warm". Before the end, the field "warm" is
// zero.
type warmUp struct{ reads, warm float64 }

// warmUps returns the times of all replicas whose pods are still there. The result is sorted by the
// field "reads".
func (e example) warmUps() []warmUp {
	e.Space.Helper()
	var all []warmUp
	line := regexp.MustCompile(`reads from (\d+\.\d+)\n(?:warm at (\d+\.\d+))?`)
	for _, pod := range e.Pods("cache") {
		log, err := kubectl.Run(e.Space, "", "logs", pod.Name, "-c", "cache")
		if err != nil && strings.Contains(log, "NotFound") {
			continue // a replica from before the rollout, whose pod is gone
		}
		require.NoError(e.Space, err, log)
		for _, found := range line.FindAllStringSubmatch(log, -1) {
			var w warmUp
			w.reads, _ = strconv.ParseFloat(found[1], 64)
			w.warm, _ = strconv.ParseFloat(found[2], 64)
			all = append(all, w)
		}
	}
	slices.SortFunc(all, func(a, b warmUp) int { return cmp.Compare(a.reads, b.reads) })
	return all
}

// awaitStarter waits until a replica holds the start lock and its application runs.
func (e example) awaitStarter() (starter *corev1.Pod) {
	e.Space.Helper()
	e.Await(space.StartTimeout, "a replica starts", func() bool {
		starter = e.Holder(api.StartLockLease("database"))
		return starter != nil && process.Main(starter) != nil
	})
	return starter
}

func TestWarmupExampleStartsOneReplicaAtATime(t *testing.T) {
	e := apply(t, "warmup", "cache")
	rolled := func() {
		t.Helper()
		kubectl.Must(e.Space, "", "rollout", "status", "deployment/cache", "--timeout=170s")
		all := e.warmUps()
		require.GreaterOrEqual(t, len(all), 4)
		for i := 1; i < len(all); i++ {
			assert.NotZero(t, all[i-1].warm)
			assert.Greater(t, all[i].reads, all[i-1].warm, "%v", all)
		}
	}
	rolled()
	// During a rollout the test kills a process, and deletes a pod.
	kubectl.Must(e.Space, "", "rollout", "restart", "deployment/cache")
	process.SignalMain(e.Space, e.awaitStarter(), unix.SIGKILL)
	app.DeletePod(e.Space, e.awaitStarter())
	rolled()
}

// asked runs a command in a pod, and returns its output. On a busy machine the stream of kubectl exec may
// break, or lose its first line. So asked repeats the command until two outputs in a row are equal and not
// empty.
func (e example) asked(pod string, command ...string) (answer string) {
	e.Space.Helper()
	e.Await(kubectl.Timeout, strings.Join(command, " ")+" answers", func() bool {
		before := answer
		out, err := kubectl.Run(e.Space, "", append([]string{"exec", pod, "--"}, command...)...)
		answer = strings.TrimSpace(out)
		return err == nil && answer != "" && answer == before
	})
	return answer
}

func TestMigrationExampleMigratesOnceDespiteDeletionAndKill(t *testing.T) {
	e := apply(t, "migration", "shop")
	query := func(sql string) string {
		return e.asked("deployment/database", "psql", "--user=postgres", "-qtAc", sql)
	}
	// A migration adds a row to the table "attempts", and then sleeps for ten seconds. On a busy
	// machine each call of kubectl takes seconds, so repeated calls could see the row too late. So
	// a single call starts a loop in the database's pod, which waits for the row.
	attempts := func(n int) {
		t.Helper()
		loop := `until [ "$(psql --user=postgres -qtAc 'SELECT count(*) FROM attempts')" = ` + strconv.Itoa(n) + ` ]; do sleep 0.2; done`
		e.Await(space.StartTimeout, "a migration is in its middle", func() bool {
			_, err := kubectl.Run(e.Space, "", "exec", "deployment/database", "--", "sh", "-c", loop)
			return err == nil
		})
	}
	first := e.awaitOther(nil)
	attempts(1)
	app.DeletePod(e.Space, first)
	second := e.awaitOther(first)
	attempts(2)
	killed, _ := e.Living()
	require.NotNil(t, killed)
	process.SignalMain(e.Space, second, unix.SIGKILL)
	done := func(attempts, why string) {
		t.Helper()
		kubectl.Must(e.Space, "", "rollout", "status", "deployment/shop", "--timeout=170s")
		assert.Equal(t, "1", query("SELECT count(*) FROM migrations"))
		assert.Equal(t, "1000", query("SELECT count(*) FROM orders"))
		assert.Equal(t, attempts, query("SELECT count(*) FROM attempts"), why)
	}
	done("3", "one was deleted, one was killed, and one succeeded")
	// Nobody asked the killed attempt to stop, so the attempt counts as a failure.
	all := e.All()
	i := slices.IndexFunc(all, func(f witness.Family) bool { return f.Start == killed.Start })
	require.Less(t, i+1, len(all), "an attempt follows")
	assert.GreaterOrEqual(t, all[i+1].Start-all[i].End, api.Failures("7 1").Delay("7"), "after a failure all pods wait")
	kubectl.Must(e.Space, "", "set", "env", "deployment/shop", "-c", "shop", "COLOUR=blue")
	done("4", "the next revision migrates once")
	kubectl.Must(e.Space, "", "rollout", "undo", "deployment/shop")
	done("4", "the pods of the old revision skip the migration")
	e.NeverMoreThan(1)
}

func TestLeaderExampleRunsOneWorkerAndThreeServers(t *testing.T) {
	e := apply(t, "leader", "shop")
	kubectl.Must(e.Space, "", "rollout", "status", "deployment/shop", "--timeout=170s")
	leader := e.awaitOther(nil)
	serve := func() {
		t.Helper()
		e.Await(space.StartTimeout, "three pods serve, whether they lead or not", func() bool {
			pods := slices.DeleteFunc(e.Pods("shop"), func(pod *corev1.Pod) bool { return !status.Ready(pod) || pod.DeletionTimestamp != nil })
			return len(pods) == 3
		})
	}
	serve()
	killed, _ := e.Living()
	require.NotNil(t, killed)
	process.SignalMain(e.Space, leader, unix.SIGKILL)
	e.Await(space.StartTimeout, "the worker runs again", func() bool {
		now, pod := e.Living()
		leader = pod
		return pod != nil && now.Start > killed.Start
	})
	serve()
	app.DeletePod(e.Space, leader)
	e.awaitOther(leader)
	serve()
	e.NeverMoreThan(1)
}

// ledLine matches a line in the log of a program of the election. The program prints "leads" when
// the program begins to lead, and "works" for each step of work.
var ledLine = regexp.MustCompile(`(?m)^(leads|works) with token (\d+)$`)

// terms reads the log of a program, and returns the tokens under which the program led. All work of
// the program must have the token of its latest hold.
func terms(t *testing.T, log string) (tokens []uint64) {
	t.Helper()
	for _, match := range ledLine.FindAllStringSubmatch(log, -1) {
		token, err := strconv.ParseUint(match[2], 10, 64)
		require.NoError(t, err)
		if match[1] == "leads" {
			tokens = append(tokens, token)
			continue
		}
		require.NotEmpty(t, tokens, "no pod works before it leads: %s", log)
		assert.Equal(t, tokens[len(tokens)-1], token, "the work has the token of its hold")
	}
	assert.IsIncreasing(t, append([]uint64{0}, tokens...), log)
	return tokens
}

// awaitLeader waits until another pod than the given one works as the leader, and returns that
// pod.
func (e example) awaitLeader(than *corev1.Pod) (leader *corev1.Pod) {
	e.Space.Helper()
	e.Await(space.StartTimeout, "a pod leads, and works", func() bool {
		leader = e.Holder(api.ElectionLease("main"))
		if leader == nil || than != nil && leader.UID == than.UID {
			return false
		}
		log, err := kubectl.Run(e.Space, "", "logs", leader.Name, "-c", "program")
		return err == nil && strings.Contains(log, "works with token")
	})
	return leader
}

func TestElectionExampleElectsOneLeaderAtATime(t *testing.T) {
	e := apply(t, "election", "election")
	kubectl.Must(e.Space, "", "rollout", "status", "deployment/election", "--timeout=170s")
	e.Await(space.StartTimeout, "three pods are Ready, because the readiness of a pod is its own", func() bool {
		return len(slices.DeleteFunc(e.Pods("election"), func(pod *corev1.Pod) bool { return !status.Ready(pod) })) == 3
	})
	first := e.awaitLeader(nil)
	whole := make(chan string, 1)
	following := kubectl.Command(e.Context(), e.Namespace, "logs", "--follow", first.Name, "-c", "program")
	out, err := following.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, following.Start())
	// The test deletes the pod below. Before that deletion kubectl must have found the pod's
	// container. So the test waits for the first line of the log.
	text := bufio.NewReader(out)
	begun, err := text.ReadString('\n')
	require.NoError(t, err)
	go func() {
		rest, _ := io.ReadAll(text) // if the log is cut off, the check below finds no last line
		_ = following.Wait()
		whole <- begun + string(rest)
	}()

	app.DeletePod(e.Space, first)
	second := e.awaitLeader(first)
	log := <-whole
	assert.True(t, strings.HasSuffix(strings.TrimSpace(log), "works no more"), "the program stops its work, and gives the hold back: %s", log)
	all := terms(t, log)
	assert.NotEmpty(t, all)
	for _, pod := range e.Pods("election") {
		if pod.UID == first.UID || !status.ContainersRun(pod) {
			continue // the new pod may not have begun yet
		}
		its := terms(t, kubectl.Must(e.Space, "", "logs", pod.Name, "-c", "program"))
		if pod.UID == second.UID {
			require.NotEmpty(t, its)
			assert.Greater(t, slices.Max(its), slices.Max(all), "tokens grow from hold to hold")
		}
		for _, token := range its {
			assert.NotContains(t, all, token, "no two holds have one token")
		}
	}
}
