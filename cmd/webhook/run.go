// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/discovery"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/controller-runtime/pkg/webhook"

	"github.com/metaparticle-io/metaparticle/enroll"
	"github.com/metaparticle-io/metaparticle/mutate"
)

// leaderElectionID is the Lease, in our namespace, of the replica that enrolls.
const leaderElectionID = "metaparticle-enroll"

// How the replicas take turns at enrolling. While nobody enrolls, new pods wait;
// two at once do no harm, so little margin is needed.
const (
	// enrollLease is for how long a replica that vanished blocks the next one.
	enrollLease = 6 * time.Second
	// enrollRenewed is when a replica that could not renew ends itself: two
	// seconds before the next one begins.
	enrollRenewed = 4 * time.Second
	// enrollRetry fits three times into that, and is what a handover takes.
	enrollRetry = time.Second
)

// shutdown is the time that calls in flight are left: longer than any takes.
const shutdown = 10 * time.Second

func run(ctx context.Context, args []string, output io.Writer) error {
	s, err := parse(args, output)
	if errors.Is(err, flag.ErrHelp) {
		return nil
	}
	if err != nil {
		return err
	}
	log := logTo(output, s.verbose)
	config, err := ctrl.GetConfig()
	if err != nil {
		return fmt.Errorf("find the cluster: %w", err)
	}
	m, err := newManager(config, s, log)
	if err != nil {
		return err
	}
	if err := serve(m, s, log); err != nil {
		return err
	}
	reconciler := &enroll.Reconciler{
		Client: m.GetClient(),
		Reader: m.GetAPIReader(),
		Events: m.GetEventRecorder("metaparticle-enroll"),
		Home:   s.namespace,
	}
	if s.bindPullSecrets {
		reconciler.PullSecrets = types.NamespacedName{Namespace: s.namespace, Name: s.webhookAccount}
	}
	if err := reconciler.SetupWithManager(m); err != nil {
		return fmt.Errorf("set up enroll: %w", err)
	}
	log.Info("starting", "agentImage", s.agentImage, "port", s.port)
	if err := m.Start(ctx); err != nil {
		return fmt.Errorf("run: %w", err)
	}
	return nil
}

// logTo makes one structured log of ours and of the libraries'.
func logTo(output io.Writer, verbose bool) *slog.Logger {
	level := slog.LevelInfo
	if verbose {
		level = slog.LevelDebug
	}
	handler := slog.NewJSONHandler(output, &slog.HandlerOptions{Level: level})
	ctrl.SetLogger(logr.FromSlogHandler(handler))
	klog.SetSlogLogger(slog.New(handler))
	return slog.New(handler)
}

func newManager(config *rest.Config, s settings, log *slog.Logger) (ctrl.Manager, error) {
	// A limited client in a handler makes a burst of pods wait for seconds. The
	// API server has limits of its own.
	config = rest.CopyConfig(config)
	config.QPS = -1
	objects, err := enroll.Cache()
	if err != nil {
		return nil, fmt.Errorf("choose what to cache: %w", err)
	}
	m, err := ctrl.NewManager(config, managerOptions(s, objects))
	if err != nil {
		return nil, fmt.Errorf("make manager: %w", err)
	}
	log.Debug("manager made")
	return m, nil
}

func managerOptions(s settings, objects map[client.Object]cache.ByObject) ctrl.Options {
	return ctrl.Options{
		Scheme:                 clientgoscheme.Scheme,
		Cache:                  cache.Options{ByObject: objects, DefaultTransform: cache.TransformStripManagedFields()},
		Metrics:                metricsserver.Options{BindAddress: s.metricsAddress},
		HealthProbeBindAddress: s.healthAddress,
		WebhookServer:          webhook.NewServer(webhook.Options{Port: s.port, CertDir: s.certDir}),
		// Nothing is lost if two enroll, so the next may begin at once.
		LeaderElection:                s.leaderElection,
		LeaderElectionID:              leaderElectionID,
		LeaderElectionNamespace:       s.namespace,
		LeaderElectionReleaseOnCancel: true,
		LeaseDuration:                 new(enrollLease),
		RenewDeadline:                 new(enrollRenewed),
		RetryPeriod:                   new(enrollRetry),
		GracefulShutdownTimeout:       new(shutdown),
	}
}

// serve registers the two handlers and the probes.
func serve(m ctrl.Manager, s settings, log *slog.Logger) error {
	images, err := newImages(m.GetAPIReader(), s)
	if err != nil {
		return err
	}
	reporter := newReporter(m.GetAPIReader(), m.GetEventRecorder("metaparticle-webhook"))
	if err := m.Add(reporter); err != nil {
		return fmt.Errorf("add reporter: %w", err)
	}
	// Every replica knows the LimitRanges, from before it answers.
	if _, err := m.GetCache().GetInformer(context.Background(), &corev1.LimitRange{}); err != nil {
		return fmt.Errorf("watch limit ranges: %w", err)
	}
	discover, err := discovery.NewDiscoveryClientForConfig(m.GetConfig())
	if err != nil {
		return fmt.Errorf("make discovery client: %w", err)
	}
	version := &kubernetes{server: discover, log: log}
	if err := m.Add(version); err != nil {
		return fmt.Errorf("add version: %w", err)
	}
	options := mutate.Options{
		AgentImage: s.agentImage,
		Images:     images,
		Owners:     owners{m.GetAPIReader()},
		Limits:     limits{m.GetClient()},
		Kubernetes: version.minor,
		Timeout:    s.timeout,
		Observe:    reporter.observe,
		Log:        log,
	}
	m.GetWebhookServer().Register("/pods", mutate.Serve(mutate.NewPodHandler(options)))
	m.GetWebhookServer().Register("/workloads", mutate.Serve(mutate.NewWorkloadHandler(options)))
	if err := m.AddHealthzCheck("process", healthz.Ping); err != nil {
		return fmt.Errorf("add health check: %w", err)
	}
	// Ready: the certificate is loaded, and what the handlers read is there.
	if err := m.AddReadyzCheck("certificate", m.GetWebhookServer().StartedChecker()); err != nil {
		return fmt.Errorf("add readiness check: %w", err)
	}
	return m.AddReadyzCheck("caches", synced(m.GetCache()))
}

// synced answers whether the caches have been filled. It never waits: a probe
// asks again.
func synced(c cache.Cache) healthz.Checker {
	return func(r *http.Request) error {
		ctx, cancel := context.WithTimeout(r.Context(), 100*time.Millisecond)
		defer cancel()
		if !c.WaitForCacheSync(ctx) {
			return errors.New("caches are not filled yet")
		}
		return nil
	}
}
