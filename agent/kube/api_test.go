// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"context"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// realAPI returns a client of a real API server; all other tests use a fake one.
// The namespace must have a Lease called "client" without a holder. The service account
// of the token must have the agent's rights on that Lease:
//
//	METAPARTICLE_API=https://HOST:PORT METAPARTICLE_API_NAMESPACE=… \
//	METAPARTICLE_API_TOKEN=FILE METAPARTICLE_API_CA=FILE go test ./agent/kube -run Real
func realAPI(t *testing.T) (*Client, Config) {
	t.Helper()
	text := os.Getenv("METAPARTICLE_API")
	if text == "" {
		t.Skip("METAPARTICLE_API names no API server")
	}
	address, err := url.Parse(text)
	require.NoError(t, err)
	config := Config{
		Namespace: os.Getenv("METAPARTICLE_API_NAMESPACE"), Host: address.Hostname(), Port: address.Port(),
		TokenFile: os.Getenv("METAPARTICLE_API_TOKEN"), CAFile: os.Getenv("METAPARTICLE_API_CA"), Version: "test",
	}
	client, err := New(config)
	require.NoError(t, err)
	t.Cleanup(client.Close)
	return client, config
}

func TestRealAPIServerRefusesUpdatesFromStaleReads(t *testing.T) {
	client, _ := realAPI(t)
	read, err := client.GetLease(t.Context(), "client")
	require.NoError(t, err)

	next := read.Clone()
	next.RenewTime = time.Now()
	next.Annotations = map[string]string{"metaparticle.io/hold": time.Now().String()}
	stored, err := client.UpdateLease(t.Context(), next)
	require.NoError(t, err)
	assert.NotEqual(t, read.ResourceVersion, stored.ResourceVersion)
	assert.WithinDuration(t, next.RenewTime, stored.RenewTime, time.Microsecond)
	assert.Equal(t, read.Labels, stored.Labels)
	assert.Equal(t, read.metadata["finalizers"], stored.metadata["finalizers"])

	_, err = client.UpdateLease(t.Context(), stored)
	require.ErrorIs(t, err, ErrUnchanged, "the API server must not store equal bytes")
	_, err = client.UpdateLease(t.Context(), next)
	require.ErrorIs(t, err, ErrConflict, "the resource version is old")
	other := stored.Clone()
	other.UID = "00000000-0000-0000-0000-000000000000"
	_, err = client.UpdateLease(t.Context(), other)
	require.ErrorIs(t, err, ErrConflict, "the uid is another Lease's")
	assert.True(t, Refused(err))
	_, err = client.GetLease(t.Context(), "another")
	require.ErrorIs(t, err, ErrForbidden, "the account has no right to read this Lease")
}

func TestRealAPIServerResumesWatchFromResourceVersion(t *testing.T) {
	client, _ := realAPI(t)
	read, err := client.GetLease(t.Context(), "client")
	require.NoError(t, err)
	first := read.Clone()
	first.RenewTime = time.Now()
	first, err = client.UpdateLease(t.Context(), first)
	require.NoError(t, err)

	// A watch from the resourceVersion before the first write reports both writes.
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	var seen []string
	err = client.WatchLease(ctx, "client", read.ResourceVersion, func(e WatchEvent) {
		assert.Equal(t, Modified, e.Type)
		seen = append(seen, e.ResourceVersion)
		if len(seen) > 1 {
			cancel()
			return
		}
		second := e.Lease.Clone()
		second.RenewTime = time.Now()
		stored, err := client.UpdateLease(ctx, second)
		if assert.NoError(t, err) {
			defer func() { read = stored }()
		}
	})
	require.ErrorIs(t, err, context.Canceled)
	assert.Equal(t, []string{first.ResourceVersion, read.ResourceVersion}, seen)
}

func TestWatchWithoutResourceVersionReportsTheLeaseFirst(t *testing.T) {
	client, _ := realAPI(t)
	read, err := client.GetLease(t.Context(), "client")
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	var seen []WatchEvent
	err = client.WatchLease(ctx, "client", "", func(e WatchEvent) {
		seen = append(seen, e)
		cancel()
	})
	require.ErrorIs(t, err, context.Canceled)
	require.NotEmpty(t, seen)
	assert.Equal(t, Added, seen[0].Type)
	assert.Equal(t, read.ResourceVersion, seen[0].ResourceVersion)
}

func TestClientRecognizesRefusalsOfARealAPIServer(t *testing.T) {
	client, config := realAPI(t)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	require.ErrorIs(t, client.WatchLease(ctx, "client", "1", func(WatchEvent) {}), ErrGone)
	require.ErrorIs(t, client.WatchLease(ctx, "another", "", func(WatchEvent) {}), ErrForbidden)
	_, err := client.PatchPodStatus(ctx, "nobody", []byte(`{}`))
	require.ErrorIs(t, err, ErrNotFound)
	require.NoError(t, client.CreateEvent(ctx, Event{
		PodName: "nobody", PodUID: "u", Type: Normal, Reason: "Tested", Message: "Nothing happened.", Time: time.Now(),
	}))

	config.TokenFile = filepath.Join(t.TempDir(), "token")
	write(t, config.TokenFile, "not a token")
	stranger, err := New(config)
	require.NoError(t, err)
	_, err = stranger.GetLease(ctx, "client")
	require.ErrorIs(t, err, ErrUnauthorized)
}
