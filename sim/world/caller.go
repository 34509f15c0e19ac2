// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package world

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/local"
	"github.com/metaparticle-io/metaparticle/agent/wait"
	"github.com/metaparticle-io/metaparticle/sim/apiserver"
	"github.com/metaparticle-io/metaparticle/sim/engine"
)

// countsOn is the time for which a pod still counts at its barrier after the end of its last call
// (docs/reference/api.md).
const countsOn = 2 * time.Second

// caller is a program that waits at the barrier of its pod through the local API. The program and
// its agent are one process, so they freeze and die together.
type caller struct {
	*Comer
	c *apiserver.Client
}

// run serves the local API, and calls it until the barrier is open, or until ctx ends.
func (p caller) run(ctx context.Context, with wait.BarrierConfig) error {
	random := rand.New(with.Random)
	made, err := local.New(local.Config{
		PodName: with.PodName, PodUID: with.PodUID, Claims: arrivals(p.of.Barrier), LeaseDuration: with.Duration,
		BootID: "boot", Leases: p.c, Run: p.of.Name, Barriers: p.c, Clock: with.Clock,
		Random: func() rand.Source { return rand.NewPCG(random.Uint64(), 0) },
	})
	engine.Must(err)
	stop, served := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(served)
		engine.Must(made.Run(context.WithoutCancel(ctx), stop))
	}()
	defer func() {
		close(stop)
		<-served
	}()
	for ctx.Err() == nil {
		if p.calls(ctx, made.Handler(), random) == http.StatusOK {
			return nil
		}
		p.idles(ctx, random)
	}
	return context.Cause(ctx)
}

// calls sends one request, which waits at the barrier, and returns the HTTP status of the answer.
func (p caller) calls(ctx context.Context, to http.Handler, random *rand.Rand) int {
	longest := 2 * p.of.Duration
	if p.calm() {
		longest = 10 * time.Minute
	}
	path := fmt.Sprintf("http://localhost/v1/barrier/%s/wait?wait=%v", p.of.Barrier.Name, engine.Between(random, time.Second, longest))
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, path, http.NoBody)
	engine.Must(err)
	p.w.Do(func() { p.waits = true })
	answer := httptest.NewRecorder()
	to.ServeHTTP(answer, r)
	p.w.Do(func() {
		if !p.c.Dead {
			p.waits, p.waited = false, p.w.Now()
		}
	})
	return answer.Code
}

// idles waits between two calls. If the wait is longer than [countsOn], the barrier no longer counts
// the pod.
func (p caller) idles(ctx context.Context, random *rand.Rand) {
	pause := engine.Between(random, time.Millisecond, countsOn*3/4)
	if engine.Chance(random, .2) {
		pause = engine.Between(random, time.Second, 6*p.of.Duration)
	}
	for ; pause > 0 && ctx.Err() == nil; pause -= time.Second {
		if p.calm() {
			pause = min(pause, countsOn*3/4)
		}
		select {
		case <-time.After(min(pause, time.Second)):
		case <-ctx.Done():
		}
	}
}

// calm reports whether the world is in quiet times.
func (p caller) calm() (calm bool) {
	p.w.Do(func() { calm = p.w.Calm })
	return calm
}
