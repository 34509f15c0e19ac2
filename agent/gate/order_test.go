// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package gate

import (
	"context"
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// runs orders a command, and returns what became of it.
func (a *fakeAgent) runs(timeout time.Duration, command ...string) ran {
	a.t.Helper()
	require.NoError(a.t, a.send(order{Run: &runOrder{ID: "r", Command: command, Timeout: timeout}}))
	late := time.After(patience)
	for {
		select {
		case r := <-a.answers:
			require.Equal(a.t, "r", r.ID)
			return r
		case <-a.states: // beats
		case <-late:
			a.t.Fatal("no answer")
		}
	}
}

func TestACommandRunsBesideTheChildOnly(t *testing.T) {
	t.Parallel()
	a := supervised(t, os.Stderr, "sleep", "1000")
	assert.Contains(t, a.runs(time.Minute, "true").Error, ErrNotRunning.Error())
	a.grants("h1", time.Hour)
	a.until(Running, "h1")
	assert.Equal(t, ran{ID: "r"}, a.runs(time.Minute, "true"))
	assert.Equal(t, ran{ID: "r", Code: 3, Output: []byte("out\nerr\n")},
		a.runs(time.Minute, "sh", "-c", "echo out; echo err >&2; exit 3"))
	assert.Equal(t, ran{ID: "r", Code: 137}, a.runs(time.Minute, "sh", "-c", "kill -9 $$$$"))
	assert.Contains(t, a.runs(time.Minute, "no-such-program").Error, "not found")
	assert.Equal(t, "no input\n", string(a.runs(time.Minute, "sh", "-c", "read x || echo no input").Output))
	assert.Equal(t, "in $HOME $(NONE) app\n",
		string(a.runs(time.Minute, "echo", "in", "$$HOME", "$(NONE)", "$(GATE_TEST)").Output))
	a.drains("h1")
	a.until(Waiting, "h1")
	assert.Contains(t, a.runs(time.Minute, "true").Error, ErrNotRunning.Error())
}

func TestACommandIsKilledWhenItsTimeIsUp(t *testing.T) {
	t.Parallel()
	a := supervised(t, os.Stderr, "sleep", "1000")
	a.grants("h1", time.Hour)
	a.until(Running, "h1")
	began := Now()
	r := a.runs(300*time.Millisecond, "sh", "-c", "trap '' TERM; echo begun; sleep 1000; sleep 1000")
	assert.Equal(t, ran{ID: "r", Code: 137, Output: []byte("begun\n"), TimedOut: true}, r)
	assert.GreaterOrEqual(t, Now()-began, 300*time.Millisecond)
	// The child did not notice.
	assert.Equal(t, ran{ID: "r"}, a.runs(time.Minute, "true"))
	a.drains("h1")
	a.until(Waiting, "h1")
}

func TestOfACommandsOutputOnlyTheBeginningIsKept(t *testing.T) {
	t.Parallel()
	a := supervised(t, os.Stderr, "sleep", "1000")
	a.grants("h1", time.Hour)
	a.until(Running, "h1")
	r := a.runs(time.Minute, "sh", "-c", "head -c 1000000 /dev/zero; exit 4")
	assert.Equal(t, 4, r.Code)
	assert.Equal(t, make([]byte, mostOutput), r.Output)
	// What a command leaves behind keeps its output, and is not waited for.
	r = a.runs(time.Minute, "sh", "-c", "echo first; (sleep 1000; echo last) &")
	assert.Equal(t, ran{ID: "r", Output: []byte("first\n")}, r)
	a.drains("h1")
	a.until(Waiting, "h1")
}

func TestTheEndOfTheChildCutsACommandShort(t *testing.T) {
	t.Parallel()
	a := supervised(t, os.Stderr, "sleep", "1000")
	a.grants("h1", time.Hour)
	a.until(Running, "h1")
	require.NoError(t, a.send(order{Run: &runOrder{ID: "first", Command: []string{"sleep", "1000"}, Timeout: time.Hour}}))
	for i := range 2 * mostOrdered {
		require.NoError(t, a.send(order{Run: &runOrder{ID: fmt.Sprint(i), Command: []string{"sleep", "1000"}, Timeout: time.Hour}}))
	}
	a.drains("h1")
	a.until(Waiting, "h1")
	for range 2*mostOrdered + 1 {
		assert.NotEmpty(t, (<-a.answers).Error)
	}
}

func TestAnEndIsADrainThatEndsTheContainer(t *testing.T) {
	t.Parallel()
	a := supervised(t, os.Stderr, "sh", "-c", "trap 'exit 5' TERM; echo deaf; while :; do sleep 1000 & wait; done")
	a.grants("h1", time.Hour)
	a.until(Running, "h1")
	a.deaf()
	require.NoError(t, a.send(order{Drain: &drain{Hold: "h1", Reason: "test", Grace: time.Minute, End: true}}))
	a.until(Draining, "h1")
	a.until(Ended, "h1")
	require.NoError(t, a.Close())
	a.exits(5)
}

func TestTheAgentsEndHearsWhatBecameOfACommand(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	pidfd, _ := ofSleeper(t)
	s, _ := served(t, ServerConfig{Dir: dir})
	f := joined(t, dir, state{Shim: "s", Container: "app", Phase: Waiting}, pidfd)
	reported(t, s, func(r Report) bool { return r.Phase == Waiting })

	_, err := s.RunAside(t.Context(), "s", []string{"true"}, time.Second)
	require.ErrorIs(t, err, ErrNotRunning)
	_, err = s.RunAside(t.Context(), "other", []string{"true"}, time.Second)
	require.ErrorIs(t, err, ErrUnknown)
	_, err = s.RunAside(t.Context(), "s", nil, time.Second)
	require.ErrorIs(t, err, errMessage)

	f.is(Running, "h")
	reported(t, s, func(r Report) bool { return r.Phase == Running })
	type answer struct {
		Result
		error
	}
	ask := func(ctx context.Context) chan answer {
		answers := make(chan answer, 1)
		go func() {
			r, err := s.RunAside(ctx, "s", []string{"check", "it"}, time.Minute)
			answers <- answer{r, err}
		}()
		return answers
	}

	answers := ask(t.Context())
	o := f.order()
	assert.Equal(t, []string{"check", "it"}, o.Run.Command)
	assert.Equal(t, time.Minute, o.Run.Timeout)
	require.NoError(t, f.send(message{Ran: &ran{ID: "another"}}))
	require.NoError(t, f.send(message{Ran: &ran{ID: o.Run.ID, Code: 2, Output: []byte("no"), TimedOut: true}}))
	assert.Equal(t, answer{Result{Code: 2, Output: []byte("no"), TimedOut: true}, nil}, <-answers)

	answers = ask(t.Context())
	require.NoError(t, f.send(message{Ran: &ran{ID: f.order().Run.ID, Error: "not found"}}))
	assert.ErrorIs(t, (<-answers).error, ErrNotRun)

	ctx, cancel := context.WithCancelCause(t.Context())
	answers = ask(ctx)
	f.order()
	cancel(errors.New("enough"))
	assert.ErrorContains(t, (<-answers).error, "enough")

	answers = ask(t.Context())
	f.order()
	require.NoError(t, f.Close())
	assert.ErrorIs(t, (<-answers).error, ErrNotConnected)
	assert.Empty(t, s.runs)
}

func TestAnEndIsRepeatedAndOutlivesADrain(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	pidfd, _ := ofSleeper(t)
	s, _ := served(t, ServerConfig{Dir: dir})
	f := joined(t, dir, state{Shim: "s", Container: "app", Phase: Running, Hold: "h"}, pidfd)
	reported(t, s, func(r Report) bool { return r.Phase == Running })
	require.NoError(t, s.End("s", "probe", time.Minute))
	assert.True(t, f.order().Drain.End)
	require.NoError(t, s.Drain("s", "yield", time.Second))
	o := f.order()
	assert.True(t, o.Drain.End)
	assert.LessOrEqual(t, o.Drain.Grace, time.Second)
	f.connect(dir, pidfd)
	assert.True(t, f.order().Drain.End)
	f.is(Waiting, "h")
	reported(t, s, func(r Report) bool { return r.Phase == Waiting })
	require.NoError(t, s.End("s", "probe", time.Minute))
	assert.Empty(t, f.orders, "nothing runs that could end")
}

func TestDollarsAreExpandedAsTheKubeletDoes(t *testing.T) {
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
