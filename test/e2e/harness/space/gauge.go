// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package space

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/metaparticle-io/metaparticle/test/e2e/harness/cluster"
)

const (
	// gaugePeriod is the time from one write of a gauge to the next. Four writes per second
	// are a small part of the requests of all tests.
	gaugePeriod = 250 * time.Millisecond
	// stalls is the duration above which a write counts as stalled. The bound is low, because
	// an agent with a short lease gives its own requests less than a second.
	stalls = 500 * time.Millisecond
)

// gauge measures for how long the API server stores no write. A busy machine can stall etcd
// for seconds, and no pod can hand over its slot meanwhile.
type gauge struct {
	mu      sync.Mutex
	stalled []stall
	// began is the beginning of the write under way; zero between two writes.
	began time.Time
}

// stall is one stalled write, from its beginning until its answer.
type stall struct{ from, until time.Time }

// writes is the gauge of all spaces.
var writes gauge

// StartGauge begins to measure for how long the API server stores no write ([Stalled]). The
// measurement writes a ConfigMap. The returned function ends the measurement, and deletes the ConfigMap.
func StartGauge(ctx context.Context) (stop func(), err error) {
	maps := cluster.Client.CoreV1().ConfigMaps(metav1.NamespaceDefault)
	empty := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{GenerateName: "e2e-gauge-"}}
	written, err := maps.Create(ctx, empty, metav1.CreateOptions{})
	if err != nil {
		return nil, fmt.Errorf("make the gauge of stalled writes: %w", err)
	}
	running, cancel := context.WithCancel(ctx)
	var group sync.WaitGroup
	group.Go(func() {
		ticker := time.NewTicker(gaugePeriod)
		defer ticker.Stop()
		for running.Err() == nil {
			writes.begin(time.Now())
			patch := `{"data":{"now":"` + time.Now().Format(time.RFC3339Nano) + `"}}`
			// The gauge measures only how long a request takes, so the request's error does not
			// matter.
			_, _ = maps.Patch(running, written.Name, types.MergePatchType, []byte(patch), metav1.PatchOptions{})
			writes.end(time.Now())
			select {
			case <-ticker.C:
			case <-running.Done():
			}
		}
	})
	return func() {
		cancel()
		group.Wait()
		bounded, cancel := context.WithTimeout(ctx, Soon)
		defer cancel()
		_ = maps.Delete(bounded, written.Name, metav1.DeleteOptions{})
	}, nil
}

// Stalled returns for how long writes have stalled since an instant. Writes also stall if the
// machine gives the test's process no processor time.
func Stalled(since time.Time) time.Duration { return writes.since(since, time.Now()) }

// begin notes the beginning of a write.
func (g *gauge) begin(now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.began = now
}

// end notes the end of a write. If the write stalled, end adds the write to the stalled writes.
func (g *gauge) end(now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if now.Sub(g.began) > stalls {
		g.stalled = append(g.stalled, stall{g.began, now})
	}
	g.began = time.Time{}
}

// mostStall is the longest outage that ends no hold of the default lease duration.
const mostStall = 9 * time.Second

// longest returns the longest stalled write that began or ended between two instants.
func (g *gauge) longest(from, until time.Time) (longest time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, one := range g.stalled {
		if one.until.After(from) && one.from.Before(until) {
			longest = max(longest, one.until.Sub(one.from))
		}
	}
	return longest
}

func (g *gauge) since(since, now time.Time) (total time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	all := g.stalled
	if !g.began.IsZero() && now.Sub(g.began) > stalls {
		all = append(slices.Clip(all), stall{g.began, now})
	}
	for _, one := range all {
		from := one.from
		if from.Before(since) {
			from = since
		}
		total += max(0, one.until.Sub(from))
	}
	return total
}
