// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package wait

import (
	"context"
	"io"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/sim/apiserver"
)

// reader returns the names of the Leases that were read since its last call.
func reader(s *apiserver.Scripted) (take func() []string) {
	taken := 0
	return func() (names []string) {
		all := s.Requests("get")
		for _, r := range all[taken:] {
			names = append(names, r.Name)
		}
		taken = len(all)
		slices.Sort(names)
		return names
	}
}

// surveying returns the arrival of a pod that holds the first of 32 Leases, and has just renewed. Each
// request takes a second.
func surveying(t *testing.T) (*arrival, *apiserver.Scripted) {
	t.Helper()
	names := api.Barrier{Name: "warm", Size: 32}.Leases("run-1")
	s := apiserver.NewScripted(t.Context(), names...)
	s.Takes = time.Second
	began := time.Now()
	budget, err := api.NewBudget(10 * time.Second)
	require.NoError(t, err)
	config := BarrierConfig{
		API: s.Client("a"), Leases: names, Duration: 10 * time.Second, PodName: "a", PodUID: "uid",
		Clock: func() time.Duration { return time.Since(began) }, Log: io.Discard,
	}
	a := newArrival(config, budget, rand.New(rand.NewPCG(1, 2)))
	a.held = &kube.Lease{Name: config.Leases[0], Holder: a.identity}
	return a, s
}

func TestSurveyGoesOnAfterARenewal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, s := surveying(t)
		take := reader(s)
		names := slices.Sorted(slices.Values(a.Leases[1:17]))
		assert.Zero(t, a.survey(t.Context()), "the renewal is due at once")
		assert.Equal(t, names, take(), "after two rounds of eight reads the renewal is due")
		a.renewed = a.Clock()
		a.survey(t.Context())
		assert.Equal(t, slices.Sorted(slices.Values(a.Leases[17:])), take())
		a.renewed = a.Clock()
		a.survey(t.Context())
		assert.Equal(t, names, take(), "a new survey")
	})
}

func TestSurveyEndsAfterAFailedRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, s := surveying(t)
		s.SetAway(true)
		take := reader(s)
		assert.Positive(t, a.survey(t.Context()))
		assert.Len(t, take(), surveysAtOnce)
		a.renewed = a.Clock()
		ctx, end := context.WithCancel(t.Context())
		end()
		a.survey(ctx)
		assert.Empty(t, take(), "the wait at the barrier has ended")
	})
}
