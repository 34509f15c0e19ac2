// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/types"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/metaparticle-io/metaparticle/enroll"
	"github.com/metaparticle-io/metaparticle/listing"
)

// leaderElectionID is the name of the Lease by which a replica is elected to enroll. The Lease is
// in the webhook's namespace.
const leaderElectionID = "metaparticle-enroll"

// The replicas elect the replica that enrolls. While no replica enrolls, new pods wait. Two enrolling
// replicas do no harm, so the election needs little margin.
const (
	// enrollLease is the time for which a replica that vanished blocks the next one.
	enrollLease = 6 * time.Second
	// enrollRenewed is the time after which a replica without a renewal gives up its term.
	// The next replica waits for enrollLease, so two seconds or more separate two terms.
	enrollRenewed = 4 * time.Second
	// enrollRetry is the time between two attempts to renew or to be elected. At least
	// three attempts fit into enrollRenewed. If a replica releases its election, the next
	// replica is elected about enrollRetry later.
	enrollRetry = time.Second
	// enrollShutdown bounds the time in which a term's manager ends. The other half of
	// [shutdown] is for the release of the election.
	enrollShutdown = shutdown / 2
)

// With these times, enrolling survives an overloaded API server.
const (
	// enrollFill bounds the time in which an elected replica fills its caches. Ten thousand
	// gated pods take some seconds (docs/evidence/benchmarks.md); an overloaded API server may take
	// much longer.
	enrollFill = 2 * time.Minute
	// enrollLastRetry is the longest time that a replica waits between two of its terms. After
	// the death of a replica, new pods may wait for enrollLease anyway. So enrollLastRetry is
	// not much larger than enrollLease.
	enrollLastRetry = 8 * time.Second
)

var (
	enrolling = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "metaparticle_enrolling",
		Help: "1 while this replica is elected to enroll, and its caches are filled. While no replica enrolls, new slots wait.",
	})
	interruptions = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "metaparticle_enroll_interruptions_total",
		Help: "Terms of enrolling that ended by a lost election or without a working API server, while the process continued.",
	})
	lacking = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "metaparticle_shards_lacking_pods",
		Help: "Shards without a pod that runs, because their workload has fewer pods than shards. Only the replica that enrolls has the value.",
	}, []string{"namespace"})
	unready = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "metaparticle_slots_not_enrolled",
		Help: "Claimed slots that enroll could not give their Leases and rights, so that their pods wait. Only the replica that enrolls has the value.",
	}, []string{"namespace"})
	failing = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "metaparticle_enroll_failed_steps",
		Help: "1 for each step of enrolling that failed in the last attempt. Only the replica that enrolls has the value.",
	}, []string{"namespace", "step"})
	paused = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "metaparticle_slots_paused",
		Help: "Slots that a pause keeps shut. Slots whose Leases another program made do not count. Only the replica that enrolls has the value.",
	}, []string{"namespace", "pause"})
)

func init() {
	metrics.Registry.MustRegister(enrolling, interruptions, lacking, unready, failing, paused)
}

// set returns a function that sets the gauge of a namespace. If the count is zero, the function
// deletes the gauge of the namespace.
func set(gauge *prometheus.GaugeVec) func(namespace string, count int) {
	return func(namespace string, count int) { setLabels(gauge, count, namespace) }
}

// setBy returns a function like that of [set], for a gauge with a second label.
func setBy(gauge *prometheus.GaugeVec) func(namespace, label string, count int) {
	return func(namespace, label string, count int) { setLabels(gauge, count, namespace, label) }
}

// setLabels sets the gauge with the labels, or deletes this gauge if the count is zero.
func setLabels(gauge *prometheus.GaugeVec, count int, labels ...string) {
	if count == 0 {
		gauge.DeleteLabelValues(labels...)
		return
	}
	gauge.WithLabelValues(labels...).Set(float64(count))
}

// terms is the part that enrolls while this replica is elected. A term begins when the replica
// stands for election, and ends when its manager stops. A manager stops for good when it loses its
// election or cannot fill its caches. The process must not end then, because this replica still
// answers the API server's calls. So each term has a manager and caches of its own.
type terms struct {
	config *rest.Config
	s      settings
	log    *slog.Logger
	// options returns the options of a term's manager.
	options func(settings) (ctrl.Options, error)
	// term runs one term: the replica waits to be elected, then enrolls.
	term func(context.Context) error
}

func newTerms(config *rest.Config, s settings, log *slog.Logger) *terms {
	t := &terms{config: config, s: s, log: log, options: termOptions}
	t.term = t.enroll
	return t
}

// NeedLeaderElection implements manager.LeaderElectionRunnable.
func (t *terms) NeedLeaderElection() bool { return false }

// errNever reports that enrolling is impossible, whatever the API server does.
var errNever = errors.New("set up enroll")

// Start returns when ctx ends, or when enrolling is impossible. The process then ends, so
// that people notice. Every other end of a term leads to the next term.
func (t *terms) Start(ctx context.Context) error {
	pause := enrollRetry
	for {
		began := time.Now()
		err := t.term(ctx)
		select {
		case <-ctx.Done():
			return nil // the end of the process is no failure of the term
		default:
		}
		if errors.Is(err, errNever) {
			return err
		}
		if time.Since(began) > enrollLastRetry {
			pause = enrollRetry
		}
		interruptions.Inc()
		t.log.Warn("this replica does not enroll; it answers on, and stands for election again", "error", err, "in", pause)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
		pause = min(2*pause, enrollLastRetry)
	}
}

func (t *terms) enroll(ctx context.Context) error {
	options, err := t.options(t.s)
	if err != nil {
		return fmt.Errorf("%w: %w", errNever, err)
	}
	m, err := ctrl.NewManager(termConfig(t.config), options)
	if err != nil {
		return fmt.Errorf("make the manager of a term: %w", err)
	}
	reconciler := &enroll.Reconciler{
		Client: m.GetClient(),
		Reader: m.GetAPIReader(),
		Events: m.GetEventRecorder("metaparticle-enroll"),
		Home:   t.s.namespace,
		// The gauges are reset at the end of the term, because another replica may publish them in
		// the next term.
		Shortage: set(lacking), Behind: set(unready), Failed: setBy(failing), Paused: setBy(paused),
	}
	for _, gauge := range []*prometheus.GaugeVec{lacking, unready, failing, paused} {
		defer gauge.Reset()
	}
	if t.s.bindPullSecrets {
		reconciler.PullSecrets = types.NamespacedName{Namespace: t.s.namespace, Name: t.s.webhookAccount}
	}
	if err := reconciler.SetupWithManager(m); err != nil {
		return fmt.Errorf("%w: %w", errNever, err)
	}
	if err := m.Add(manager.RunnableFunc(func(ctx context.Context) error {
		if m.GetCache().WaitForCacheSync(ctx) {
			enrolling.Set(1)
			defer enrolling.Set(0)
		}
		<-ctx.Done()
		return nil
	})); err != nil {
		return fmt.Errorf("%w: %w", errNever, err)
	}
	return m.Start(ctx)
}

// termConfig returns a copy of the config, with the transport that enroll needs.
func termConfig(config *rest.Config) *rest.Config {
	config = rest.CopyConfig(config)
	config.Wrap(listing.BoundPages)
	return config
}

func termOptions(s settings) (ctrl.Options, error) {
	objects, err := enroll.Cache()
	if err != nil {
		return ctrl.Options{}, fmt.Errorf("choose what to cache: %w", err)
	}
	return ctrl.Options{
		Scheme: clientgoscheme.Scheme,
		Cache:  cache.Options{ByObject: objects, DefaultTransform: cache.TransformStripManagedFields(), NewInformer: enroll.NewInformer},
		// The address "0" disables the server, because the replica's own manager serves the metrics
		// of all terms.
		Metrics:                 metricsserver.Options{BindAddress: "0"},
		LeaderElection:          s.leaderElection,
		LeaderElectionID:        leaderElectionID,
		LeaderElectionNamespace: s.namespace,
		// Two replicas may enroll at the same time without harm, so a manager that ends may
		// immediately release its election.
		LeaderElectionReleaseOnCancel: true,
		LeaseDuration:                 new(enrollLease),
		RenewDeadline:                 new(enrollRenewed),
		RetryPeriod:                   new(enrollRetry),
		GracefulShutdownTimeout:       new(enrollShutdown),
		Controller:                    config.Controller{CacheSyncTimeout: enrollFill},
	}, nil
}
