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

// integer returns the integer of a Variable; 0 without a value.
func (e example) integer(name string) int {
	out, err := kubectl.Run(e.Space, "", "get", "variable", name, "-o", "jsonpath={.spec.integer}")
	if err != nil {
		return 0 // enroll has not created the Variable yet
	}
	n, _ := strconv.Atoi(strings.TrimSpace(out))
	return n
}

func TestCounterExampleCountsExactlyDespiteKills(t *testing.T) {
	e := apply(t, "counter", "counter")
	reach := func(n int) {
		t.Helper()
		e.Await(space.StartTimeout, "the sum reaches "+strconv.Itoa(n), func() bool { return e.integer("hits") >= n })
	}
	reach(100)
	running := func() (found []*corev1.Pod) {
		for _, pod := range e.Pods("counter") {
			if status.ContainersRun(pod) {
				found = append(found, pod)
			}
		}
		return found
	}
	pods := running()
	require.GreaterOrEqual(t, len(pods), 2)
	process.Signal(e.Space, pods[0], "python3", unix.SIGKILL)
	process.Signal(e.Space, pods[1], process.Agent, unix.SIGKILL)
	reach(400)
	for _, pod := range running() {
		process.Signal(e.Space, pod, process.Agent, unix.SIGKILL)
	}
	reach(600)
	for _, pod := range running() {
		process.Signal(e.Space, pod, "python3", unix.SIGKILL)
	}
	e.complete("counter")
	assert.Equal(t, 1000, e.integer("hits"))
	assert.Equal(t, "1000", kubectl.Must(e.Space, "", "get", "variable", "hits", "-o", "jsonpath={.spec.keyed}"))
}
