// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package applications

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/metaparticle-io/metaparticle/test/e2e/harness/kubectl"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/process"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/software"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/space"
)

// docs/reference/compatibility.md: applications/nginx carried
func TestGateKeepsNginxExclusiveAndUnchanged(t *testing.T) {
	// If two workers of nginx end at once, nginx gets and logs one signal or two. So the
	// number of its log lines about signals varies.
	noise := regexp.MustCompile("GET /|SIGCHLD|SIGIO|SIGALRM")
	software.Software{Name: "nginx", Port: 80, Serves: software.Contains("/", "served by nginx"),
		Reloaded: "signal 1 (SIGHUP) received", Unordered: true, Noise: noise}.Test(t)
}

// docs/reference/compatibility.md: applications/python carried
func TestGateKeepsGunicornExclusiveAndUnchanged(t *testing.T) {
	software.Software{Name: "gunicorn", Port: 8000, Serves: software.Contains("/", "served by gunicorn"),
		Started: "Booting worker", Boots: 3, Reloaded: "Hang up: Master", Unordered: true,
		Noise: regexp.MustCompile("was terminated due to signal")}.Test(t) // gunicorn logs this line only sometimes
}

// docs/reference/compatibility.md: applications/postgresql carried
func TestGateKeepsPostgreSQLExclusiveAndUnchanged(t *testing.T) {
	// During its recovery PostgreSQL logs each client that connects. The other log lines about
	// the recovery depend on how long the recovery takes. So the test compares none of these
	// lines.
	noise := regexp.MustCompile("the database system is (starting up|not yet accepting)|Consistent recovery|redo|invalid record length")
	psql := []string{"psql", "-U", "postgres", "-qtAX"}
	software.Software{Name: "postgresql", Port: 5432, Data: "/var/lib/postgresql/data", Group: 1000,
		Serves: func(s *space.Space, pod *corev1.Pod) bool {
			_, err := kubectl.Run(s, "", append(slices.Concat([]string{"exec", pod.Name, "-c", "app", "--"}, psql), "-c", "SELECT 1")...)
			return err == nil
		},
		Journal: &software.Journal{
			Client: psql, Prepare: "CREATE TABLE IF NOT EXISTS journal (n int PRIMARY KEY);",
			Keep: func(n int) string { return fmt.Sprintf("INSERT INTO journal VALUES (%d) RETURNING n;", n) },
			Yes:  func(answer string) bool { _, err := strconv.Atoi(answer); return err == nil },
			Read: "SELECT n FROM journal;",
		},
		Reloaded: "received SIGHUP", Unordered: true, Noise: noise}.Test(t)
}

// docs/reference/compatibility.md: applications/redis carried
func TestGateKeepsRedisExclusiveAndUnchanged(t *testing.T) {
	ping := func(s *space.Space, pod *corev1.Pod) bool {
		out, err := kubectl.Run(s, "", "exec", pod.Name, "-c", "app", "--", "redis-cli", "ping")
		return err == nil && strings.Contains(out, "PONG")
	}
	probe := &corev1.Probe{ProbeHandler: corev1.ProbeHandler{Exec: &corev1.ExecAction{
		Command: []string{"sh", "-c", `[ "$(redis-cli ping)" = PONG ]`},
	}}, PeriodSeconds: 2, TimeoutSeconds: 5, FailureThreshold: 5}
	software.Software{Name: "redis", Port: 6379, Data: "/var/lib/redis", Group: 1000, Serves: ping,
		Edit: func(p *corev1.PodTemplateSpec) {
			p.Spec.Containers[0].ReadinessProbe, p.Spec.Containers[0].LivenessProbe = probe, probe
		},
		Journal: &software.Journal{
			Client: []string{"redis-cli"},
			Keep:   func(n int) string { return fmt.Sprintf("RPUSH journal %d", n) },
			Yes:    func(answer string) bool { _, err := strconv.Atoi(answer); return err == nil },
			Read:   "LRANGE journal 0 -1",
		}}.Test(t)
}

// docs/reference/compatibility.md: applications/jvm carried
func TestGateKeepsTomcatExclusiveAndUnchanged(t *testing.T) {
	get := corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/", Port: intstr.FromString("app")}}
	// A standby may wait for longer than this probe allows. So the test fails if the agent counts
	// the probe's failures from the start of the container.
	startup := &corev1.Probe{ProbeHandler: get, PeriodSeconds: 1, TimeoutSeconds: 5, FailureThreshold: 60}
	liveness := &corev1.Probe{ProbeHandler: get, PeriodSeconds: 2, TimeoutSeconds: 5, FailureThreshold: 5}
	software.Software{Name: "tomcat", Port: 8080, Serves: software.Contains("/", "It works !"), Unordered: true,
		Started: "Server startup in", Boots: 1,
		Edit: func(p *corev1.PodTemplateSpec) {
			p.Spec.Containers[0].StartupProbe, p.Spec.Containers[0].LivenessProbe = startup, liveness
		},
		// On a slow machine Tomcat may log that it waits for randomness or for a thread.
		Noise: regexp.MustCompile("SecureRandom|did not stop cleanly")}.Test(t)
}

// docs/reference/compatibility.md: applications/shell carried
func TestGateKeepsShellScriptExclusiveAndUnchanged(t *testing.T) {
	// The script writes this file once its traps are set. From then on the script serves.
	locked := func(s *space.Space, pod *corev1.Pod) bool {
		_, err := kubectl.Run(s, "", "exec", pod.Name, "-c", "app", "--", "test", "-e", "/tmp/worker.lock")
		return err == nil
	}
	software.Software{Name: "script", Data: "/data", Serves: locked, Started: "worker: started", Boots: 1,
		Reloaded: "reloads its settings", Check: func(tr *software.Trial) {
			before := dataLines(tr, "ticks")
			tr.Await(software.ServeTimeout, "it goes on ticking", func() bool { return len(dataLines(tr, "ticks")) > len(before) })
		}}.Test(t)
}

// docs/reference/compatibility.md: applications/cron carried
func TestGateKeepsCronExclusiveAndUnchanged(t *testing.T) {
	serves := func(s *space.Space, pod *corev1.Pod) bool {
		p := process.Main(pod)
		return p != nil && p.Role == "cron"
	}
	noise := regexp.MustCompile("job done") // the job logs this line once a minute
	software.Software{Name: "cron", Data: "/data", Serves: serves, Deaf: true, Noise: noise, Check: func(tr *software.Trial) {
		var holder *corev1.Pod
		tr.Await(2*time.Minute, "the holder does the job of a minute", func() bool {
			_, holder = tr.Living()
			return holder != nil && slices.ContainsFunc(dataLines(tr, "jobs"), func(l string) bool { return strings.HasSuffix(l, " "+holder.Name) })
		})
		tr.Await(software.ServeTimeout, "the job's way to /proc/1/fd/1", func() bool {
			out, err := kubectl.Run(tr.Space, "", "logs", holder.Name, "-c", "app")
			return err == nil && strings.Contains(out, "job done")
		})
		minutes := map[int64]string{}
		for _, line := range dataLines(tr, "jobs") {
			second, _, _ := strings.Cut(line, " ")
			at, err := strconv.ParseInt(second, 10, 64)
			require.NoError(tr, err)
			assert.Empty(tr, minutes[at/60], "the job of one minute done twice, again as %q", line)
			minutes[at/60] = line
		}
	}}.Test(t)
}

// dataLines returns the lines of a file that the application writes on its volume.
func dataLines(t *software.Trial, name string) []string {
	data, err := os.ReadFile(filepath.Join(t.Dir, "data", name))
	if !os.IsNotExist(err) {
		require.NoError(t, err)
	}
	return strings.Split(strings.TrimSpace(string(data)), "\n")
}
