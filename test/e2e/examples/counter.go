// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package examples

import (
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"github.com/metaparticle-io/metaparticle/test/e2e/harness/kubectl"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/process"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/space"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/status"
)

// integer returns the integer of a Variable, or 0 if the Variable has no value.
func (e example) integer(variable string) int {
	out, err := kubectl.Run(e.Space, "", "get", "variable", variable, "-o", "jsonpath={.spec.integer}")
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
		e.Await(space.StartTimeout, "the sum reaches "+strconv.Itoa(n), func() bool { return e.integer("hits") >= n })
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
	assert.Equal(t, 1000, e.integer("hits"))
	assert.Equal(t, "1000", kubectl.Must(e.Space, "", "get", "variable", "hits", "-o", "jsonpath={.spec.keyed}"))
}
