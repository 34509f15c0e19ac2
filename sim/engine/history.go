// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"fmt"
	"time"
)

// history records the events of a story, and the first violation of an invariant.
type history struct {
	start      time.Time
	lines      []moment
	failed     chan struct{} // closed at the first violation
	verdict    string
	failedAt   time.Duration
	failedLine int
}

// moment is one line of the history. The line is formatted only if the history is read.
type moment struct {
	at   time.Duration
	who  string
	what string
	args []any
}

func newHistory() history { return history{start: time.Now(), failed: make(chan struct{})} }

// Now returns the true time since the beginning of the story.
func (h *history) Now() time.Duration { return time.Since(h.start) }

// Note adds a line to the history. The caller holds the mutex.
func (h *history) Note(who, what string, args ...any) {
	h.lines = append(h.lines, moment{at: h.Now(), who: who, what: what, args: args})
}

// Violate records a violation of an invariant, and ends the story. The caller holds the
// mutex.
func (h *history) Violate(invariant, what string, args ...any) {
	h.Note("INVARIANT", invariant+": "+what, args...)
	if h.verdict != "" {
		return
	}
	h.failedAt, h.failedLine = h.Now(), len(h.lines)
	h.verdict = "invariant " + invariant + ": " + fmt.Sprintf(what, args...)
	close(h.failed)
}

// Verdict returns the invariant that was violated first, and the instant of the violation. An empty
// verdict means that no invariant was violated.
func (h *history) Verdict() (string, time.Duration) { return h.verdict, h.failedAt }

// Blame puts the culprit in front of the verdict, if a verdict exists. The result reports whether a
// verdict exists.
func (h *history) Blame(culprit string) bool {
	if h.verdict == "" {
		return false
	}
	h.verdict = culprit + ": " + h.verdict
	return true
}

// History returns the whole history as text.
func (h *history) History() string { return format(h.lines) }

// Tail returns the last n lines of the history. After a violation, the line of the
// violation comes last.
func (h *history) Tail(n int) string {
	to := len(h.lines)
	if h.verdict != "" {
		to = h.failedLine
	}
	return format(h.lines[max(0, to-n):to])
}

func format(lines []moment) string {
	var out []byte
	for _, m := range lines {
		out = fmt.Appendf(out, "%14.6fs  %-18s %s\n", m.at.Seconds(), m.who, fmt.Sprintf(m.what, m.args...))
	}
	return string(out)
}
