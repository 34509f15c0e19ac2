// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package e2e

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
)

// compat: applications/nginx carried
func TestRealNginx(t *testing.T) {
	// Of two workers that end at once it notices one signal or two, and so on.
	noise := regexp.MustCompile("GET /|SIGCHLD|SIGIO|SIGALRM")
	software{name: "nginx", port: 80, serves: contains("/", "served by nginx"),
		reloaded: "signal 1 (SIGHUP) received", unordered: true, noise: noise}.test(t)
}

// compat: applications/python carried
func TestRealGunicorn(t *testing.T) {
	software{name: "gunicorn", port: 8000, serves: contains("/", "served by gunicorn"),
		started: "Booting worker", boots: 3, reloaded: "Hang up: Master", unordered: true,
		noise: regexp.MustCompile("was terminated due to signal")}.test(t) // or it notices the end otherwise
}

// compat: applications/postgresql carried
func TestRealPostgreSQL(t *testing.T) {
	// Who asks while it recovers is told so; how much there is to redo is chance.
	noise := regexp.MustCompile("the database system is (starting up|not yet accepting)|Consistent recovery|redo|invalid record length")
	psql := []string{"psql", "-U", "postgres", "-qtAX"}
	software{name: "postgresql", port: 5432, data: "/var/lib/postgresql/data", group: 1000,
		serves: func(s *space, pod *corev1.Pod) bool {
			_, err := s.kubectl("", append(slices.Concat([]string{"exec", pod.Name, "-c", "app", "--"}, psql), "-c", "SELECT 1")...)
			return err == nil
		},
		journal: &journal{
			client: psql, prepare: "CREATE TABLE IF NOT EXISTS journal (n int PRIMARY KEY);",
			keep: func(n int) string { return fmt.Sprintf("INSERT INTO journal VALUES (%d) RETURNING n;", n) },
			yes:  func(answer string) bool { _, err := strconv.Atoi(answer); return err == nil },
			read: "SELECT n FROM journal;",
		},
		reloaded: "received SIGHUP", unordered: true, noise: noise}.test(t)
}

// compat: applications/redis carried
func TestRealRedis(t *testing.T) {
	ping := func(s *space, pod *corev1.Pod) bool {
		out, err := s.kubectl("", "exec", pod.Name, "-c", "app", "--", "redis-cli", "ping")
		return err == nil && strings.Contains(out, "PONG")
	}
	probe := &corev1.Probe{ProbeHandler: corev1.ProbeHandler{Exec: &corev1.ExecAction{
		Command: []string{"sh", "-c", `[ "$(redis-cli ping)" = PONG ]`},
	}}, PeriodSeconds: 2, TimeoutSeconds: 5, FailureThreshold: 5}
	software{name: "redis", port: 6379, data: "/var/lib/redis", group: 1000, serves: ping,
		edit: func(p *corev1.PodTemplateSpec) {
			p.Spec.Containers[0].ReadinessProbe, p.Spec.Containers[0].LivenessProbe = probe, probe
		},
		journal: &journal{
			client: []string{"redis-cli"},
			keep:   func(n int) string { return fmt.Sprintf("RPUSH journal %d", n) },
			yes:    func(answer string) bool { _, err := strconv.Atoi(answer); return err == nil },
			read:   "LRANGE journal 0 -1",
		}}.test(t)
}

// compat: applications/jvm carried
func TestRealTomcat(t *testing.T) {
	get := corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/", Port: intstr.FromString("app")}}
	// A standby would have failed the startup probe long before it is its turn.
	startup := &corev1.Probe{ProbeHandler: get, PeriodSeconds: 1, TimeoutSeconds: 5, FailureThreshold: 60}
	liveness := &corev1.Probe{ProbeHandler: get, PeriodSeconds: 2, TimeoutSeconds: 5, FailureThreshold: 5}
	software{name: "tomcat", port: 8080, serves: contains("/", "It works !"), unordered: true,
		started: "Server startup in", boots: 1,
		edit: func(p *corev1.PodTemplateSpec) {
			p.Spec.Containers[0].StartupProbe, p.Spec.Containers[0].LivenessProbe = startup, liveness
		},
		// It tells if a slow machine made it wait, for randomness or for a thread.
		noise: regexp.MustCompile("SecureRandom|did not stop cleanly")}.test(t)
}

// compat: applications/shell carried
func TestRealShellScriptWithTraps(t *testing.T) {
	// It serves when it has set its traps.
	locked := func(s *space, pod *corev1.Pod) bool {
		_, err := s.kubectl("", "exec", pod.Name, "-c", "app", "--", "test", "-e", "/tmp/worker.lock")
		return err == nil
	}
	software{name: "script", data: "/data", serves: locked, started: "worker: started", boots: 1,
		reloaded: "reloads its settings", check: func(tr *trial) {
			before := tr.dataLines("ticks")
			tr.await(serveTimeout, "it goes on ticking", func() bool { return len(tr.dataLines("ticks")) > len(before) })
		}}.test(t)
}

// compat: applications/cron carried
func TestRealCron(t *testing.T) {
	serves := func(s *space, pod *corev1.Pod) bool {
		p := mainOf(pod)
		return p != nil && p.role == "cron"
	}
	noise := regexp.MustCompile("job done") // once a minute
	software{name: "cron", data: "/data", serves: serves, deaf: true, noise: noise, check: func(tr *trial) {
		var holder *corev1.Pod
		tr.await(2*time.Minute, "the holder does the job of a minute", func() bool {
			_, holder = tr.living()
			return holder != nil && slices.ContainsFunc(tr.dataLines("jobs"), func(l string) bool { return strings.HasSuffix(l, " "+holder.Name) })
		})
		tr.await(serveTimeout, "the job's way to /proc/1/fd/1", func() bool {
			out, err := tr.kubectl("", "logs", holder.Name, "-c", "app")
			return err == nil && strings.Contains(out, "job done")
		})
		minutes := map[int64]string{}
		for _, line := range tr.dataLines("jobs") {
			second, _, _ := strings.Cut(line, " ")
			at, err := strconv.ParseInt(second, 10, 64)
			require.NoError(tr, err)
			assert.Empty(tr, minutes[at/60], "the job of one minute done twice, again as %q", line)
			minutes[at/60] = line
		}
	}}.test(t)
}

// dataLines are the lines of a file on the volume.
func (t *trial) dataLines(name string) []string {
	data, err := os.ReadFile(filepath.Join(t.dir, "data", name))
	if !os.IsNotExist(err) {
		require.NoError(t, err)
	}
	return strings.Split(strings.TrimSpace(string(data)), "\n")
}
