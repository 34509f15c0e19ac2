// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// hooked gives the application hooks; nil is none.
func hooked(postStart, preStop *corev1.LifecycleHandler) func(*corev1.PodTemplateSpec) {
	return func(t *corev1.PodTemplateSpec) {
		t.Spec.Containers[0].Lifecycle = &corev1.Lifecycle{PostStart: postStart, PreStop: preStop}
	}
}

// noting is a hook that notes something, in its pod's name.
func noting(what string, more ...string) *corev1.LifecycleHandler {
	command := append([]string{"/app", "-record=/record", "-note=" + what}, more...)
	return &corev1.LifecycleHandler{Exec: &corev1.ExecAction{Command: command}}
}

// notes are what was noted in a pod's name, in that order.
func (s *space) notes(pod *corev1.Pod) (all []string) {
	s.Helper()
	text, err := os.ReadFile(filepath.Join(s.dir, "notes"))
	if !os.IsNotExist(err) {
		require.NoError(s, err)
	}
	for line := range strings.Lines(string(text)) {
		name, what, _ := strings.Cut(strings.TrimSpace(line), " ")
		if name == pod.Name {
			all = append(all, what)
		}
	}
	return all
}

// gone waits until a pod that is deleted is gone, and returns how long it took.
func (s *space) gone(pod *corev1.Pod) time.Duration {
	s.Helper()
	began := time.Now()
	s.deletePod(pod)
	return s.went(pod, began)
}

func (s *space) went(pod *corev1.Pod, began time.Time) time.Duration {
	s.Helper()
	s.await(startTimeout, pod.Name+" is gone", func() bool {
		now := s.pod(pod.Name)
		return now == nil || now.UID != pod.UID
	})
	return time.Since(began)
}

// patient is a grace period in seconds far above what any end takes, and atOnce is
// for the end of who does not use it up.
const (
	patient = 120
	atOnce  = patient * time.Second / 2
)

// undeployed is gone for the only pod of a Deployment, which gets no successor
// that would run beside it.
func (s *space) undeployed(pod *corev1.Pod) time.Duration {
	s.Helper()
	began := time.Now()
	background := metav1.DeletePropagationBackground
	err := s.client.AppsV1().Deployments(s.name).Delete(s.Context(), pod.Labels["app"],
		metav1.DeleteOptions{PropagationPolicy: &background})
	require.NoError(s, err)
	return s.went(pod, began)
}

// pair creates an application twice, one pod each: as it is, and annotated.
func (s *space) pair(name string, edit func(*corev1.PodTemplateSpec), args ...string) (plain, gated app) {
	s.Helper()
	gated = lasting(name)
	gated.replicas, gated.edit, gated.args = 1, edit, args
	plain = app{name: name + "-plain", replicas: 1, edit: edit, args: args}
	for _, a := range []app{gated, plain} {
		s.create(a)
	}
	return plain, gated
}

// compat: lifecycle/post-start-exec lifecycle/pre-stop-exec lifecycle/hooks-of-a-standby lifecycle/term-of-a-standby carried
func TestHooksRunWithEachChildAndNotInAStandby(t *testing.T) {
	needLab(t, "it reads the hooks' notes")
	t.Parallel()
	s := newSpace(t)
	a := lasting("hooked")
	a.replicas, a.args, a.grace = 2, []string{"-notes"}, patient
	a.edit = hooked(noting("post"), noting("pre"))
	s.deploy(a)
	noted := func(pod *corev1.Pod, want ...string) {
		s.Helper()
		s.within(soon, func() bool { return len(s.notes(pod)) >= len(want) })
		assert.Equal(s, want, s.notes(pod))
	}
	// What is noted of that many whole lives of the child.
	lives := func(n int, more ...string) []string {
		return append(slices.Repeat([]string{"post", "pre", "stops"}, n), more...)
	}
	first, standby := s.awaitHolder(deploymentSlot(a.name)), s.awaitStandby(a)
	noted(first, "post")
	assert.Empty(t, s.notes(standby))

	second, there := s.yields(a)
	assert.Equal(t, standby.UID, second.UID)
	noted(second, "post")
	noted(first, lives(there)...)
	third, back := s.yields(a)
	assert.Equal(t, first.UID, third.UID)
	noted(first, lives(there, "post")...)
	noted(second, lives(back)...)
	assert.Zero(t, s.restarts(a))

	assert.Less(t, s.gone(second), atOnce, "a standby ends at once")
	noted(second, lives(back)...)
	s.gone(first)
	noted(first, lives(there+1)...)
}

// compat: lifecycle/post-start-http lifecycle/pre-stop-http lifecycle/post-start-sleep lifecycle/pre-stop-sleep carried
func TestHooksDoWhatTheyDoWithoutUs(t *testing.T) {
	needLab(t, "it reads the hooks' notes")
	t.Parallel()
	s := newSpace(t)
	listener := app{name: "listener", replicas: 1}
	s.create(listener)
	s.await(startTimeout, "somebody listens", func() bool {
		pods := s.all(listener.name)
		return len(pods) == 1 && ready(pods[0]) && s.ask(pods[0]) != ""
	})
	host := s.all(listener.name)[0].Status.PodIP
	const sleep = 3
	for name, tt := range map[string]struct {
		postStart, preStop *corev1.LifecycleHandler
		notes              []string
		stops              time.Duration
	}{
		"asks": {
			&corev1.LifecycleHandler{HTTPGet: &corev1.HTTPGetAction{
				Host: host, Port: intstr.FromInt32(8080), Path: "/note?say=greeted",
				HTTPHeaders: []corev1.HTTPHeader{{Name: "X-Pod", Value: "asks"}},
			}},
			&corev1.LifecycleHandler{HTTPGet: &corev1.HTTPGetAction{Port: intstr.FromString("http"), Path: "/note?say=pre"}},
			[]string{"pre", "stops"}, 0,
		},
		"sleeps": {
			&corev1.LifecycleHandler{Sleep: &corev1.SleepAction{Seconds: 1}},
			&corev1.LifecycleHandler{Sleep: &corev1.SleepAction{Seconds: sleep}},
			[]string{"stops"}, sleep * time.Second,
		},
	} {
		plain, gated := s.twins(name, hooked(tt.postStart, tt.preStop), "-notes")
		for _, pod := range []*corev1.Pod{plain, gated} {
			assert.GreaterOrEqual(t, s.undeployed(pod), tt.stops, pod.Name)
			assert.Equal(t, tt.notes, s.notes(pod), pod.Name)
			assert.Empty(t, s.said(pod, "FailedPostStartHook"))
			assert.Empty(t, s.said(pod, "FailedPreStopHook"))
		}
	}
	greeted := s.notes(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "asks"}})
	assert.Equal(t, []string{"greeted", "greeted"}, greeted)
}

// A tcpSocket is a hook that Kubernetes takes, and fails.
//
// compat: lifecycle/post-start-tcp lifecycle/pre-stop-tcp carried
func TestHooksThatFailFailAsWithoutUs(t *testing.T) {
	needLab(t, "it reads the hooks' notes")
	t.Parallel()
	s := newSpace(t)
	tcp := &corev1.LifecycleHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromString("http")}}
	for name, postStart := range map[string]*corev1.LifecycleHandler{
		"fails-exec": noting("post", "-note-code=3"),
		"fails-tcp":  tcp,
	} {
		plain, gated := s.pair(name, hooked(postStart, noting("pre")), "-notes", "-stop-code=9")
		pods := map[string]*corev1.Pod{}
		for _, a := range []app{plain, gated} {
			var pod *corev1.Pod
			s.await(startTimeout, a.name+" is restarted", func() bool {
				if pods := s.all(a.name); len(pods) == 1 && s.restarted(pods[0]) >= 1 {
					pod = pods[0]
				}
				return pod != nil
			})
			s.endsWith(pod, 9, a.name+" was asked to stop")
			s.within(soon, func() bool {
				return slices.Contains(s.notes(pod), "pre") && slices.Contains(s.notes(pod), "stops")
			})
			assert.Subset(t, s.notes(pod), []string{"pre", "stops"}, a.name)
			pods[a.name] = pod
		}
		said := func(a app) map[string]bool {
			failed, killing := s.said(pods[a.name], "FailedPostStartHook"), s.said(pods[a.name], "Killing")
			if len(failed) == 0 || len(killing) == 0 {
				return nil
			}
			return unique(append(failed, killing...))
		}
		s.within(soon, func() bool { return said(plain) != nil && maps.Equal(said(plain), said(gated)) })
		assert.NotEmpty(t, said(plain), name)
		assert.Equal(t, said(plain), said(gated), name)
	}

	plain, gated := s.twins("fails-late", hooked(nil, tcp), "-notes")
	for _, pod := range []*corev1.Pod{plain, gated} {
		s.undeployed(pod)
		assert.Equal(t, []string{"stops"}, s.notes(pod), pod.Name)
		s.await(soon, "it is said", func() bool { return len(s.said(pod, "FailedPreStopHook")) > 0 })
	}
	assert.Equal(t, s.said(plain, "FailedPreStopHook"), s.said(gated, "FailedPreStopHook"))
}

// unique are the texts, each once: how often a container has been restarted by
// now is the back-off's affair.
func unique(texts []string) map[string]bool {
	all := map[string]bool{}
	for _, text := range texts {
		all[text] = true
	}
	return all
}
