// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package podgate

import (
	"context"
	"sync"

	"github.com/metaparticle-io/metaparticle/agent/gate"
)

// Container is the container name in the reports of a stand-in. No container has this name,
// because a container's name cannot contain a dot.
const Container = "pod.all"

// mailbox delivers the last report to a reader that may be slow. The reader may miss reports,
// but never gets an older report after a newer report.
type mailbox struct {
	reports chan gate.Report
	news    chan struct{}

	mu   sync.Mutex
	last gate.Report
	// puts is the number of the last report. The field "taken" is the number of the last report
	// that the reader has received.
	puts, taken int
}

func newMailbox() *mailbox {
	return &mailbox{reports: make(chan gate.Report), news: make(chan struct{}, 1)}
}

func (m *mailbox) put(r gate.Report) {
	m.mu.Lock()
	m.last = r
	m.puts++
	m.mu.Unlock()
	select {
	case m.news <- struct{}{}:
	default:
	}
}

// deliver delivers reports until ctx ends.
func (m *mailbox) deliver(ctx context.Context) {
	for {
		m.mu.Lock()
		r, n := m.last, m.puts
		out := m.reports
		if n == m.taken {
			out = nil
		}
		m.mu.Unlock()
		select {
		case out <- r:
			m.mu.Lock()
			m.taken = n
			m.mu.Unlock()
		case <-m.news:
		case <-ctx.Done():
			return
		}
	}
}
