// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package status

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/api"
)

// Metrics are the metrics of an agent, in the text format of Prometheus. This package writes
// the format by hand, because the client library of Prometheus is larger than the agent.
type Metrics struct {
	clock func() time.Duration

	// longest is the longest sleep of the agent's loop. The loop reads the clock before each sleep.
	longest time.Duration
	// tight is the least time that must be left until the deadline when a renewal moves that
	// deadline. If less is left, the renewal counts as late.
	tight    time.Duration
	workload string
	// supported reports that the pod wants supporters while it holds.
	supported bool

	mu       sync.Mutex
	deadline time.Duration // zero while the pod does not hold
	// supporters is the number of standbys whose promises the hold could have.
	supporters int
	last       time.Duration // the instant at which the loop last read the clock
	vacant     bool
	since      time.Duration // the instant since which vacant is true
	holds      int
	ended      map[string]int
	renewals   map[string]int
	renewing   time.Duration // the sum of the durations of all renewals
	late       int
	writes     map[string]int
}

// NewMetrics returns the metrics of a pod of the workload. The argument "longest" is the
// longest sleep of the agent's loop, which reads the clock before each sleep.
//
// The fields Renew and RenewDeadline of [api.Budget] count from the instant at which the last
// stored renewal was sent. The next renewal is due after Renew, and the drain begins after
// RenewDeadline. A renewal counts as late if the renewal is stored in the second half of the time
// between these two instants.
func NewMetrics(clock func() time.Duration, longest time.Duration, workload string, b api.Budget) *Metrics {
	return &Metrics{
		clock: clock, last: clock(), longest: longest, workload: workload, supported: b.Supported > 0,
		tight: b.Deadline() - (b.Renew+b.RenewDeadline)/2,
		ended: map[string]int{}, renewals: map[string]int{}, writes: map[string]int{},
	}
}

func (m *Metrics) change(f func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f()
}

// Looked remembers that the loop reads the clock now.
func (m *Metrics) Looked() { m.change(func() { m.last = m.clock() }) }

// Acquired counts a hold that begins.
func (m *Metrics) Acquired() { m.change(func() { m.holds++ }) }

// Holding remembers the deadline of the hold; zero for none. A renewal moves the deadline, whether
// an answer or a read has shown that the renewal is stored. So Holding counts the late renewals. Promises of
// supporters move the deadline, too: while they come in time, the application is not about to stop.
func (m *Metrics) Holding(deadline time.Duration) {
	m.change(func() {
		if m.deadline != 0 && deadline > m.deadline && m.deadline-m.clock() < m.tight {
			m.late++
		}
		m.deadline, m.vacant = deadline, false
		if deadline == 0 {
			m.supporters = 0
		}
	})
}

// Supporters remembers how many standbys could support the hold by their promises ([api.Supporters]).
func (m *Metrics) Supporters(n int) { m.change(func() { m.supporters = n }) }

// Vacant stores whether the pod waits for slots that no living pod holds.
func (m *Metrics) Vacant(vacant bool) {
	m.change(func() {
		if vacant && !m.vacant {
			m.since = m.clock()
		}
		m.vacant = vacant
	})
}

// Ends counts a hold that ends for the reason.
func (m *Metrics) Ends(reason string) { m.change(func() { m.ended[reason]++ }) }

// Renewed counts a renewal by its result, and adds its duration to the sum. The argument "sent" is
// the instant at which the renewal was sent.
func (m *Metrics) Renewed(sent time.Duration, err error) {
	m.change(func() {
		m.renewals[resultOf(err)]++
		m.renewing += m.clock() - sent
	})
}

// Wrote counts an acquiring or releasing write, by its result.
func (m *Metrics) Wrote(err error) { m.change(func() { m.writes[resultOf(err)]++ }) }

// resultOf returns a word for the outcome of a write.
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

// family describes one metric. A metric without a label has one value. A metric with a label has a
// count for each value of the label. The file docs/reference/metrics.md is generated from the list
// [families].
type family struct {
	name, kind, label, help string

	// value returns an empty text if the pod has no such metric now.
	value  func(*Metrics) string
	counts func(*Metrics) map[string]int
}

var families = []family{
	{
		name: "metaparticle_holding", kind: "gauge",
		help: "1 while this pod holds all of its slots.",
		value: func(m *Metrics) string {
			if m.deadline == 0 {
				return "0"
			}
			return "1"
		},
	},
	{
		name: "metaparticle_deadline_seconds", kind: "gauge",
		help: "Time until the child must be dead, unless a renewal succeeds; 0 while nothing is held.",
		value: func(m *Metrics) string {
			if m.deadline == 0 {
				return "0.000"
			}
			return fmt.Sprintf("%.3f", (m.deadline - m.clock()).Seconds())
		},
	},
	{
		name: "metaparticle_transitions_total", kind: "counter",
		help:  "Number of times that this pod acquired its slots.",
		value: func(m *Metrics) string { return strconv.Itoa(m.holds) },
	},
	{
		name: "metaparticle_holds_ended_total", kind: "counter", label: "reason",
		help:   "Holds that ended, by reason.",
		counts: func(m *Metrics) map[string]int { return m.ended },
	},
	{
		name: "metaparticle_renewals_total", kind: "counter", label: "result",
		help:   "Renewals of Leases, by result.",
		counts: func(m *Metrics) map[string]int { return m.renewals },
	},
	{
		name: "metaparticle_renewals_late_total", kind: "counter",
		help:  "Renewals of Leases that were stored late, in the second half of the time between the usual renewal and the drain. Promises of supporters that come as late count, too.",
		value: func(m *Metrics) string { return strconv.Itoa(m.late) },
	},
	{
		name: "metaparticle_renewal_seconds_total", kind: "counter",
		help:  "Time that renewals took, each from its sending to the answer, or to the end of the wait for an answer.",
		value: func(m *Metrics) string { return fmt.Sprintf("%.3f", m.renewing.Seconds()) },
	},
	{
		name: "metaparticle_supporters", kind: "gauge",
		help: "Number of standbys that support this holder in an outage of the API server; 0 if one that its Lease names has not answered for twelve renewals, because a holder needs the promises of all. Only a holder with metaparticle.io/failsafe, without alone, has this metric.",
		value: func(m *Metrics) string {
			if !m.supported || m.deadline == 0 {
				return ""
			}
			return strconv.Itoa(m.supporters)
		},
	},
	{
		name: "metaparticle_vacant_seconds", kind: "gauge",
		help: "Time for which this pod has been ready to run under a slot that no living pod holds; 0 while a pod holds. A paused slot does not count, and neither does a slot about which the pod has heard nothing for a lease duration.",
		value: func(m *Metrics) string {
			if !m.vacant {
				return "0.000"
			}
			return fmt.Sprintf("%.3f", (m.clock() - m.since).Seconds())
		},
	},
	{
		name: "metaparticle_workload_info", kind: "gauge", label: "workload",
		help:   "1, with the workload of this pod.",
		counts: func(m *Metrics) map[string]int { return map[string]int{m.workload: 1} },
	},
	{
		name: "metaparticle_writes_total", kind: "counter", label: "result",
		help:   "Acquiring and releasing writes of Leases, by result.",
		counts: func(m *Metrics) map[string]int { return m.writes },
	},
}

// Text returns the metrics in Prometheus' text format.
func (m *Metrics) Text() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var b strings.Builder
	for _, f := range families {
		fmt.Fprintf(&b, "# HELP %s %s\n# TYPE %s %s\n", f.name, f.help, f.name, f.kind)
		if f.value != nil {
			if value := f.value(m); value != "" {
				fmt.Fprintf(&b, "%s %s\n", f.name, value)
			}
			continue
		}
		by := f.counts(m)
		for _, value := range slices.Sorted(maps.Keys(by)) {
			fmt.Fprintf(&b, "%s{%s=%q} %d\n", f.name, f.label, value, by[value])
		}
	}
	return b.String()
}

// Healthy reports whether the loop still reads the clock. If the time since the last read is at
// least three times the field "longest", the loop is blocked, and not only late.
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
