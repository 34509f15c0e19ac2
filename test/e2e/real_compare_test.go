// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/metaparticle-io/metaparticle/api"
)

// logged is a log that was read up to its end, or why it was not.
type logged struct {
	text string
	err  error
}

// life is what a person sees of one run of a container.
type life struct {
	log    string
	code   int32
	reason string
}

// specimen is one pod of two that are done the same things to.
type specimen struct {
	*space
	w     software
	name  string
	log   chan logged // of the last run
	final chan corev1.PodStatus
	lives []life
}

// pairs is how many pairs of pods have to differ before that is called ours. Real
// applications differ by themselves, too: gunicorn's handler of SIGCHLD logs, and
// cannot where a log line is being written.
const pairs = 3

// compare does the same things to the same pod with and without the annotation
// and shows the difference, which must be none: in how they end each time, and in
// what they log in one pair of a few.
func (w software) compare(t *testing.T) {
	for n := range pairs {
		differ := w.pair(t)
		if len(differ) == 0 || t.Failed() {
			return
		}
		t.Logf("the logs of pair %d differ: %q", n+1, differ)
	}
	assert.Fail(t, "the logs differ", "each of %d pairs does", pairs)
}

// pair compares two pods, and returns in what their logs differ.
func (w software) pair(t *testing.T) (differ []string) {
	s := newSpace(t)
	template := w.template(t, corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}})
	// Nothing here is about losses, which a starved machine must not add.
	claim := map[string]string{api.SingletonAnnotation: "true", api.LeaseDurationAnnotation: "1m"}
	plain, gated := s.specimen(w, "plain", nil, template), s.specimen(w, "gated", claim, template)
	done := w.live(plain, gated)
	for i, how := range done {
		before, after := plain.lives[i], gated.lives[i]
		t.Logf("%s: exit code %d (%s), %d lines", how, before.code, before.reason, strings.Count(before.log, "\n"))
		if w.deaf && how == "deleted" {
			assert.EqualValues(t, 128+unix.SIGKILL, before.code, "after its whole grace")
			before.code = 128 + int32(unix.SIGTERM)
		}
		assert.Equal(t, before.code, after.code, how)
		assert.Equal(t, before.reason, after.reason, how)
		for _, line := range difference(w.comparable(before.log), w.comparable(after.log)) {
			differ = append(differ, how+": "+line)
		}
	}
	if t.Failed() || len(differ) > 0 {
		t.Logf("without the annotation: %+v", plain.lives)
		t.Logf("with it: %+v", gated.lives)
	}
	return differ
}

// live leads two pods through the same lives, and returns how each of them ended.
func (w software) live(plain, gated *specimen) (done []string) {
	both := func(do func(*specimen)) {
		do(plain)
		do(gated)
	}
	both((*specimen).start)
	if w.reloaded != "" {
		both(func(p *specimen) { p.mustKubectl("", "exec", p.name, "-c", "app", "--", "sh", "-c", "kill -HUP 1") })
		both((*specimen).awaitReloaded)
	}
	if !w.deaf {
		done = append(done, "kubectl exec kill 1")
		// The shell may die with the container that it ends. Whether it ends is seen next.
		both(func(p *specimen) {
			if out, err := p.kubectl("", "exec", p.name, "-c", "app", "--", "sh", "-c", "kill 1"); err != nil {
				p.Logf("kubectl exec kill 1 in %s: %v: %s", p.name, err, out)
			}
		})
		both((*specimen).awaitEnd)
		both((*specimen).start)
	}
	both(func(p *specimen) { p.signalMain(p.pod(p.name), unix.SIGKILL) })
	both((*specimen).awaitEnd)
	both((*specimen).start)
	both((*specimen).followLog)
	both(func(p *specimen) { p.deletePod(p.pod(p.name)) })
	both((*specimen).awaitDeleted)
	return append(done, "killed", "deleted")
}

// difference is what one log has and the other has not, or has less often; or
// that the same lines come in another order.
func difference(before, after []string) []string {
	lines := map[string]int{}
	for _, line := range before {
		lines[line]--
	}
	for _, line := range after {
		lines[line]++
	}
	differ := []string{}
	for line, more := range lines {
		switch {
		case more < 0:
			differ = append(differ, "only without the annotation: "+line)
		case more > 0:
			differ = append(differ, "only with it: "+line)
		}
	}
	if len(differ) == 0 && !slices.Equal(before, after) {
		differ = append(differ, "another order")
	}
	slices.Sort(differ)
	return differ
}

func (s *space) specimen(w software, name string, annotations map[string]string, edit func(*corev1.PodTemplateSpec)) *specimen {
	s.Helper()
	template := s.template(app{name: name, edit: edit, template: annotations, grace: 10})
	pod := &corev1.Pod{ObjectMeta: template.ObjectMeta, Spec: template.Spec}
	pod.Name = name
	_, err := s.client.CoreV1().Pods(s.name).Create(s.Context(), pod, metav1.CreateOptions{})
	require.NoError(s, err)
	p := &specimen{space: s, w: w, name: name, log: make(chan logged, 1), final: make(chan corev1.PodStatus, 1)}
	go p.follow()
	return p
}

// follow keeps the last status of a pod: it is in the event of its deletion.
func (p *specimen) follow() {
	w, err := p.client.CoreV1().Pods(p.space.name).Watch(p.Context(), metav1.ListOptions{
		FieldSelector: "metadata.name=" + p.name, ResourceVersion: "0",
	})
	if err != nil {
		return // the test has ended, or misses the status
	}
	defer w.Stop()
	for event := range w.ResultChan() {
		if pod, ok := event.Object.(*corev1.Pod); ok && event.Type == watch.Deleted {
			p.final <- pod.Status
			return
		}
	}
}

func containerNamed(status corev1.PodStatus, name string) corev1.ContainerStatus {
	i := slices.IndexFunc(status.ContainerStatuses, func(c corev1.ContainerStatus) bool { return c.Name == name })
	if i < 0 {
		return corev1.ContainerStatus{}
	}
	return status.ContainerStatuses[i]
}

// start waits until the next run of the container serves.
func (p *specimen) start() {
	p.Helper()
	what := fmt.Sprintf("%s of %s serves in run %d", p.name, p.w.name, len(p.lives)+1)
	p.await(startTimeout+serveTimeout, what, func() bool {
		pod := p.pod(p.name)
		if pod == nil {
			return false
		}
		c := containerNamed(pod.Status, "app")
		return c.State.Running != nil && int(c.RestartCount) == len(p.lives) && mainOf(pod) != nil && p.w.serves(p.space, pod)
	})
	p.awaitLogged(1, p.w.started, p.w.boots)
}

// notTheLog is what a kubelet that cannot read a log ends the answer with, whose
// status was good: the runtime was too slow to tell where it is, or there is no
// inotify left (one machine has all the nodes).
var notTheLog = regexp.MustCompile(`(?:^|\n)unable to retrieve container logs for \S+\s*$|fsnotify watcher: too many open files\s*$`)

// readLog reads the log of a run as far as it is.
func (p *specimen) readLog(previous bool) (string, error) {
	log, err := p.client.CoreV1().Pods(p.space.name).
		GetLogs(p.name, &corev1.PodLogOptions{Container: "app", Previous: previous}).DoRaw(p.Context())
	if err == nil && notTheLog.Match(log) {
		err = fmt.Errorf("read the log of %s: %s", p.name, notTheLog.Find(log))
	}
	return string(log), err
}

// followLog follows the log of a run to its end, which nobody can read later: the
// pod is about to be deleted.
func (p *specimen) followLog() {
	p.Helper()
	follow := func() (io.ReadCloser, error) {
		return p.client.CoreV1().Pods(p.space.name).
			GetLogs(p.name, &corev1.PodLogOptions{Container: "app", Follow: true}).Stream(p.Context())
	}
	stream, err := follow()
	require.NoError(p, err)
	go func() {
		again := time.NewTicker(time.Second)
		defer again.Stop()
		for {
			all, err := io.ReadAll(stream)
			_ = stream.Close()
			if err != nil || !notTheLog.Match(all) {
				p.log <- logged{string(all), err}
				return
			}
			<-again.C
			if stream, err = follow(); err != nil {
				p.log <- logged{err: err}
				return
			}
		}
	}()
}

// awaitLogged waits until the present run has logged something so many times.
func (p *specimen) awaitLogged(runs int, what string, each int) {
	p.Helper()
	p.await(serveTimeout, fmt.Sprintf("%s logs %q", p.name, what), func() bool {
		log, err := p.readLog(false)
		return err == nil && (what == "" || strings.Count(log, what) >= runs*each)
	})
}

// awaitReloaded waits until the application has reloaded, and what it starts
// anew has started.
func (p *specimen) awaitReloaded() {
	p.Helper()
	p.awaitLogged(1, p.w.reloaded, 1)
	if p.w.boots > 1 {
		p.awaitLogged(2, p.w.started, p.w.boots)
	}
	p.await(serveTimeout, p.name+" serves after its reload", func() bool { return p.w.serves(p.space, p.pod(p.name)) })
}

// awaitEnd waits until the present run has ended and the next one has begun: from
// then on its log is the previous one, whole. Followed, a log's end may be missed
// on a starved machine.
func (p *specimen) awaitEnd() {
	p.Helper()
	var end *corev1.ContainerStateTerminated
	var log string
	p.await(startTimeout, fmt.Sprintf("%s of %s ends run %d", p.name, p.w.name, len(p.lives)+1), func() bool {
		c := containerNamed(p.pod(p.name).Status, "app")
		if end = c.LastTerminationState.Terminated; end == nil || int(c.RestartCount) != len(p.lives)+1 {
			return false
		}
		var err error
		log, err = p.readLog(true)
		return err == nil
	})
	p.lives = append(p.lives, life{log, end.ExitCode, end.Reason})
}

func (p *specimen) awaitDeleted() {
	p.Helper()
	select {
	case status := <-p.final:
		end := containerNamed(status, "app").State.Terminated
		require.NotNil(p, end, "the last status says how it ended")
		select {
		case log := <-p.log:
			require.NoError(p, log.err)
			p.lives = append(p.lives, life{log.text, end.ExitCode, end.Reason})
		case <-time.After(startTimeout):
			require.FailNow(p, "the log of "+p.name+" does not end")
		}
	case <-time.After(startTimeout):
		require.FailNow(p, p.name+" is not deleted")
	}
}

// What differs between any two runs: addresses in hexadecimal, and numbers,
// which are times, process ids, sizes and durations.
var (
	hexadecimal = regexp.MustCompile(`\b[0-9A-F]+/[0-9A-F]+\b|\b0x[0-9a-f]+\b`)
	// The kernel names no sender of a signal that comes from outside of the
	// container; the gate passes it on from inside.
	sender  = regexp.MustCompile(` from [0-9]+\b`)
	number  = regexp.MustCompile(`[0-9]+(?:[.,:][0-9]+)*`)
	weekday = regexp.MustCompile(`\b(Mon|Tue|Wed|Thu|Fri|Sat|Sun)\b`)
	spaces  = regexp.MustCompile(` +`)
)

// comparable is a log without what differs between any two runs, and without
// what we add to it.
func (w software) comparable(log string) []string {
	lines := []string{}
	for line := range strings.Lines(log) {
		line = strings.TrimRight(line, "\n")
		if strings.HasPrefix(line, "metaparticle: ") || (w.noise != nil && w.noise.MatchString(line)) {
			continue
		}
		line = number.ReplaceAllString(hexadecimal.ReplaceAllString(sender.ReplaceAllString(line, ""), "X"), "N")
		lines = append(lines, spaces.ReplaceAllString(weekday.ReplaceAllString(line, "D"), " "))
	}
	if w.unordered {
		slices.Sort(lines)
	}
	return lines
}
