// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package examples

import (
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"github.com/metaparticle-io/metaparticle/test/e2e/harness/app"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/kubectl"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/process"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/space"
)

// startLoad starts a run of the load test with the given variables, such as SECONDS=20.
func (e example) startLoad(job string, variables ...string) {
	e.Space.Helper()
	kubectl.Must(e.Space, "", "rollout", "status", "deployment/shop", kubectl.RolloutTimeout)
	kubectl.Must(e.Space, "", append([]string{"set", "env", "cronjob/load"}, variables...)...)
	kubectl.Must(e.Space, "", "create", "job", "--from=cronjob/load", job)
}

// awaitSent waits until the pods have reported so many requests.
func (e example) awaitSent(n int) {
	e.Space.Helper()
	e.Await(space.StartTimeout, strconv.Itoa(n)+" requests are reported", func() bool { return e.integer("sent") >= n })
}

// indexed returns the pod of a run that has an index and runs.
func (e example) indexed(job, index string) (found *corev1.Pod) {
	e.Space.Helper()
	e.Await(space.StartTimeout, "the pod with index "+index+" runs", func() bool {
		for _, pod := range e.running("load") {
			if pod.Labels["job-name"] == job && pod.Labels["batch.kubernetes.io/job-completion-index"] == index {
				found = pod
			}
		}
		return found != nil
	})
	return found
}

// verdict returns what the judge of a run has printed.
func (e example) verdict(job string) string {
	e.Space.Helper()
	return kubectl.Must(e.Space, "", "logs", "-l", "job-name="+job+",batch.kubernetes.io/job-completion-index=0", "-c", "load", "--tail=2")
}

// A killed process, and a deleted pod (which is the judge), leave a batch behind that they have sent in part.
func TestLoadExampleCountsExactlyDespiteKills(t *testing.T) {
	e := apply(t, "load", "load")
	e.startLoad("first", "SECONDS=16", "P99_MS=10000") // beside other tests some answers take seconds
	e.awaitSent(160)
	process.MustSignal(e.Space, e.indexed("first", "2"), "python3", unix.SIGKILL)
	app.DeletePod(e.Space, e.indexed("first", "0"))
	e.complete("first")
	assert.Equal(t, 640, e.integer("sent"))
	assert.Zero(t, e.integer("failed"))
	assert.Contains(t, e.verdict("first"), "640 of 640 requests are sent: 0 failed")
	assert.Contains(t, e.verdict("first"), "verdict: passed")

	// A run against a port on which nothing listens aborts, and its exit code says that it has not passed.
	e.startLoad("second", "TARGET=http://shop:81/")
	e.Await(jobTimeout, "the run ends at its verdict", func() bool {
		return kubectl.Must(e.Space, "", "get", "job", "second", "-o", `jsonpath={.status.conditions[?(@.type=="Failed")].reason}`) == "PodFailurePolicy"
	})
	assert.Contains(t, e.verdict("second"), "verdict: not passed")
	assert.Contains(t, e.verdict("second"), "requests of pod")
	assert.Positive(t, e.integer("failed"))
	assert.Equal(t, e.integer("sent"), e.integer("failed"))
	assert.Less(t, e.integer("sent"), 640)
}

// Four pods ask a singleton while it moves to a pod of a new version. The test runs alone for the same reason
// as TestConnectionsAreNeverRefusedDuringAHandover.
func TestSingletonRollsOutUnderLoadWithoutAFailedRequest(t *testing.T) {
	e := applyAlone(t, "load", "shop")
	const requests = 40 * 120
	e.startLoad("first", "SECONDS=120", "P99_MS=5000")
	e.awaitSent(160)
	first := e.awaitOther(nil)
	kubectl.Must(e.Space, "", "set", "env", "deployment/shop", "RELEASE=2")
	kubectl.Must(e.Space, "", "rollout", "status", "deployment/shop", kubectl.RolloutTimeout)
	e.awaitOther(first)
	assert.Less(t, e.integer("sent"), requests, "the load lasts longer than the rollout")
	e.complete("first")
	assert.Equal(t, requests, e.integer("sent"))
	assert.Zero(t, e.integer("failed"))
	e.NeverMoreThan(1)
	t.Log(strings.TrimSpace(e.verdict("first")))
}
