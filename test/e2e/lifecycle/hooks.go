// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package lifecycle

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

	"github.com/metaparticle-io/metaparticle/test/e2e/harness/app"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/cluster"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/lease"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/space"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/status"
)

// hooked returns an edit that gives the application hooks. A nil hook means no hook.
func hooked(postStart, preStop *corev1.LifecycleHandler) func(*corev1.PodTemplateSpec) {
	return func(t *corev1.PodTemplateSpec) {
		t.Spec.Containers[0].Lifecycle = &corev1.Lifecycle{PostStart: postStart, PreStop: preStop}
	}
}

// noting returns a hook that writes a note: the name of the hook's pod, and the text in the
// argument "what".
func noting(what string, more ...string) *corev1.LifecycleHandler {
	command := append([]string{"/app", "-record=/record", "-note=" + what}, more...)
	return &corev1.LifecycleHandler{Exec: &corev1.ExecAction{Command: command}}
}

// notes returns the notes of one pod, the oldest first.
func notes(s *space.Space, pod *corev1.Pod) (all []string) {
	s.Helper()
	text, err := os.ReadFile(filepath.Join(s.Dir, "notes"))
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

// gone deletes a pod, and returns the time until the pod was gone.
func gone(s *space.Space, pod *corev1.Pod) time.Duration {
	s.Helper()
	began := time.Now()
	app.DeletePod(s, pod)
	return went(s, pod, began)
}

// went waits until a deleted pod is gone, and returns the time since the deletion.
func went(s *space.Space, pod *corev1.Pod, began time.Time) time.Duration {
	s.Helper()
	s.Await(space.StartTimeout, pod.Name+" is gone", func() bool {
		now := s.Pod(pod.Name)
		return now == nil || now.UID != pod.UID
	})
	return time.Since(began)
}

const (
	// patient is a grace period in seconds. A container that obeys its stop signal ends much
	// sooner.
	patient = 120
	// atOnce bounds the time that a deleted pod needs to end. A pod that uses its whole grace
	// needs longer.
	atOnce = patient * time.Second / 2
)

// undeployed deletes the Deployment of a pod, and returns the time until the pod was
// gone. Without the Deployment no new pod runs beside the deleted one.
func undeployed(s *space.Space, pod *corev1.Pod) time.Duration {
	s.Helper()
	began := time.Now()
	background := metav1.DeletePropagationBackground
	err := s.Client.AppsV1().Deployments(s.Namespace).Delete(s.Context(), pod.Labels["app"],
		metav1.DeleteOptions{PropagationPolicy: &background})
	require.NoError(s, err)
	return went(s, pod, began)
}

// pair creates an application twice, with one pod each: plain and gated.
func pair(s *space.Space, name string, edit func(*corev1.PodTemplateSpec), args ...string) (plain, gated app.App) {
	s.Helper()
	gated = app.Lasting(name)
	gated.Replicas, gated.Edit, gated.Args = 1, edit, args
	plain = app.App{Name: name + "-plain", Replicas: 1, Edit: edit, Args: args}
	for _, a := range []app.App{gated, plain} {
		app.Create(s, a)
	}
	return plain, gated
}

// docs/reference/compatibility.md: lifecycle/post-start-exec lifecycle/pre-stop-exec lifecycle/hooks-of-a-standby lifecycle/term-of-a-standby carried
func TestHooksRunInHoldersAndNeverInStandbys(t *testing.T) {
	cluster.NeedLab(t, "it reads the hooks' notes")
	t.Parallel()
	s := space.New(t)
	a := app.Lasting("hooked")
	a.Replicas, a.Args, a.Grace = 2, []string{"-notes"}, patient
	a.Edit = hooked(noting("post"), noting("pre"))
	app.Deploy(s, a)
	noted := func(pod *corev1.Pod, want ...string) {
		s.Helper()
		s.Within(space.Soon, func() bool { return len(notes(s, pod)) >= len(want) })
		assert.Equal(s, want, notes(s, pod))
	}
	// lives returns the notes of n whole lives of the child, followed by the notes in the argument
	// "more".
	lives := func(n int, more ...string) []string {
		return append(slices.Repeat([]string{"post", "pre", "stops"}, n), more...)
	}
	first, standby := s.AwaitHolder(lease.OfDeployment(a.Name)), app.AwaitStandby(s, a)
	noted(first, "post")
	assert.Empty(t, notes(s, standby))

	second, there := app.Yields(s, a)
	assert.Equal(t, standby.UID, second.UID)
	noted(second, "post")
	noted(first, lives(there)...)
	third, back := app.Yields(s, a)
	assert.Equal(t, first.UID, third.UID)
	noted(first, lives(there, "post")...)
	noted(second, lives(back)...)
	assert.Zero(t, app.Restarts(s, a))

	assert.Less(t, gone(s, second), atOnce, "a standby ends at once")
	noted(second, lives(back)...)
	gone(s, first)
	noted(first, lives(there+1)...)
}

// docs/reference/compatibility.md: lifecycle/post-start-http lifecycle/pre-stop-http lifecycle/post-start-sleep lifecycle/pre-stop-sleep carried
func TestGatedHooksRunLikeUngatedHooks(t *testing.T) {
	cluster.NeedLab(t, "it reads the hooks' notes")
	t.Parallel()
	s := space.New(t)
	listener := app.App{Name: "listener", Replicas: 1}
	app.Create(s, listener)
	s.Await(space.StartTimeout, "somebody listens", func() bool {
		pods := s.Pods(listener.Name)
		return len(pods) == 1 && status.Ready(pods[0]) && app.Ask(s, pods[0]) != ""
	})
	host := s.Pods(listener.Name)[0].Status.PodIP
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
		plain, gated := twins(s, name, hooked(tt.postStart, tt.preStop), "-notes")
		for _, pod := range []*corev1.Pod{plain, gated} {
			assert.GreaterOrEqual(t, undeployed(s, pod), tt.stops, pod.Name)
			assert.Equal(t, tt.notes, notes(s, pod), pod.Name)
			assert.Empty(t, s.EventMessages(pod, "FailedPostStartHook"))
			assert.Empty(t, s.EventMessages(pod, "FailedPreStopHook"))
		}
	}
	greeted := notes(s, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "asks"}})
	assert.Equal(t, []string{"greeted", "greeted"}, greeted)
}

// Kubernetes accepts hooks with tcpSocket, but each call of such a hook fails.
//
// docs/reference/compatibility.md: lifecycle/post-start-tcp lifecycle/pre-stop-tcp carried
func TestGatedHooksFailLikeUngatedHooks(t *testing.T) {
	cluster.NeedLab(t, "it reads the hooks' notes")
	t.Parallel()
	s := space.New(t)
	tcp := &corev1.LifecycleHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromString("http")}}
	for name, postStart := range map[string]*corev1.LifecycleHandler{
		"fails-exec": noting("post", "-note-code=3"),
		"fails-tcp":  tcp,
	} {
		plain, gated := pair(s, name, hooked(postStart, noting("pre")), "-notes", "-stop-code=9")
		pods := map[string]*corev1.Pod{}
		for _, a := range []app.App{plain, gated} {
			var pod *corev1.Pod
			s.Await(space.StartTimeout, a.Name+" is restarted", func() bool {
				if pods := s.Pods(a.Name); len(pods) == 1 && status.Restarted(s, pods[0]) >= 1 {
					pod = pods[0]
				}
				return pod != nil
			})
			endsWith(s, pod, 9, a.Name+" was asked to stop")
			s.Within(space.Soon, func() bool {
				return slices.Contains(notes(s, pod), "pre") && slices.Contains(notes(s, pod), "stops")
			})
			assert.Subset(t, notes(s, pod), []string{"pre", "stops"}, a.Name)
			pods[a.Name] = pod
		}
		said := func(a app.App) map[string]bool {
			failed, killing := s.EventMessages(pods[a.Name], "FailedPostStartHook"), s.EventMessages(pods[a.Name], "Killing")
			if len(failed) == 0 || len(killing) == 0 {
				return nil
			}
			return unique(append(failed, killing...))
		}
		s.Within(space.Soon, func() bool { return said(plain) != nil && maps.Equal(said(plain), said(gated)) })
		assert.NotEmpty(t, said(plain), name)
		assert.Equal(t, said(plain), said(gated), name)
	}

	plain, gated := twins(s, "fails-late", hooked(nil, tcp), "-notes")
	for _, pod := range []*corev1.Pod{plain, gated} {
		undeployed(s, pod)
		assert.Equal(t, []string{"stops"}, notes(s, pod), pod.Name)
		s.Await(space.Soon, "it is said", func() bool { return len(s.EventMessages(pod, "FailedPreStopHook")) > 0 })
	}
	assert.Equal(t, s.EventMessages(plain, "FailedPreStopHook"), s.EventMessages(gated, "FailedPreStopHook"))
}

// unique returns the set of texts. Texts repeat with each restart, and the number of
// restarts depends on the back-off.
func unique(texts []string) map[string]bool {
	all := map[string]bool{}
	for _, text := range texts {
		all[text] = true
	}
	return all
}
