// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/meta/testrestmapper"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/metaparticle-io/metaparticle/listing"
)

func interrupted(t *testing.T) int {
	t.Helper()
	var counted dto.Metric
	require.NoError(t, interruptions.Write(&counted))
	return int(counted.GetCounter().GetValue())
}

// After the end of a term the process of the replica must not end, because the replica still
// answers the API server's calls.
func TestWebhookReplicaSeeksElectionAfterEachTerm(t *testing.T) {
	for _, message := range []string{
		"leader election lost",
		"make the manager of a term: connection refused",
		"failed to wait for enroll caches to sync kind source: *v1.Pod: timed out waiting for cache to be synced",
	} {
		t.Run(message, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				began, before := time.Now(), interrupted(t)
				var at []time.Duration
				terms := newTerms(nil, settings{}, slog.New(slog.DiscardHandler))
				terms.term = func(ctx context.Context) error {
					at = append(at, time.Since(began))
					switch len(at) {
					case 6: // After a long term, the next wait is short again.
						<-time.After(time.Minute)
					case 7:
						cancel()
						<-ctx.Done()
						return nil
					}
					return errors.New(message)
				}
				require.NoError(t, terms.Start(ctx))
				assert.Equal(t, []time.Duration{
					0, 1 * time.Second, 3 * time.Second, 7 * time.Second, 15 * time.Second, 23 * time.Second, 84 * time.Second,
				}, at)
				assert.Equal(t, 6, interrupted(t)-before)
				assert.False(t, terms.NeedLeaderElection())
			})
		})
	}
}

// A replica that can never enroll must not appear healthy.
func TestWebhookReplicaEndsIfItCanNeverEnroll(t *testing.T) {
	terms := newTerms(nil, settings{}, slog.New(slog.DiscardHandler))
	broken := errors.New("no such label")
	terms.options = func(settings) (ctrl.Options, error) { return ctrl.Options{}, broken }
	require.ErrorIs(t, terms.Start(t.Context()), broken)
}

// A real manager gives up when its caches do not fill, but the replica must go on.
func TestWebhookReplicaSurvivesFailedCacheSync(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "the server is overloaded", http.StatusServiceUnavailable)
	}))
	defer server.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	before := interrupted(t)
	terms := newTerms(&rest.Config{Host: server.URL}, settings{}, slog.New(slog.DiscardHandler))
	terms.options = func(s settings) (ctrl.Options, error) {
		o, err := termOptions(s)
		o.MapperProvider = func(*rest.Config, *http.Client) (meta.RESTMapper, error) {
			return testrestmapper.TestOnlyStaticRESTMapper(clientgoscheme.Scheme), nil
		}
		// The real timeout would prolong the test.
		o.Controller.CacheSyncTimeout = 50 * time.Millisecond
		return o, err
	}
	var ends []error
	enroll := terms.term
	terms.term = func(ctx context.Context) error {
		err := enroll(ctx)
		ends = append(ends, err)
		if len(ends) == 2 {
			cancel()
		}
		return err
	}
	require.NoError(t, terms.Start(ctx))
	require.ErrorContains(t, ends[0], "sync")
	assert.Equal(t, 1, interrupted(t)-before, "the second end is the process's own")
}

func TestGaugesDropSeriesWhoseValueIsZero(t *testing.T) {
	series := func(gauge *prometheus.GaugeVec) int {
		all := make(chan prometheus.Metric, 10)
		gauge.Collect(all)
		return len(all)
	}
	for _, count := range []int{2, 0} {
		set(unready)("shop", count)
		setBy(paused)("shop", "hold", count)
		setBy(paused)("shop", "recover", 1)
		assert.Equal(t, min(count, 1), series(unready), "a namespace that is gone leaves no series")
		assert.Equal(t, 1+min(count, 1), series(paused))
	}
	setBy(paused)("shop", "recover", 0)
	assert.Zero(t, series(paused))
}

func TestEnrollsClientBoundsPagesOfLists(t *testing.T) {
	config := &rest.Config{Host: "https://127.0.0.1:1"}
	assert.Nil(t, config.WrapTransport)
	bound := termConfig(config).WrapTransport(http.DefaultTransport)
	assert.Equal(t, listing.BoundPages(http.DefaultTransport), bound)
	assert.Nil(t, config.WrapTransport, "the webhook's own client needs no such transport")
	options, err := termOptions(settings{})
	require.NoError(t, err)
	assert.NotNil(t, options.Cache.NewInformer)
}
