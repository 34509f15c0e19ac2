// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/api"
)

const (
	// mostLines bounds the number of lines that wait. A busy minute has about this number of lines.
	// With half a kilobyte each, the lines take 128 KiB of memory.
	mostLines = 256
	// parting bounds the time for which an ending agent waits until its last lines are written.
	// If the container runtime reads the log, the lines are written within milliseconds.
	parting = time.Second
	// longestText bounds each text of a line. Any program of a gated container can send messages of
	// 48 KiB, and an error about such a message quotes the message. Without the bound, the lines that
	// wait could exceed the memory limit of 64 MiB.
	longestText = 1 << 10
)

// shorten cuts each text that exceeds [longestText]. The texts are the message of a line, and the
// texts and errors in its attributes.
func shorten(_ []string, a slog.Attr) slog.Attr {
	text := ""
	switch of := a.Value.Any().(type) {
	case string:
		text = of
	case error:
		text = of.Error()
	}
	if len(text) > longestText {
		return slog.String(a.Key, strings.ToValidUTF8(text[:longestText], "")+"…")
	}
	return a
}

// lines is a writer that writes whole lines in a separate goroutine. The writer drops lines for
// which the queue has no room. If the container runtime does not read (a full disk, a stopped
// containerd), the pipe behind stderr fills up. No renewal may wait for that pipe.
type lines struct {
	to      io.Writer
	queue   chan line
	dropped atomic.Int64
}

// line is one line of the log, or a request of the method flush. A request has no text, but a
// channel that is closed once all earlier lines are written.
type line struct {
	text    []byte
	written chan<- struct{}
}

// newLines returns a writer, and starts the goroutine of the writer. The goroutine lives as long as
// the process.
func newLines(to io.Writer) *lines {
	l := &lines{to: to, queue: make(chan line, mostLines)}
	go l.run()
	return l
}

// Write never blocks, and never fails. A log handler calls Write once for each line.
func (l *lines) Write(p []byte) (int, error) {
	select {
	case l.queue <- line{text: bytes.Clone(p)}:
	default:
		l.dropped.Add(1)
	}
	return len(p), nil
}

func (l *lines) run() {
	for next := range l.queue {
		if n := l.dropped.Swap(0); n > 0 {
			slog.New(slog.NewJSONHandler(l.to, nil)).Warn("lines were dropped: nobody read the log", "lines", n)
		}
		if next.written != nil {
			close(next.written)
			continue
		}
		_, _ = l.to.Write(next.text)
	}
}

// flush waits until every line is written. If that takes longer than [parting], flush returns an
// error.
func (l *lines) flush() error {
	late := time.After(parting)
	written := make(chan struct{})
	select {
	case l.queue <- line{written: written}:
	case <-late:
		return fmt.Errorf("flush log: %d lines wait", len(l.queue))
	}
	select {
	case <-written:
		return nil
	case <-late:
		return fmt.Errorf("flush log: not written within %v", parting)
	}
}

const (
	// repeatAfter is the time after which the log may have the same failure again.
	repeatAfter = 10 * time.Minute
	// mostRepeats bounds the number of remembered lines. Each slot has a few lines, and a pod has at
	// most some dozens of slots. If the handler has no room to remember a new failure, the log does
	// not get that failure.
	mostRepeats = 256
)

// newLog returns a log whose lines never block the caller, and the writer of that log.
func newLog(to io.Writer) (*slog.Logger, *lines) {
	out := newLines(to)
	json := slog.NewJSONHandler(out, &slog.HandlerOptions{Level: slog.LevelDebug, ReplaceAttr: shorten})
	return slog.New(repeats{json, &passed{at: map[string]time.Time{}}}), out
}

// repeats is a log handler for lines of the level Debug. The agent uses that level for failures that
// can occur at each attempt, such as a renewal in an outage of the API server. The first such line is a
// warning, from which a person learns why a pod waits. Its repetitions, and failures that belong to
// an ordinary life, are dropped.
type repeats struct {
	slog.Handler
	passed *passed
}

// passed maps the text that [sameness] returns for a line to the instant at which the log got the
// line.
type passed struct {
	mu sync.Mutex
	at map[string]time.Time
}

// Handle passes the record to the log. But Handle drops a failure that is ordinary, that repeats a
// recent one, or that has no room in the memory of recent failures.
func (h repeats) Handle(ctx context.Context, r slog.Record) error {
	if r.Level == slog.LevelDebug {
		if ordinary(r) || !h.passed.first(sameness(r), r.Time) {
			return nil
		}
		r.Level = slog.LevelWarn
		r.Attrs(func(a slog.Attr) bool {
			err, _ := a.Value.Any().(error)
			do := advice(err)
			if do != "" {
				r.AddAttrs(slog.String("do", do))
			}
			return do == ""
		})
	}
	return h.Handler.Handle(ctx, r)
}

// advice returns what a person can do about a request that the API server has not answered, or has refused; empty if there
// is nothing to say. Whoever has just gated a workload often sees this line first. Errors of disks and of other pods get
// no advice: they also count as errors of the network ([net.Error]).
func advice(err error) (do string) {
	const network = api.Repository + "docs/operate/network.md#egress-of-gated-pods"
	_, unanswered := errors.AsType[*kube.ConnectionError](err)
	invalid, isInvalid := errors.AsType[x509.CertificateInvalidError](err)
	_, unverified := errors.AsType[*tls.CertificateVerificationError](err)
	_, noTLS := errors.AsType[tls.RecordHeaderError](err)
	status, refused := errors.AsType[*kube.StatusError](err)
	switch {
	case errors.Is(err, kube.ErrCredentials):
		return "look at the volume " + api.CredentialsVolume + " of the pod (kubectl describe pod): the kubelet keeps the token and the CA there"
	case unanswered && isInvalid && invalid.Reason == x509.Expired:
		return "set the clock of the node: the certificate of the API server is not valid at its time"
	case unanswered && (unverified || noTLS):
		return "exclude the API server from the proxy or mesh that answers in its place: " + network
	case unanswered:
		return "let this pod connect to the API server, if that is not away: a NetworkPolicy, mesh or proxy may forbid it: " + network
	case !refused:
		return ""
	case status.Reason == "" && status.Code < 500 && status.Code != http.StatusTooManyRequests:
		return "exclude the API server from the proxy or mesh that answers in its place, because each refusal of the API server has a reason: " + network
	case errors.Is(err, kube.ErrUnauthorized):
		return "look whether the pod's service account was deleted and made again, and whether the clocks of the nodes agree: the API server refuses the pod's token"
	case errors.Is(err, kube.ErrForbidden), errors.Is(err, kube.ErrNotFound):
		return "if it lasts, kubectl metaparticle check: enroll makes the Leases and the rights to them within seconds"
	}
	return ""
}

// ordinary reports whether the agent itself has ended the attempt, or another writer was first.
func ordinary(r slog.Record) (is bool) {
	r.Attrs(func(a slog.Attr) bool {
		err, _ := a.Value.Any().(error)
		is = is || errors.Is(err, context.Canceled) || errors.Is(err, kube.ErrConflict)
		return true
	})
	return is
}

// WithAttrs returns a handler whose lines have further attributes.
func (h repeats) WithAttrs(attrs []slog.Attr) slog.Handler {
	return repeats{h.Handler.WithAttrs(attrs), h.passed}
}

// WithGroup returns a handler whose attributes belong to a group.
func (h repeats) WithGroup(name string) slog.Handler {
	return repeats{h.Handler.WithGroup(name), h.passed}
}

// first reports whether a line may pass, and stores the instant of a line that may pass. The line
// may not pass if the same line has passed within [repeatAfter], or if the map has no room.
func (p *passed) first(line string, now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.at) >= mostRepeats {
		for other, at := range p.at {
			if now.Sub(at) >= repeatAfter {
				delete(p.at, other)
			}
		}
	}
	at, known := p.at[line]
	if known && now.Sub(at) < repeatAfter || !known && len(p.at) >= mostRepeats {
		return false
	}
	p.at[line] = now
	return true
}

// sameness returns a text that equal records have in common: the message and the attributes. Of an
// error of the API server, only the status counts. Of other errors only the advice counts, because the texts of
// network errors have changing ports. The numbers of holds and the attributes of [slog.Logger.With]
// do not count, either.
func sameness(r slog.Record) string {
	var text strings.Builder
	text.WriteString(r.Message)
	r.Attrs(func(a slog.Attr) bool {
		err, isError := a.Value.Any().(error)
		var status *kube.StatusError
		switch {
		case a.Key == "hold":
		case isError && !errors.As(err, &status):
			text.WriteString(" " + advice(err))
		case isError:
			text.WriteString(" " + strconv.Itoa(status.Code) + status.Reason)
		default:
			text.WriteString(" " + a.Value.String())
		}
		return true
	})
	return text.String()
}
