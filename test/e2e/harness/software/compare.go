// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package software

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
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/app"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/kubectl"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/process"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/space"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/status"
)

// logged is a whole log, or the error of reading it.
type logged struct {
	text string
	err  error
}

// life has what a user sees of a container between a start and the next end.
type life struct {
	Log    string
	Code   int32
	Reason string
}

// Specimen is one of two pods, gated and ungated, that the test treats in the same way.
type Specimen struct {
	*space.Space
	w     Software
	Name  string
	log   chan logged // receives the log that FollowLog has read to the end
	Final chan corev1.PodStatus
	Lives []life
}

// pairs is the greatest number of pairs of pods that a test compares until the logs of one pair are
// equal. Even two ungated runs of a real application may differ. For example, gunicorn may omit a
// line of its log if SIGCHLD comes while gunicorn writes another line.
const pairs = 3

// compare treats the two pods of a pair, gated and ungated, in the same way. In each pair, both
// containers must end with the same exit codes and reasons. If the field Deaf is true, the
// deletion of the pods ends the ungated application by SIGKILL, and the gated one by SIGTERM. So
// only these exit codes differ. In at least one pair the logs must be equal, too.
func (w Software) compare(t *testing.T) {
	for n := range pairs {
		differ := w.pair(t)
		if len(differ) == 0 || t.Failed() {
			return
		}
		t.Logf("the logs of pair %d differ: %q", n+1, differ)
	}
	assert.Fail(t, "the logs differ", "each of %d pairs does", pairs)
}

// pair compares two pods, and returns the differences of their logs.
func (w Software) pair(t *testing.T) (differ []string) {
	s := space.New(t)
	template := w.Template(t, corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}})
	// With a long lease a pod keeps its slot on a starved machine.
	claim := map[string]string{api.SingletonAnnotation: "true", api.LeaseDurationAnnotation: "1m"}
	plain, gated := NewSpecimen(s, w, "plain", nil, template), NewSpecimen(s, w, "gated", claim, template)
	done := w.live(plain, gated)
	for i, how := range done {
		before, after := plain.Lives[i], gated.Lives[i]
		t.Logf("%s: exit code %d (%s), %d lines", how, before.Code, before.Reason, strings.Count(before.Log, "\n"))
		if w.Deaf && how == "deleted" {
			assert.EqualValues(t, 128+unix.SIGKILL, before.Code, "after its whole grace")
			before.Code = 128 + int32(unix.SIGTERM)
		}
		assert.Equal(t, before.Code, after.Code, how)
		assert.Equal(t, before.Reason, after.Reason, how)
		for _, line := range difference(w.comparable(before.Log), w.comparable(after.Log)) {
			differ = append(differ, how+": "+line)
		}
	}
	if t.Failed() || len(differ) > 0 {
		t.Logf("without the annotation: %+v", plain.Lives)
		t.Logf("with it: %+v", gated.Lives)
	}
	return differ
}

// live does the same to both pods: live reloads, stops and kills each application, and deletes each
// pod. If Reloaded is empty, live reloads nothing. If Deaf is true, live does not stop the
// applications before it kills them. The result has the cause of each end.
func (w Software) live(plain, gated *Specimen) (done []string) {
	both := func(do func(*Specimen)) {
		do(plain)
		do(gated)
	}
	both((*Specimen).Start)
	if w.Reloaded != "" {
		both(func(p *Specimen) {
			kubectl.Must(p.Space, "", "exec", p.Name, "-c", "app", "--", "sh", "-c", "kill -HUP 1")
		})
		both((*Specimen).awaitReloaded)
	}
	if !w.Deaf {
		done = append(done, "kubectl exec kill 1")
		both(func(p *Specimen) { killByExec(p.Space, p.Name) })
		both((*Specimen).awaitEnd)
		both((*Specimen).Start)
	}
	both(func(p *Specimen) { process.SignalMain(p.Space, p.Pod(p.Name), unix.SIGKILL) })
	both((*Specimen).awaitEnd)
	both((*Specimen).Start)
	both((*Specimen).FollowLog)
	both(func(p *Specimen) { app.DeletePod(p.Space, p.Pod(p.Name)) })
	both((*Specimen).AwaitDeleted)
	return append(done, "killed", "deleted")
}

// killByExec sends SIGTERM to the first process of the application's container by "kubectl exec". The
// shell may die with the container, so an error of kubectl does not count. The caller waits for the
// end of the application.
func killByExec(s *space.Space, pod string) {
	s.Helper()
	if out, err := kubectl.Run(s, "", "exec", pod, "-c", "app", "--", "sh", "-c", "kill 1"); err != nil {
		s.Logf("kubectl exec kill 1 in %s: %v: %s", pod, err, out)
	}
}

// difference returns the lines that one log has more often than the other, or a remark
// that only the sequence of the lines differs.
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

// NewSpecimen creates a pod of a software, and follows its status.
func NewSpecimen(s *space.Space, w Software, name string, annotations map[string]string, edit func(*corev1.PodTemplateSpec)) *Specimen {
	s.Helper()
	template := app.Template(s, app.App{Name: name, Edit: edit, Template: annotations, Grace: 10})
	pod := &corev1.Pod{ObjectMeta: template.ObjectMeta, Spec: template.Spec}
	pod.Name = name
	_, err := s.Client.CoreV1().Pods(s.Namespace).Create(s.Context(), pod, metav1.CreateOptions{})
	require.NoError(s, err)
	p := &Specimen{Space: s, w: w, Name: name, log: make(chan logged, 1), Final: make(chan corev1.PodStatus, 1)}
	go p.follow()
	return p
}

// follow waits for the deletion of the pod, and sends the pod's last status to Final. The
// watch event of the deletion carries that status.
func (p *Specimen) follow() {
	w, err := p.Client.CoreV1().Pods(p.Space.Namespace).Watch(p.Context(), metav1.ListOptions{
		FieldSelector: "metadata.name=" + p.Name, ResourceVersion: "0",
	})
	if err != nil {
		return // the test has ended, or the test fails later, because Final gets no status
	}
	defer w.Stop()
	for event := range w.ResultChan() {
		if pod, ok := event.Object.(*corev1.Pod); ok && event.Type == watch.Deleted {
			p.Final <- pod.Status
			return
		}
	}
}

// Start waits until the present run of the container serves, and each process of the application
// has logged its start.
func (p *Specimen) Start() {
	p.Helper()
	what := fmt.Sprintf("%s of %s serves in run %d", p.Name, p.w.Name, len(p.Lives)+1)
	p.Await(space.StartTimeout+ServeTimeout, what, func() bool {
		pod := p.Pod(p.Name)
		if pod == nil {
			return false
		}
		c := status.Container(pod.Status, "app")
		return c.State.Running != nil && int(c.RestartCount) == len(p.Lives) && process.Main(pod) != nil && p.w.Serves(p.Space, pod)
	})
	p.awaitLogged(1, p.w.Started, p.w.Boots)
}

// notTheLog matches the end of an answer that has a good HTTP status, but no log. Such an
// answer comes if the container runtime does not answer the kubelet. An answer without a
// log also comes if the machine has no inotify instance left for the node.
var notTheLog = regexp.MustCompile(`(?:^|\n)unable to retrieve container logs for \S+\s*$|fsnotify watcher: too many open files\s*$`)

// readLog reads the log of the present run, or of the previous one. An answer that is no log is an
// error.
func (p *Specimen) readLog(previous bool) (string, error) {
	log, err := p.Client.CoreV1().Pods(p.Space.Namespace).
		GetLogs(p.Name, &corev1.PodLogOptions{Container: "app", Previous: previous}).DoRaw(p.Context())
	if err == nil && notTheLog.Match(log) {
		err = fmt.Errorf("read the log of %s: %s", p.Name, notTheLog.Find(log))
	}
	return string(log), err
}

// FollowLog begins to follow the log of the present run, and does not wait for the end of the log.
// The caller next deletes the pod, and with the pod the kubelet deletes the log.
func (p *Specimen) FollowLog() {
	p.Helper()
	follow := func() (io.ReadCloser, error) {
		return p.Client.CoreV1().Pods(p.Space.Namespace).
			GetLogs(p.Name, &corev1.PodLogOptions{Container: "app", Follow: true}).Stream(p.Context())
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

// awaitLogged waits until the log contains the text in the argument "what" at least runs*each
// times. The argument "runs" is the number of starts or reloads so far. The argument "each" is the
// number of lines for each start or reload. If the text is empty, awaitLogged only waits until the
// log can be read.
func (p *Specimen) awaitLogged(runs int, what string, each int) {
	p.Helper()
	p.Await(ServeTimeout, fmt.Sprintf("%s logs %q", p.Name, what), func() bool {
		log, err := p.readLog(false)
		return err == nil && (what == "" || strings.Count(log, what) >= runs*each)
	})
}

// awaitReloaded waits until the application has reloaded and serves. If Boots is greater than 1,
// the application must also have started its workers again.
func (p *Specimen) awaitReloaded() {
	p.Helper()
	p.awaitLogged(1, p.w.Reloaded, 1)
	if p.w.Boots > 1 {
		p.awaitLogged(2, p.w.Started, p.w.Boots)
	}
	p.Await(ServeTimeout, p.Name+" serves after its reload", func() bool { return p.w.Serves(p.Space, p.Pod(p.Name)) })
}

// awaitEnd waits until the present run has ended and the next one has begun. Then the kubelet
// returns the whole log of the ended run as the previous log. The function does not follow the log,
// because on a starved machine a stream of the log may lack its end.
func (p *Specimen) awaitEnd() {
	p.Helper()
	var end *corev1.ContainerStateTerminated
	var log string
	p.Await(space.StartTimeout, fmt.Sprintf("%s of %s ends run %d", p.Name, p.w.Name, len(p.Lives)+1), func() bool {
		c := status.Container(p.Pod(p.Name).Status, "app")
		if end = c.LastTerminationState.Terminated; end == nil || int(c.RestartCount) != len(p.Lives)+1 {
			return false
		}
		var err error
		log, err = p.readLog(true)
		return err == nil
	})
	p.Lives = append(p.Lives, life{log, end.ExitCode, end.Reason})
}

// AwaitDeleted waits until the pod is deleted, and appends its last run to Lives.
func (p *Specimen) AwaitDeleted() {
	p.Helper()
	select {
	case last := <-p.Final:
		end := status.Container(last, "app").State.Terminated
		require.NotNil(p, end, "the last status says how it ended")
		select {
		case log := <-p.log:
			require.NoError(p, log.err)
			p.Lives = append(p.Lives, life{log.text, end.ExitCode, end.Reason})
		case <-time.After(space.StartTimeout):
			require.FailNow(p, "the log of "+p.Name+" does not end")
		}
	case <-time.After(space.StartTimeout):
		require.FailNow(p, p.Name+" is not deleted")
	}
}

// The patterns match text that differs between any two runs: hexadecimal addresses, numbers,
// weekdays and sequences of spaces. The numbers are times, process ids, sizes and durations.
var (
	hexadecimal = regexp.MustCompile(`\b[0-9A-F]+/[0-9A-F]+\b|\b0x[0-9a-f]+\b`)
	// Without the gate the log names no sender of a signal, because the sender is outside
	// of the container. With the gate the sender is the shim, so the pattern removes the
	// shim's PID.
	sender  = regexp.MustCompile(` from [0-9]+\b`)
	number  = regexp.MustCompile(`[0-9]+(?:[.,:][0-9]+)*`)
	weekday = regexp.MustCompile(`\b(Mon|Tue|Wed|Thu|Fri|Sat|Sun)\b`)
	spaces  = regexp.MustCompile(` +`)
)

// comparable returns the lines of a log, without the shim's own lines and the lines that match
// Noise. Text that differs between any two runs, such as a time, is replaced. If Unordered is true,
// the lines are sorted.
func (w Software) comparable(log string) []string {
	lines := []string{}
	for line := range strings.Lines(log) {
		line = strings.TrimRight(line, "\n")
		if strings.HasPrefix(line, "metaparticle: ") || (w.Noise != nil && w.Noise.MatchString(line)) {
			continue
		}
		line = number.ReplaceAllString(hexadecimal.ReplaceAllString(sender.ReplaceAllString(line, ""), "X"), "N")
		lines = append(lines, spaces.ReplaceAllString(weekday.ReplaceAllString(line, "D"), " "))
	}
	if w.Unordered {
		slices.Sort(lines)
	}
	return lines
}
