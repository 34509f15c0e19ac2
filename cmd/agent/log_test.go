// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/url"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/agent/gate"
	"github.com/metaparticle-io/metaparticle/agent/kube"
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

// logged returns the lines that a log writes while f uses the log.
func logged(t *testing.T, f func(*slog.Logger)) (all []string) {
	t.Helper()
	var written bytes.Buffer
	log, out := newLog(&written)
	f(log)
	require.NoError(t, out.flush())
	close(out.queue)
	return strings.Split(strings.TrimSuffix(written.String(), "\n"), "\n")
}

func TestRepeatedFailureIsLoggedEveryTenMinutes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		forbidden := &kube.StatusError{Code: 403, Reason: "Forbidden"}
		all := logged(t, func(log *slog.Logger) {
			for range 21 * 60 {
				log.Debug("lease is out of sight", "lease", "a", "err", fmt.Errorf("read: %w", forbidden))
				<-time.After(time.Second)
			}
		})
		assert.Len(t, all, 3)
		assert.Contains(t, all[0], `"lease":"a"`)
		assert.Contains(t, all[0], "Forbidden", "a person reads why the pod waits")
		assert.Contains(t, all[0], `"level":"WARN"`)
	})
}

func TestRepeatedDebugErrorIsLoggedOncePerLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := logged(t, func(log *slog.Logger) {
			for port := range 3 {
				for _, lease := range []string{"a", "b"} {
					for _, err := range []error{
						&kube.StatusError{Code: 403, Reason: "Forbidden"}, &kube.StatusError{Code: 404, Reason: "NotFound"},
						fmt.Errorf("read tcp 127.0.0.1:%d: %w", port, errors.ErrUnsupported),
					} {
						log.With("shim", "s").Debug("lease is out of sight", "lease", lease, "hold", port, "err", err)
					}
				}
			}
		})
		assert.Len(t, all, 6, "two Leases with three kinds of failures")
	})
}

func TestWarningOfAFailureSaysWhatToDo(t *testing.T) {
	unanswered := func(err error) error {
		return fmt.Errorf("get lease a: %w", &kube.ConnectionError{Address: "10.96.0.1:443", Err: err})
	}
	unverified := func(err error) error { return unanswered(&tls.CertificateVerificationError{Err: err}) }
	for name, c := range map[string]struct {
		err error
		do  string
	}{
		"no egress":         {unanswered(context.DeadlineExceeded), "NetworkPolicy"},
		"hangs up":          {unanswered(io.EOF), "NetworkPolicy"},
		"refused":           {unanswered(&net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}), "NetworkPolicy"},
		"foreign answer":    {unverified(x509.UnknownAuthorityError{}), "proxy or mesh that answers"},
		"another name":      {unverified(x509.HostnameError{Certificate: new(x509.Certificate)}), "proxy or mesh that answers"},
		"clock":             {unverified(x509.CertificateInvalidError{Reason: x509.Expired}), "set the clock"},
		"plain text":        {unanswered(tls.RecordHeaderError{Msg: "first record does not look like a TLS handshake"}), "proxy or mesh that answers"},
		"proxy's page":      {&kube.StatusError{Code: 403}, "proxy or mesh that answers"},
		"no token":          {fmt.Errorf("%w: read token: %w", kube.ErrCredentials, fs.ErrNotExist), "metaparticle-credentials"},
		"no CA":             {unanswered(fmt.Errorf("%w: read CA: %w", kube.ErrCredentials, fs.ErrNotExist)), "metaparticle-credentials"},
		"old token":         {&kube.StatusError{Code: 401, Reason: "Unauthorized"}, "service account"},
		"no right":          {fmt.Errorf("read: %w", &kube.StatusError{Code: 403, Reason: "Forbidden"}), "kubectl metaparticle check"},
		"no Lease":          {&kube.StatusError{Code: 404, Reason: "NotFound"}, "kubectl metaparticle check"},
		"API server fails":  {&kube.StatusError{Code: 500}, ""},
		"too many requests": {&kube.StatusError{Code: 429}, ""},
		"full disk":         {&fs.PathError{Op: "write", Path: "granted", Err: syscall.ENOSPC}, ""},
		"standby is silent": {&net.OpError{Op: "dial", Net: "tcp", Err: os.ErrDeadlineExceeded}, ""},
		"shim has hung up":  {&net.OpError{Op: "write", Net: "unix", Err: syscall.EPIPE}, ""},
	} {
		lines := logged(t, func(log *slog.Logger) { log.Debug("lease is out of sight", "lease", "a", "err", c.err) })
		require.Len(t, lines, 1, name)
		var line struct{ Do, Err string }
		require.NoError(t, json.Unmarshal([]byte(lines[0]), &line), name)
		assert.Contains(t, line.Do, c.do, name)
		assert.Equal(t, c.do == "", line.Do == "", name)
	}
}

// Whoever repairs one cause waits for the next one.
func TestEachKindOfFailureIsLoggedOnce(t *testing.T) {
	all := logged(t, func(log *slog.Logger) {
		for range 3 {
			for _, err := range []error{context.DeadlineExceeded, syscall.ECONNREFUSED, &tls.CertificateVerificationError{Err: x509.UnknownAuthorityError{}}} {
				log.Debug("lease is out of sight", "lease", "a", "err", &kube.ConnectionError{Address: "10.96.0.1:443", Err: err})
			}
		}
	})
	assert.Len(t, all, 2, "no connection, and a foreign answer")
	assert.Contains(t, all[0], "no answer from 10.96.0.1:443: context deadline exceeded")
}

// A watch ends with its pod, and of several standbys only one acquires a Lease.
func TestOrdinaryEndsAndLostRacesAreNotLogged(t *testing.T) {
	assert.Equal(t, []string{""}, logged(t, func(log *slog.Logger) {
		log.Debug("lease is out of sight", "lease", "a", "err", &url.Error{Op: "Get", URL: "leases/a", Err: context.Canceled})
		log.Debug("write was not stored", "lease", "a", "err", fmt.Errorf("write: %w", &kube.StatusError{Code: 409, Reason: "Conflict"}))
	}))
}

func TestLoggerNeverSuppressesRepeatedWarnings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		assert.Len(t, logged(t, func(log *slog.Logger) {
			for range 20 {
				log.Warn("slot is lost", "lease", "a")
			}
		}), 20)
	})
}

func TestFilterOfRepeatedLogLinesUsesBoundedMemory(t *testing.T) {
	p := &passed{at: map[string]time.Time{}}
	now := time.Now()
	for i := range 2 * mostRepeats {
		assert.Equal(t, i < mostRepeats, p.first(fmt.Sprint(i), now))
	}
	assert.Len(t, p.at, mostRepeats)
	assert.True(t, p.first("new", now.Add(repeatAfter)), "old lines make room")
	assert.Len(t, p.at, 1)
}

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
