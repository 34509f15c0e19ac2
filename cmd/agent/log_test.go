// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"log/slog"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestLoggerDoesNotWaitForAFullPipe(t *testing.T) {
	reader, writer, err := os.Pipe()
	require.NoError(t, err)
	defer reader.Close()
	log, out := newLog(writer)
	logged := make(chan struct{})
	go func() {
		defer close(logged)
		for i := range 10_000 {
			log.Info("renewed", "number", i, "filler", strings.Repeat("x", 100))
		}
	}()
	select {
	case <-logged:
	case <-time.After(time.Minute):
		require.FailNow(t, "whoever logs waits for the reader")
	}

	// Now the test reads the log. The log has the lines that waited, a line with the number of
	// dropped lines, and the new lines.
	go func() {
		for out.flush() != nil {
		}
		log.Info("the last")
		for out.flush() != nil {
		}
		writer.Close()
	}()
	var told []string
	for s := bufio.NewScanner(reader); s.Scan(); {
		told = append(told, s.Text())
	}
	require.NotEmpty(t, told)
	assert.Contains(t, told[len(told)-1], "the last")
	whole := strings.Join(told, "\n")
	assert.Contains(t, whole, `"number":0,`)
	assert.Contains(t, whole, "lines were dropped")
}

func TestUnreadLogDelaysProcessEndOnlyOneSecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stuck := make(chan struct{})
		out := newLines(writerFunc(func(p []byte) (int, error) { <-stuck; return len(p), nil }))
		slog.New(slog.NewJSONHandler(out, nil)).Info("the last words")
		began := time.Now()
		assert.Error(t, out.flush())
		assert.Equal(t, parting, time.Since(began))
		close(stuck)
		close(out.queue)
	})
}

type writerFunc func(p []byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }
