// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"
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
