// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/agent/kube"
)

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
				log.Warn("not renewed", "lease", "a")
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
