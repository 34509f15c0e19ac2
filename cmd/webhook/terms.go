// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/types"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/metaparticle-io/metaparticle/enroll"
)

// leaderElectionID is the Lease, in our namespace, of the replica that enrolls.
const leaderElectionID = "metaparticle-enroll"

// One replica is elected to enroll. While nobody enrolls, new pods wait; two at
// once do no harm, so little margin is needed.
const (
	// enrollLease is for how long a replica that vanished blocks the next one.
	enrollLease = 6 * time.Second
	// enrollRenewed is when a replica that could not renew gives up its term: up to
	// two seconds before the next one begins.
	enrollRenewed = 4 * time.Second
	// enrollRetry fits three times into that, and is what a handover takes.
	enrollRetry = time.Second
	// enrollShutdown leaves time for the release of the election within shutdown.
	enrollShutdown = shutdown / 2
)

// terms enrolls for as long as this replica is elected, term after term. A manager
// that loses its election is of no use any more and wants its process to end; that
// would take the API server's calls from a replica that answers them well, at the
// very moment when the cluster is in trouble. So each term has a manager, with
// caches, of its own.
type terms struct {
	config *rest.Config
	s      settings
	log    *slog.Logger
	// term waits to be elected, and enrolls.
	term func(context.Context) error
}

func newTerms(config *rest.Config, s settings, log *slog.Logger) *terms {
	t := &terms{config: config, s: s, log: log}
	t.term = t.enroll
	return t
}

// NeedLeaderElection implements manager.LeaderElectionRunnable.
func (t *terms) NeedLeaderElection() bool { return false }

// Start returns when ctx ends, or when enrolling is not possible at all: then the
// process ends, for people to see.
func (t *terms) Start(ctx context.Context) error {
	for {
		err := t.term(ctx)
		if ctx.Err() != nil || !isLost(err) {
			return err
		}
		t.log.Warn("this replica does not enroll; it answers on, and stands for election again", "error", err)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(enrollRetry):
		}
	}
}

// errAway: there is no API server to ask, which is how most elections are lost.
var errAway = errors.New("make the manager of a term")

// isLost tells a term that ended with its election, or could not begin after that,
// from a failure to enroll. The manager has no name for the first.
func isLost(err error) bool {
	return errors.Is(err, errAway) || (err != nil && strings.Contains(err.Error(), "leader election lost"))
}

func (t *terms) enroll(ctx context.Context) error {
	options, err := termOptions(t.s)
	if err != nil {
		return err
	}
	m, err := ctrl.NewManager(t.config, options)
	if err != nil {
		return fmt.Errorf("%w: %w", errAway, err)
	}
	reconciler := &enroll.Reconciler{
		Client: m.GetClient(),
		Reader: m.GetAPIReader(),
		Events: m.GetEventRecorder("metaparticle-enroll"),
		Home:   t.s.namespace,
	}
	if t.s.bindPullSecrets {
		reconciler.PullSecrets = types.NamespacedName{Namespace: t.s.namespace, Name: t.s.webhookAccount}
	}
	if err := reconciler.SetupWithManager(m); err != nil {
		return fmt.Errorf("set up enroll: %w", err)
	}
	return m.Start(ctx)
}

func termOptions(s settings) (ctrl.Options, error) {
	objects, err := enroll.Cache()
	if err != nil {
		return ctrl.Options{}, fmt.Errorf("choose what to cache: %w", err)
	}
	return ctrl.Options{
		Scheme: clientgoscheme.Scheme,
		Cache:  cache.Options{ByObject: objects, DefaultTransform: cache.TransformStripManagedFields()},
		// The replica's manager serves the metrics of all.
		Metrics:                 metricsserver.Options{BindAddress: "0"},
		LeaderElection:          s.leaderElection,
		LeaderElectionID:        leaderElectionID,
		LeaderElectionNamespace: s.namespace,
		// Nothing is lost if two enroll, so the next may begin at once.
		LeaderElectionReleaseOnCancel: true,
		LeaseDuration:                 new(enrollLease),
		RenewDeadline:                 new(enrollRenewed),
		RetryPeriod:                   new(enrollRetry),
		GracefulShutdownTimeout:       new(enrollShutdown),
	}, nil
}
