// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/agent/gate"
)

// hostile returns the error about a message that any program of a gated container can send.
func hostile(t *testing.T) error {
	t.Helper()
	text := strings.Repeat("\x7f", gate.MaxMessage-100)
	_, _, err := gate.DecodeMessage([]byte(`{"shim":"s","container":"` + text + `","phase":"waiting"}`))
	require.ErrorIs(t, err, gate.ErrMessage)
	return err
}

func TestHostileMessagesNeverFillTheLogsQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		read, stuck := 0, make(chan struct{})
		log, out := newLog(writerFunc(func(p []byte) (int, error) {
			<-stuck
			read += len(p)
			return len(p), nil
		}))
		err := hostile(t)
		for range mostLines / 2 {
			log.Warn("shim refused", "err", err)
			log.With("text", err.Error()).Info(err.Error(), slog.Group("a", slog.String("b", err.Error())))
		}
		close(stuck)
		synctest.Wait()
		require.NoError(t, out.flush())
		close(out.queue)
		assert.Less(t, read, 2<<20, "the memory limit is 64 MiB")
	})
}

func TestLongTextInALogLineIsCut(t *testing.T) {
	var text bytes.Buffer
	log, out := newLog(&text)
	log.Warn("shim refused", "err", hostile(t))
	log.Warn("short", "text", "whole")
	require.NoError(t, out.flush())
	var line struct{ Msg, Err, Text string }
	decoder := json.NewDecoder(&text)
	require.NoError(t, decoder.Decode(&line))
	assert.Equal(t, "shim refused", line.Msg)
	assert.True(t, strings.HasPrefix(line.Err, `malformed message: container "\x7f`), line.Err)
	assert.True(t, strings.HasSuffix(line.Err, "…"), line.Err)
	require.NoError(t, decoder.Decode(&line))
	assert.Equal(t, "whole", line.Text)
}
