// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/diagnosis"
)

// explainedAs returns the answer of the command "explain" in the format, and its exit code.
func explainedAs(t *testing.T, output, target string, there ...client.Object) (string, int) {
	t.Helper()
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop", Labels: map[string]string{api.InjectionLabel: api.InjectionEnabled}}}
	installed := &admissionregistrationv1.MutatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{Name: webhookName}}
	reader := fake.NewClientBuilder().WithObjects(namespace, installed).WithObjects(there...).Build()
	kind, name, _ := strings.Cut(target, "/")
	var out bytes.Buffer
	code, err := explain(t.Context(), explainerOf(reader), &out, output, kind, name)
	require.NoError(t, err)
	return out.String(), code
}

// troubled returns a standby whose agent says that it is Ready, but whose containers do not run.
func troubled(change func(*corev1.PodStatus)) *corev1.Pod {
	p := gatedPod("a", corev1.ConditionTrue, "StandingBy", "a holder of "+slot+" serves")
	p.Status.Conditions[1] = corev1.PodCondition{
		Type: corev1.PodReady, Status: corev1.ConditionFalse, Reason: "ContainersNotReady", Message: "containers with unready status: [app]",
	}
	change(&p.Status)
	return p
}

func TestExplainCommandShowsTroubleOfPodBeforeItsAgentsWords(t *testing.T) {
	waiting := func(reason, message string) []corev1.ContainerStatus {
		return []corev1.ContainerStatus{{Name: "app", State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: message}}}}
	}
	for name, c := range map[string]struct {
		change func(*corev1.PodStatus)
		line   string
		calm   bool
	}{
		"crash": {func(s *corev1.PodStatus) {
			s.ContainerStatuses = waiting("CrashLoopBackOff", "back-off 10s restarting failed container=app")
			s.ContainerStatuses[0].RestartCount = 3
			s.ContainerStatuses[0].LastTerminationState.Terminated = &corev1.ContainerStateTerminated{ExitCode: 100, Reason: "Error"}
		}, "its container app does not run: CrashLoopBackOff after exit code 100, restart 3", false},
		"killed": {func(s *corev1.PodStatus) {
			s.ContainerStatuses = []corev1.ContainerStatus{{Name: "app", State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: 137, Reason: "OOMKilled"}}}}
		}, "its container app has ended with exit code 137 (OOMKilled)", false},
		"image": {func(s *corev1.PodStatus) {
			s.ContainerStatuses = waiting("ImagePullBackOff", `Back-off pulling image "app"`)
		}, `its container app does not run: ImagePullBackOff: Back-off pulling image "app"`, false},
		"init container": {func(s *corev1.PodStatus) {
			s.Phase, s.InitContainerStatuses = corev1.PodPending, waiting("ErrImagePull", "")
			s.ContainerStatuses = waiting("PodInitializing", "")
		}, "its init container app does not run: ErrImagePull", false},
		"no node": {func(s *corev1.PodStatus) {
			s.Phase = corev1.PodPending
			s.Conditions = append(s.Conditions, corev1.PodCondition{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: "Unschedulable", Message: "0/3 nodes are available"})
		}, "no node has it: Unschedulable: 0/3 nodes are available", false},
		"not ready": {func(*corev1.PodStatus) {}, "ContainersNotReady: containers with unready status: [app]", true},
	} {
		t.Run(name, func(t *testing.T) {
			shown, code := explainedAs(t, "", "Deployment/biller", together(deployment(claim, claim), leaseOf(""), troubled(c.change))...)
			assert.Contains(t, shown, "not Ready  "+c.line+"; StandingBy: a holder of "+slot+" serves")
			first, _, _ := strings.Cut(shown, "namespace:")
			assert.Equal(t, !c.calm, strings.Contains(first, "gated, 1 pod, 1 in trouble:\n  - pod a: "+c.line+"\n"), shown)
			assert.Equal(t, !c.calm, code == exitNot)
			assert.Equal(t, c.calm, strings.Contains(shown, "a  stands by"), shown)
		})
	}
	evicted := troubled(func(s *corev1.PodStatus) {
		s.Phase, s.Reason, s.Message = corev1.PodFailed, "Evicted", "The node was low on resource: memory."
	})
	shown, _ := explainedAs(t, "", "Pod/a", together(deployment(claim, claim), leaseOf(""), evicted)...)
	assert.Contains(t, shown, "a  has ended, Failed  not Ready  it has failed: Evicted: The node was low on resource: memory.; ")
}

// A policy without egress to the API server leaves nothing else to be seen from outside.
func TestExplainCommandNamesASilentAgent(t *testing.T) {
	for name, c := range map[string]struct {
		runs   time.Duration
		change func(p *corev1.Pod)
		silent bool
		holder string
	}{
		"for long": {30 * time.Second, func(*corev1.Pod) {}, true, ""},
		"new":      {29 * time.Second, func(*corev1.Pod) {}, false, ""},
		"it has spoken": {time.Hour, func(p *corev1.Pod) {
			p.Status.Conditions = gatedPod("a", corev1.ConditionFalse, "NoHolder", "").Status.Conditions
		}, false, ""},
		"deleted":     {time.Hour, func(p *corev1.Pod) { p.DeletionTimestamp, p.Finalizers = &metav1.Time{Time: noon}, []string{"x/y"} }, false, ""},
		"a program":   {time.Hour, func(p *corev1.Pod) { p.Spec.InitContainers[0].Args = []string{api.LocalRole} }, false, ""},
		"another one": {time.Hour, func(p *corev1.Pod) { p.Status.InitContainerStatuses[0].Name = "other" }, false, ""},
		"it holds":    {time.Hour, func(*corev1.Pod) {}, false, "a"},
	} {
		t.Run(name, func(t *testing.T) {
			p := troubled(func(s *corev1.PodStatus) {
				s.Phase, s.Conditions = corev1.PodRunning, s.Conditions[1:]
				s.InitContainerStatuses = []corev1.ContainerStatus{{
					Name: api.AgentContainer, State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: metav1.Time{Time: noon.Add(-c.runs)}}},
				}}
			})
			c.change(p)
			shown, code := explainedAs(t, "", "Deployment/biller", together(deployment(claim, claim), leaseOf(c.holder), p)...)
			const first = "gated, 1 pod, 1 in trouble:\n  - pod a: its agent has run since 2026-01-02T11:59:30Z without a word to the API server, so the application waits. " +
				"Often a NetworkPolicy forbids egress to the API server"
			assert.Equal(t, c.silent, strings.Contains(shown, first), shown)
			assert.Equal(t, c.silent, strings.Contains(shown, "\n    run: kubectl -n shop logs a -c metaparticle-agent\n"), shown)
			assert.Equal(t, c.silent, code == exitNot)
		})
	}
}

func TestExplainCommandShowsBlockerFirst(t *testing.T) {
	refused := event("Deployment", "biller", "ImageUnreadable", `A pod was refused: ImageUnreadable: container "app", image "app:1": not found`)
	old := plainPod("a", nil)
	shown, code := explainedAs(t, "", "Deployment/biller", together(deployment(claim, claim), leaseOf(""), old, refused)...)
	assert.Equal(t, exitNot, code)
	assert.True(t, strings.HasPrefix(shown, "Deployment/biller in shop: not gated, 1 pod\n"+
		`  - new pods are refused: ImageUnreadable: container "app", image "app:1": not found (60s ago)`+"\n    run: kubectl metaparticle explain ImageUnreadable\n"+
		"  - pods from before the annotation"), shown)

	// A pod from after the refusal shows that pods are admitted again.
	fresh := gatedPod("b", corev1.ConditionTrue, "Holding", "")
	fresh.CreationTimestamp.Time = noon.Add(-30 * time.Second)
	shown, code = explainedAs(t, "", "Deployment/biller", together(deployment(claim, claim), leaseOf("b"), fresh, refused)...)
	assert.Equal(t, exitOK, code, shown)
	assert.NotContains(t, shown, "new pods are refused")

	quota := event("ReplicaSet", "biller-1", "FailedCreate", `Error creating: pods "biller-1-x" is forbidden: exceeded quota: pods`)
	shown, code = explainedAs(t, "", "Deployment/biller", together(deployment(claim, claim), leaseOf(""), quota)...)
	assert.Equal(t, exitNot, code)
	assert.Contains(t, shown, "  - new pods are refused: Error creating: exceeded quota: pods (60s ago)\n", "whoever refuses")
}

func TestExplainCommandNamesTheCommandThatHelps(t *testing.T) {
	stopped := leaseOf("")
	stopped.Annotations = map[string]string{api.PausedAnnotation: "stop"}
	for name, c := range map[string]struct {
		optedIn bool
		run     string
		there   []client.Object
	}{
		"namespace": {false, "kubectl label namespace shop metaparticle.io/injection=enabled", together(deployment(claim, claim))},
		"older pod": {true, "kubectl -n shop rollout restart deployment/biller", together(deployment(claim, claim), leaseOf(""), plainPod("a", nil))},
		"template":  {true, "kubectl -n shop rollout restart deployment/biller", together(deployment(claim, nil))},
		"paused":    {true, "kubectl metaparticle resume -n shop " + slot, together(deployment(claim, claim), stopped, waiting("a"))},
		"crash": {true, "kubectl -n shop describe pod a", together(deployment(claim, claim), leaseOf(""), troubled(func(s *corev1.PodStatus) {
			s.ContainerStatuses = []corev1.ContainerStatus{{Name: "app", State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff"}}}}
		}))},
	} {
		lines := strings.Split(answer(t, c.optedIn, "Deployment/biller", c.there...), "\n")
		assert.True(t, strings.HasPrefix(lines[1], "  - "), name)
		assert.Equal(t, "    run: "+c.run, lines[2], name)
	}
	assert.NotContains(t, answer(t, true, "Deployment/biller", together(deployment(claim, claim), leaseOf("a"), gatedPod("a", corev1.ConditionTrue, "Holding", ""))...), "run: ")

	var out bytes.Buffer
	assert.Equal(t, exitOK, run(t.Context(), []string{"explain", "imageunreadable"}, stdio{nil, &out, &out}))
	assert.Regexp(t, `\AImageUnreadable: .+\nDo: .+\n\z`, out.String())
}

func TestExplainCommandExitsWithOneIfAClaimIsNotInForce(t *testing.T) {
	holder := gatedPod("a", corev1.ConditionTrue, "Holding", "")
	for name, c := range map[string]struct {
		code  int
		there []client.Object
	}{
		"holder":             {exitOK, together(deployment(claim, claim), leaseOf("a"), holder)},
		"no pods":            {exitOK, together(deployment(claim, claim))},
		"claims nothing":     {exitOK, together(deployment(nil, nil), plainPod("a", nil))},
		"only a warning":     {exitOK, together(deployment(map[string]string{api.SingletonAnnotation: "true", api.ReadinessAnnotation: "holder"}, map[string]string{api.SingletonAnnotation: "true", api.ReadinessAnnotation: "holder"}), leaseOf("a"), holder)},
		"misspelt":           {exitNot, together(deployment(map[string]string{"metaparticle.io/singelton": "true"}, nil))},
		"another prefix":     {exitNot, together(deployment(map[string]string{"metaparticles.io/singleton": "true"}, nil))},
		"pod without a gate": {exitNot, together(deployment(claim, claim), leaseOf("a"), holder, plainPod("b", nil))},
		"one of two crashes": {exitOK, together(deployment(claim, claim), leaseOf("b"), gatedPod("b", corev1.ConditionTrue, "Holding", ""), troubled(func(s *corev1.PodStatus) {
			s.ContainerStatuses = []corev1.ContainerStatus{{Name: "app", State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff"}}}}
		}))},
	} {
		shown, code := explainedAs(t, "", "Deployment/biller", c.there...)
		assert.Equal(t, c.code, code, "%s: %s", name, shown)
	}
}

func TestExplainCommandAnswersInJSON(t *testing.T) {
	there := together(deployment(claim, claim), leaseOf("a"), gatedPod("a", corev1.ConditionTrue, "Holding", "two\nlines"),
		event("ReplicaSet", "biller-1", "FailedCreate", `admission webhook "pods.metaparticle.io" denied the request: Probes: …`))
	text, code := explainedAs(t, "json", "Deployment/biller", there...)
	assert.Equal(t, exitNot, code)
	var got explanation
	require.NoError(t, json.Unmarshal([]byte(text), &got))
	assert.Equal(t, explanation{
		Subject: "Deployment/biller", Namespace: "shop", OptedIn: true, Verdict: "gated, 1 pod; for new pods:",
		Blockers:    []string{"new pods are refused: Probes: … (60s ago)"},
		Remedy:      "kubectl metaparticle explain Probes",
		Findings:    []diagnosis.Finding{{Reason: "Probes", Says: "new pods are refused: Probes: … (60s ago)", Run: "kubectl metaparticle explain Probes", Blocks: true}},
		Annotations: []map[string]string{{"annotation": "metaparticle.io/singleton=true", "where": "on the workload and its template"}},
		Slots:       []map[string]string{{"slot": slot, "state": "held by a, token 4711, since 2026-01-02T11:50:00Z (10m), renewed 3s ago"}},
		Pods:        []map[string]string{{"pod": "a", "state": "holds " + slot, "ready": "Ready", "message": "Holding: two?lines"}},
		Events: []map[string]string{{
			"age": "60s ago", "event": `ReplicaSet/biller-1: FailedCreate: admission webhook "pods.metaparticle.io" denied the request: Probes: …`,
		}},
	}, got)
	text, _ = explainedAs(t, "yaml", "Deployment/biller", there...)
	assert.Contains(t, text, "inForce: false\n")
}

// A CronJob has many Jobs. Each has its own pods, and its own template.
func TestExplainCommandIsAboutTheJobThatWasAskedFor(t *testing.T) {
	nightly := &batchv1.CronJob{ObjectMeta: meta("nightly", claim)}
	nightly.Spec.JobTemplate.Spec.Template.Annotations = claim
	job := func(name string, claims map[string]string) *batchv1.Job {
		j := &batchv1.Job{ObjectMeta: owned(meta(name, nil), "batch/v1", "CronJob", "nightly")}
		j.Spec.Template.Annotations = claims
		return j
	}
	pod := func(name, job string, phase corev1.PodPhase) *corev1.Pod {
		p := gatedPod(name, corev1.ConditionFalse, "NoHolder", "nobody holds it")
		p.ObjectMeta.OwnerReferences = owned(meta(name, nil), "batch/v1", "Job", job).OwnerReferences
		p.Annotations[api.SlotsAnnotation] = "singleton.cronjob.nightly"
		p.Status.Phase = phase
		return p
	}
	there := together(nightly, job("mon", nil), job("tue", claim), job("wed", claim),
		pod("tue-x", "tue", corev1.PodSucceeded), pod("wed-x", "wed", corev1.PodRunning))
	shown, code := explainedAs(t, "", "Job/tue", there...)
	assert.Equal(t, exitOK, code)
	assert.True(t, strings.HasPrefix(shown, "Job/tue (of CronJob/nightly) in shop: gated, 1 pod\n"), shown)
	assert.Contains(t, shown, "  singleton.cronjob.nightly  ")
	assert.Contains(t, shown, "  metaparticle.io/singleton=true  on the template\n")
	assert.Contains(t, shown, "  tue-x  has ended, Succeeded  not Ready  NoHolder")
	assert.NotContains(t, shown, "wed-x")

	shown, code = explainedAs(t, "", "Job/mon", there...)
	assert.Equal(t, exitNot, code)
	assert.Contains(t, shown, "  - it is older than the claim of CronJob/nightly, and its pods run without a gate; the next Job is gated\n")
	shown, _ = explainedAs(t, "", "CronJob/nightly", there...)
	assert.Contains(t, shown, "wed-x  stands by")
}

func TestExplainCommandIsAboutTheReplicaSetThatWasAskedFor(t *testing.T) {
	there := together(deployment(claim, claim), leaseOf(""), plainPod("a", claim))
	there[1].(*appsv1.ReplicaSet).Spec.Template.Annotations = claim
	shown, _ := explainedAs(t, "", "ReplicaSet/biller-1", there...)
	assert.Contains(t, shown, "ReplicaSet/biller-1 (of Deployment/biller) in shop: not gated, 1 pod\n  - NotInjected: ")
}

func TestExplainCommandShowsDoneWork(t *testing.T) {
	once := map[string]string{api.OnceAnnotation: "schema=7"}
	done := leaseOf("")
	done.Name, done.Annotations = "once.schema", map[string]string{api.DoneAnnotation: "6,7"}
	pod := gatedPod("a", corev1.ConditionTrue, "Done", "the work of 7 is done")
	pod.Annotations[api.SlotsAnnotation] = "once.schema"
	shown, _ := explainedAs(t, "", "Deployment/biller", together(deployment(once, once), done, pod)...)
	assert.Contains(t, shown, "  once.schema  free, done: 6 7\n")
	assert.Contains(t, shown, "  a  skips its work, which is done  Ready  Done: the work of 7 is done\n")
}
