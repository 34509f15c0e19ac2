// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package barrier

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/api"
)

// counting is an API server that answers each read after a second, and counts the reads.
type counting struct {
	API
	mu   sync.Mutex
	read []string
	err  error
}

func (c *counting) GetLease(_ context.Context, name string) (*kube.Lease, error) {
	c.mu.Lock()
	c.read = append(c.read, name)
	c.mu.Unlock()
	<-time.After(time.Second)
	return &kube.Lease{Name: name}, c.err
}

// take returns the names of the Leases that were read since the last call of take.
func (c *counting) take() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	read := c.read
	c.read = nil
	slices.Sort(read)
	return read
}

// surveying returns the arrival of a pod that holds the first of 32 Leases, and has just renewed.
func surveying(t *testing.T, c *counting) *arrival {
	t.Helper()
	began := time.Now()
	budget, err := api.NewBudget(10 * time.Second)
	require.NoError(t, err)
	config := Config{
		API: c, Leases: api.Barrier{Name: "warm", Size: 32}.Leases("run-1"), Duration: 10 * time.Second, PodName: "a", PodUID: "uid",
		Clock: func() time.Duration { return time.Since(began) }, Log: io.Discard,
	}
	a := newArrival(config, budget, rand.New(rand.NewPCG(1, 2)))
	a.held = &kube.Lease{Name: config.Leases[0], Holder: a.identity}
	return a
}

func TestSurveyGoesOnAfterARenewal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := new(counting)
		a := surveying(t, c)
		names := slices.Sorted(slices.Values(a.Leases[1:17]))
		assert.Zero(t, a.survey(t.Context()), "the renewal is due at once")
		assert.Equal(t, names, c.take(), "after two rounds of eight reads the renewal is due")
		a.renewed = a.Clock()
		a.survey(t.Context())
		assert.Equal(t, slices.Sorted(slices.Values(a.Leases[17:])), c.take())
		a.renewed = a.Clock()
		a.survey(t.Context())
		assert.Equal(t, names, c.take(), "a new survey")
	})
}

func TestSurveyEndsAfterAFailedRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &counting{err: errors.New("no route")}
		a := surveying(t, c)
		assert.Positive(t, a.survey(t.Context()))
		assert.Len(t, c.take(), atOnce)
		a.renewed = a.Clock()
		ctx, end := context.WithCancel(t.Context())
		end()
		a.survey(ctx)
		assert.Empty(t, c.take(), "the wait at the barrier has ended")
	})
}
