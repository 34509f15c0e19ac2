// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package show

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/kube"
)

// Metrics are an agent's, in Prometheus' text format. This package writes the format by
// hand: the client library alone is larger than the agent.
type Metrics struct {
	clock func() time.Duration

	// longest is the longest time between two looks of the loop.
	longest time.Duration

	mu       sync.Mutex
	deadline time.Duration // zero while nothing is held
	last     time.Duration // when the loop last looked
	holds    int
	ended    map[string]int
	renewals map[string]int
	writes   map[string]int
}

// NewMetrics returns metrics that the loop reaches within longest, time after time.
func NewMetrics(clock func() time.Duration, longest time.Duration) *Metrics {
	return &Metrics{
		clock: clock, last: clock(), longest: longest,
		ended: map[string]int{}, renewals: map[string]int{}, writes: map[string]int{},
	}
}

func (m *Metrics) change(f func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f()
}

// Looked notes that the loop looks at the clock.
func (m *Metrics) Looked() { m.change(func() { m.last = m.clock() }) }

// Acquired counts a hold that begins.
func (m *Metrics) Acquired() { m.change(func() { m.holds++ }) }

// Holding notes the deadline of the hold; zero for none.
func (m *Metrics) Holding(deadline time.Duration) { m.change(func() { m.deadline = deadline }) }

// Ends counts a hold that ends for the reason.
func (m *Metrics) Ends(reason string) { m.change(func() { m.ended[reason]++ }) }

// Renewed counts a renewal, by its answer.
func (m *Metrics) Renewed(err error) { m.change(func() { m.renewals[resultOf(err)]++ }) }

// Wrote counts an acquiring or releasing write, by its answer.
func (m *Metrics) Wrote(err error) { m.change(func() { m.writes[resultOf(err)]++ }) }

// resultOf returns what is proven about a write, in a word for people.
func resultOf(err error) string {
	switch {
	case err == nil:
		return "stored"
	case errors.Is(err, kube.ErrConflict):
		return "conflict"
	case kube.Refused(err):
		return "refused"
	}
	return "unanswered"
}

// Text returns the exposition.
func (m *Metrics) Text() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var b strings.Builder
	family := func(name, kind, help string) {
		fmt.Fprintf(&b, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, kind)
	}
	counts := func(name, label string, by map[string]int) {
		for _, value := range slices.Sorted(maps.Keys(by)) {
			fmt.Fprintf(&b, "%s{%s=%q} %d\n", name, label, value, by[value])
		}
	}
	holding, left := 0, 0.0
	if m.deadline != 0 {
		holding, left = 1, (m.deadline - m.clock()).Seconds()
	}
	family("metaparticle_holding", "gauge", "1 while this pod holds all of its slots.")
	fmt.Fprintf(&b, "metaparticle_holding %d\n", holding)
	family("metaparticle_deadline_seconds", "gauge", "Time until the child must be dead, unless a renewal succeeds; 0 while nothing is held.")
	fmt.Fprintf(&b, "metaparticle_deadline_seconds %.3f\n", left)
	family("metaparticle_transitions_total", "counter", "Times that this pod acquired its slots.")
	fmt.Fprintf(&b, "metaparticle_transitions_total %d\n", m.holds)
	family("metaparticle_holds_ended_total", "counter", "Holds that ended, by reason.")
	counts("metaparticle_holds_ended_total", "reason", m.ended)
	family("metaparticle_renewals_total", "counter", "Renewals of Leases, by what became of them.")
	counts("metaparticle_renewals_total", "result", m.renewals)
	family("metaparticle_writes_total", "counter", "Acquiring and releasing writes of Leases, by what became of them.")
	counts("metaparticle_writes_total", "result", m.writes)
	return b.String()
}

// Healthy reports whether the loop still looks at the clock. Three times the longest
// time between two looks is no hiccup.
func (m *Metrics) Healthy() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.clock()-m.last < 3*m.longest
}

// Handler serves /metrics and /healthz.
func (m *Metrics) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; version=0.0.4")
		_, _ = w.Write([]byte(m.Text()))
	})
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		if !m.Healthy() {
			http.Error(w, "the loop stands still", http.StatusServiceUnavailable)
			return
		}
		_, _ = w.Write([]byte("ok\n"))
	})
	return mux
}
