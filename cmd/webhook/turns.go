// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"log/slog"
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

// How the replicas take turns at enrolling. While nobody enrolls, new pods wait;
// two at once do no harm, so little margin is needed.
const (
	// enrollLease is for how long a replica that vanished blocks the next one.
	enrollLease = 6 * time.Second
	// enrollRenewed is when a replica that could not renew ends its turn: two
	// seconds before the next one begins.
	enrollRenewed = 4 * time.Second
	// enrollRetry fits three times into that, and is what a handover takes.
	enrollRetry = time.Second
)

// turns enrolls whenever it is this replica's turn. A manager that loses its
// election is of no use any more and wants its process to end; that would take
// the API server's calls from a replica that answers them well, at the very
// moment when the cluster is in trouble. So each turn has a manager, with caches,
// of its own.
type turns struct {
	config *rest.Config
	s      settings
	log    *slog.Logger
	// enroll is one turn, and the wait for it.
	enroll func(context.Context) error
}

func newTurns(config *rest.Config, s settings, log *slog.Logger) *turns {
	t := &turns{config: config, s: s, log: log}
	t.enroll = t.turn
	return t
}

// NeedLeaderElection implements manager.LeaderElectionRunnable.
func (t *turns) NeedLeaderElection() bool { return false }

// Start takes turns until ctx ends.
func (t *turns) Start(ctx context.Context) error {
	again := time.NewTicker(enrollRetry)
	defer again.Stop()
	for {
		err := t.enroll(ctx)
		if ctx.Err() != nil {
			return err
		}
		t.log.Warn("the turn at enrolling is over", "err", err)
		select {
		case <-ctx.Done():
			return nil
		case <-again.C:
		}
	}
}

func (t *turns) turn(ctx context.Context) error {
	options, err := turnOptions(t.s)
	if err != nil {
		return err
	}
	m, err := ctrl.NewManager(t.config, options)
	if err != nil {
		return fmt.Errorf("make manager of enroll: %w", err)
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

func turnOptions(s settings) (ctrl.Options, error) {
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
		GracefulShutdownTimeout:       new(shutdown),
	}, nil
}
