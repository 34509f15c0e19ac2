// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package space

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

const (
	// gaugePeriod is the time from one write of a gauge to the next. Four writes per second
	// are a small part of the requests of one test.
	gaugePeriod = 250 * time.Millisecond
	// stalls is the duration above which a write counts as stalled. The bound is low, because
	// an agent with a short lease gives its own requests less than a second.
	stalls = 500 * time.Millisecond
)

// Gauge measures for how long the API server stores no write. A busy machine can stall etcd
// for seconds, and no pod can hand over its slot meanwhile.
type Gauge struct {
	mu      sync.Mutex
	stalled []stall
	// began is the beginning of the write under way; zero between two writes.
	began time.Time
}

// stall is one stalled write, from its beginning until its answer.
type stall struct{ from, until time.Time }

// NewGauge starts a gauge, which writes into a ConfigMap of the space until the test ends.
func NewGauge(s *Space) *Gauge {
	s.Helper()
	maps := s.Client.CoreV1().ConfigMaps(s.Namespace)
	empty := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{GenerateName: "gauge-"}}
	gauge, err := maps.Create(s.Context(), empty, metav1.CreateOptions{})
	require.NoError(s, err)
	g := &Gauge{}
	ctx, cancel := context.WithCancel(context.Background())
	var group sync.WaitGroup
	s.Cleanup(func() { cancel(); group.Wait() })
	group.Go(func() {
		ticker := time.NewTicker(gaugePeriod)
		defer ticker.Stop()
		for ctx.Err() == nil {
			g.begin(time.Now())
			patch := `{"data":{"now":"` + time.Now().Format(time.RFC3339Nano) + `"}}`
			// The gauge measures only how long a request takes, so the request's error does not
			// matter.
			_, _ = maps.Patch(ctx, gauge.Name, types.MergePatchType, []byte(patch), metav1.PatchOptions{})
			g.end(time.Now())
			select {
			case <-ticker.C:
			case <-ctx.Done():
			}
		}
	})
	return g
}

// begin notes the beginning of a write.
func (g *Gauge) begin(now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.began = now
}

// end notes the end of a write. If the write stalled, end adds the write to the stalled writes.
func (g *Gauge) end(now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if now.Sub(g.began) > stalls {
		g.stalled = append(g.stalled, stall{g.began, now})
	}
	g.began = time.Time{}
}

// Stalled returns for how long the gauge's writes have stalled since an instant. These writes also
// stall if the machine gives the test's process no processor time.
func (g *Gauge) Stalled(since time.Time) (total time.Duration) {
	now := time.Now()
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
