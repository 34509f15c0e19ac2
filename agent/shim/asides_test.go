// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/agent/gate"
	"github.com/metaparticle-io/metaparticle/agent/linux"
)

// The method "runs" orders the shim to run a command, and returns the outcome.
func (a *fakeAgent) runs(timeout time.Duration, command ...string) gate.Outcome {
	a.t.Helper()
	require.NoError(a.t, a.send(gate.Order{Aside: &gate.Aside{ID: "r", Command: command, Timeout: timeout}}))
	late := time.After(patience)
	for {
		select {
		case r := <-a.answers:
			require.Equal(a.t, "r", r.ID)
			return r
		case <-a.states: // the states that the shim repeats at its beats
		case <-late:
			a.t.Fatal("no answer")
		}
	}
}

func TestAsideRunsOnlyBesideAChild(t *testing.T) {
	t.Parallel()
	a := supervised(t, os.Stderr, "sleep", "1000")
	assert.Contains(t, a.runs(time.Minute, "true").Error, gate.ErrNotRunning.Error())
	a.grants("h1", time.Hour)
	a.until(gate.Running, "h1")
	assert.Equal(t, gate.Outcome{ID: "r"}, a.runs(time.Minute, "true"))
	assert.Equal(t, gate.Outcome{ID: "r", Code: 3, Output: []byte("out\nerr\n")},
		a.runs(time.Minute, "sh", "-c", "echo out; echo err >&2; exit 3"))
	assert.Equal(t, gate.Outcome{ID: "r", Code: 137}, a.runs(time.Minute, "sh", "-c", "kill -9 $$$$"))
	assert.Contains(t, a.runs(time.Minute, "no-such-program").Error, "not found")
	assert.Equal(t, "no input\n", string(a.runs(time.Minute, "sh", "-c", "read x || echo no input").Output))
	assert.Equal(t, "in $HOME $(NONE) app\n",
		string(a.runs(time.Minute, "echo", "in", "$$HOME", "$(NONE)", "$(GATE_TEST)").Output))
	a.drains("h1")
	a.until(gate.Waiting, "h1")
	assert.Contains(t, a.runs(time.Minute, "true").Error, gate.ErrNotRunning.Error())
}

func TestShimKillsAnAsideThatRunsTooLong(t *testing.T) {
	t.Parallel()
	a := held(t, time.Hour, "sleep", "1000")
	began := linux.Now()
	const timeout = 3 * time.Second // the shell must print its line in time, even on a busy machine
	r := a.runs(timeout, "sh", "-c", "trap '' TERM; echo begun; sleep 1000; sleep 1000")
	assert.Equal(t, gate.Outcome{ID: "r", Code: 137, Output: []byte("begun\n"), TimedOut: true}, r)
	assert.GreaterOrEqual(t, linux.Now()-began, timeout)
	// The child still runs, so the shim accepts another command.
	assert.Equal(t, gate.Outcome{ID: "r"}, a.runs(time.Minute, "true"))
	a.drains("h1")
	a.until(gate.Waiting, "h1")
}

func TestShimTruncatesTheOutputOfAnAside(t *testing.T) {
	t.Parallel()
	a := held(t, time.Hour, "sleep", "1000")
	r := a.runs(time.Minute, "sh", "-c", "head -c 1000000 /dev/zero; exit 4")
	assert.Equal(t, 4, r.Code)
	assert.Equal(t, make([]byte, gate.MostOutput), r.Output)
	// A descendant keeps the output open, but the shim does not wait for that descendant.
	r = a.runs(time.Minute, "sh", "-c", "echo first; (sleep 1000; echo last) &")
	assert.Equal(t, gate.Outcome{ID: "r", Output: []byte("first\n")}, r)
	a.drains("h1")
	a.until(gate.Waiting, "h1")
}

func TestShimKillsAsidesWhenTheChildEnds(t *testing.T) {
	t.Parallel()
	a := held(t, time.Hour, "sleep", "1000")
	require.NoError(t, a.send(gate.Order{Aside: &gate.Aside{ID: "first", Command: []string{"sleep", "1000"}, Timeout: time.Hour}}))
	for i := range 2 * mostOrdered {
		require.NoError(t, a.send(gate.Order{Aside: &gate.Aside{ID: fmt.Sprint(i), Command: []string{"sleep", "1000"}, Timeout: time.Hour}}))
	}
	a.drains("h1")
	a.until(gate.Waiting, "h1")
	for range 2*mostOrdered + 1 {
		assert.NotEmpty(t, (<-a.answers).Error)
	}
}

func TestShimEndsItsContainerOnTheDesksOrder(t *testing.T) {
	t.Parallel()
	a := held(t, time.Hour, "sh", "-c", "trap 'exit 5' TERM; echo deaf; while :; do sleep 1000 & wait; done")
	a.deaf()
	require.NoError(t, a.send(gate.Order{Drain: &gate.Drain{Hold: "h1", Reason: "test", Grace: time.Minute, End: true}}))
	a.until(gate.Draining, "h1")
	a.until(gate.Ended, "h1")
	require.NoError(t, a.Close())
	a.exits(5)
}

func TestShimExpandsEnvironmentVariablesAsTheKubeletDoes(t *testing.T) {
	t.Parallel()
	values := map[string]string{"A": "a", "EMPTY": "", "B": "$(A)"}
	for word, want := range map[string]string{
		"":              "",
		"plain":         "plain",
		"$(A)":          "a",
		"x$(A)y$(A)z":   "xayaz",
		"$(B)":          "$(A)",
		"$(EMPTY)":      "",
		"$(NONE)":       "$(NONE)",
		"$$(A)":         "$(A)",
		"$$$(A)":        "$a",
		"$$$$(A)":       "$$(A)",
		"$A ${A}":       "$A ${A}",
		"$":             "$",
		"$(A":           "$(A",
		"$(A$(A)":       "$(A$(A)",
		"cost: 5$":      "cost: 5$",
		"$()":           "$()",
		"é$(A)é$é":      "éaé$é",
		"$($(A))":       "$($(A))",
		"foo$((A))bar":  "foo$((A))bar",
		"$$x$$(A)$$$$A": "$x$(A)$$A",
	} {
		assert.Equal(t, want, expand(word, values), word)
	}
}
