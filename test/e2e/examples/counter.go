// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package examples

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/app"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/cluster"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/kubectl"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/process"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/space"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/status"
)

// hits returns the integer of the Variable "hits", or 0 if the Variable has no value.
func (e example) hits() int {
	out, err := kubectl.Run(e.Space, "", "get", "variable", "hits", "-o", "jsonpath={.spec.integer}")
	if err != nil {
		return 0 // enroll has not created the Variable yet
	}
	n, _ := strconv.Atoi(strings.TrimSpace(out))
	return n
}

// running returns the pods whose label "app" has the given value. A pod counts only if all its
// containers run and the pod is not being deleted.
func (e example) running(app string) (found []*corev1.Pod) {
	for _, pod := range e.Pods(app) {
		if pod.DeletionTimestamp == nil && status.ContainersRun(pod) {
			found = append(found, pod)
		}
	}
	return found
}

func TestExampleCounterCountsExactlyDespiteKills(t *testing.T) {
	e := apply(t, "counter", "counter")
	reach := func(n int) {
		t.Helper()
		e.Await(space.StartTimeout, "the sum reaches "+strconv.Itoa(n), func() bool { return e.hits() >= n })
	}
	reach(100)
	pods := e.running("counter")
	require.GreaterOrEqual(t, len(pods), 2)
	process.Signal(e.Space, pods[0], "python3", unix.SIGKILL)
	process.Signal(e.Space, pods[1], process.Agent, unix.SIGKILL)
	reach(400)
	for _, pod := range e.running("counter") {
		process.Signal(e.Space, pod, process.Agent, unix.SIGKILL)
	}
	reach(600)
	for _, pod := range e.running("counter") {
		process.Signal(e.Space, pod, "python3", unix.SIGKILL)
	}
	e.complete("counter")
	assert.Equal(t, 1000, e.hits())
	assert.Equal(t, "1000", kubectl.Must(e.Space, "", "get", "variable", "hits", "-o", "jsonpath={.spec.keyed}"))
}

// unkeyed is a program that adds to a Variable without an Idempotency-Key, until 200 of its adds
// are stored. The program repeats no add. Its journal gets "a" before each add, "k" for a stored
// add, and "n" for a refused one. An add without "k" or "n" has an unknown outcome. While no agent
// listens, the kernel refuses the connection, and the add counts as refused.
const unkeyed = `
import http.client, json, os, signal, time, uuid

signal.signal(signal.SIGTERM, lambda *_: os._exit(1))
journal = os.open("/record/" + str(uuid.uuid4()) + ".adds", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
stored = 0
while stored < 200:
    os.write(journal, b"a")
    try:
        agent = http.client.HTTPConnection("localhost", 13131, timeout=30)
        agent.request("POST", "/v1/variable/hits/add")
        answer = agent.getresponse()
        body = json.load(answer)
        if answer.status == 200:
            os.write(journal, b"k")
            stored += 1
        elif body["reason"] != "Unknown":
            os.write(journal, b"n")
            print(body)
    except ConnectionRefusedError:
        os.write(journal, b"n")
    except (OSError, http.client.HTTPException, ValueError) as error:
        print("no answer:", error)
    time.sleep(0.05)
`

// adds counts the stored adds in all journals together, and the adds with an unknown outcome.
func (e example) adds() (stored, unknown int) {
	journals, err := filepath.Glob(filepath.Join(e.Dir, "*.adds"))
	require.NoError(e.Space, err)
	for _, name := range journals {
		journal, err := os.ReadFile(name)
		require.NoError(e.Space, err)
		count := func(sign string) int { return strings.Count(string(journal), sign) }
		stored += count("k")
		unknown += count("a") - count("k") - count("n")
	}
	return stored, unknown
}

func TestVariableKeepsEachAcknowledgedAdditionDespiteKills(t *testing.T) {
	cluster.NeedLab(t, "its registry has the image, and its directory has the journals")
	t.Parallel()
	require.NoError(t, images())
	s := space.New(t)
	e := example{Space: s}
	a := app.App{Name: "adder", Edit: func(template *corev1.PodTemplateSpec) {
		container := &template.Spec.Containers[0]
		container.Image, container.Command, container.Args, container.Ports = "python:3.11-slim-bookworm", []string{"python3", "-u", "-c", unkeyed}, nil, nil
	}}
	job := &batchv1.Job{ObjectMeta: app.Meta(s, a), Spec: app.Job(s, a).Spec}
	job.Annotations = map[string]string{api.LocalAnnotation: "variable/hits"}
	job.Spec.Completions, job.Spec.Parallelism, job.Spec.BackoffLimit = new(int32(5)), new(int32(5)), new(int32(40))
	_, err := s.Client.BatchV1().Jobs(s.Namespace).Create(s.Context(), job, metav1.CreateOptions{})
	require.NoError(t, err)

	reach := func(n int) {
		t.Helper()
		e.Await(space.StartTimeout, "the sum reaches "+strconv.Itoa(n), func() bool { return e.hits() >= n })
	}
	for round := 1; round <= 3; round++ {
		reach(150 * round)
		var pods []*corev1.Pod
		// A killed container may wait in the kubelet's back-off, so fewer than three adders may
		// run.
		e.Await(space.StartTimeout, "an adder runs", func() bool {
			pods = e.running("adder")
			return len(pods) > 0
		})
		process.Signal(s, pods[0], process.Agent, unix.SIGKILL)
		process.Signal(s, pods[1%len(pods)], "python3", unix.SIGKILL)
		app.DeletePod(s, pods[2%len(pods)])
	}
	e.complete("adder")
	stored, unknown := e.adds()
	sum := e.hits()
	t.Logf("%d adds were stored, %d are unknown, and the sum is %d", stored, unknown, sum)
	assert.GreaterOrEqual(t, stored, 1000)
	assert.GreaterOrEqual(t, sum, stored, "each acknowledged add counts")
	assert.LessOrEqual(t, sum, stored+unknown, "an add without an answer counts once at most")
}
