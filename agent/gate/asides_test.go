// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package gate

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestDeskReturnsTheOutcomeOfAnAside(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	pidfd, _ := ofSleeper(t)
	s, _ := served(t, Config{Dir: dir})
	f := joined(t, dir, Report{Shim: "s", Container: "app", Phase: Waiting}, pidfd)
	reported(t, s, func(r Report) bool { return r.Phase == Waiting })

	_, err := s.RunAside(t.Context(), "s", []string{"true"}, time.Second)
	require.ErrorIs(t, err, ErrNotRunning)
	_, err = s.RunAside(t.Context(), "other", []string{"true"}, time.Second)
	require.ErrorIs(t, err, ErrUnknown)
	_, err = s.RunAside(t.Context(), "s", nil, time.Second)
	require.ErrorIs(t, err, ErrMessage)

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
	assert.Equal(t, []string{"check", "it"}, o.Aside.Command)
	assert.Equal(t, time.Minute, o.Aside.Timeout)
	require.NoError(t, f.send(Message{Ran: &Outcome{ID: "another"}}))
	require.NoError(t, f.send(Message{Ran: &Outcome{ID: o.Aside.ID, Code: 2, Output: []byte("no"), TimedOut: true}}))
	assert.Equal(t, answer{Result{Code: 2, Output: []byte("no"), TimedOut: true}, nil}, <-answers)

	answers = ask(t.Context())
	require.NoError(t, f.send(Message{Ran: &Outcome{ID: f.order().Aside.ID, Error: "not found"}}))
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
	assert.Empty(t, s.register.asides)
}

func TestDrainAfterAnEndOrderStillEndsContainer(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	pidfd, _ := ofSleeper(t)
	s, _ := served(t, Config{Dir: dir})
	f := joined(t, dir, Report{Shim: "s", Container: "app", Phase: Running, Hold: "h"}, pidfd)
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
