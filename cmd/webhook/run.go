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
	"os"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/discovery"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	toolscache "k8s.io/client-go/tools/cache"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/api/podspec"
	"github.com/metaparticle-io/metaparticle/mutate/admit"
	"github.com/metaparticle-io/metaparticle/mutate/load"
)

func run(ctx context.Context, args []string, output io.Writer) error {
	s, err := parse(args, output)
	if errors.Is(err, flag.ErrHelp) {
		return nil
	}
	if err != nil {
		return err
	}
	log := logTo(output, s.verbose)
	if limit, err := limitMemory(os.Getenv); err != nil {
		return err
	} else if limit > 0 {
		log.Info("limiting memory", "bytes", limit)
	}
	config, err := ctrl.GetConfig()
	if err != nil {
		return fmt.Errorf("find the cluster: %w", err)
	}
	// With client-go's rate limit, a burst of pods would wait for seconds. So the
	// webhook's client has no limit: the API server has limits of its own.
	config = rest.CopyConfig(config)
	config.QPS = -1
	m, err := ctrl.NewManager(config, managerOptions(s))
	if err != nil {
		return fmt.Errorf("make manager: %w", err)
	}
	if err := register(ctx, m, s, log); err != nil {
		return err
	}
	if err := m.Add(newTerms(config, s, log)); err != nil {
		return fmt.Errorf("add enroll: %w", err)
	}
	log.Info("starting", "agentImage", s.agentImage, "port", s.port)
	if err := m.Start(ctx); err != nil {
		return fmt.Errorf("run: %w", err)
	}
	return nil
}

func managerOptions(s settings) ctrl.Options {
	return ctrl.Options{
		Scheme: clientgoscheme.Scheme,
		Cache:  cache.Options{DefaultTransform: onlyIdentities(cache.TransformStripManagedFields())},
		// The function openPorts serves the metrics and the probes, with bounds.
		Metrics:                 metricsserver.Options{BindAddress: "0"},
		HealthProbeBindAddress:  "0",
		WebhookServer:           newCallServer(s),
		GracefulShutdownTimeout: new(shutdown),
	}
}

// register adds the handlers of pods, workloads and namespaces, the probes, and all parts that the handlers
// need.
func register(ctx context.Context, m ctrl.Manager, s settings, log *slog.Logger) error {
	client, err := newClient(m.GetConfig(), m.GetHTTPClient())
	if err != nil {
		return fmt.Errorf("make client of the API server: %w", err)
	}
	images := newImages(live{client, maxAccess}, s, log)
	reporter := newReporter(live{client, maxAccess}, m.GetClient(), m.GetEventRecorder("metaparticle-webhook"))
	if err := m.Add(reporter); err != nil {
		return fmt.Errorf("add reporter: %w", err)
	}
	// The readiness check "caches" waits only for informers that exist. So register makes the
	// informers now, and the cache has all LimitRanges before the replica is ready.
	if _, err := m.GetCache().GetInformer(ctx, &corev1.LimitRange{}); err != nil {
		return fmt.Errorf("watch limit ranges: %w", err)
	}
	for _, kind := range watched {
		var metadata metav1.PartialObjectMetadata
		metadata.SetGroupVersionKind(kind)
		if _, err := m.GetCache().GetInformer(ctx, &metadata); err != nil {
			return fmt.Errorf("watch %s: %w", kind.Kind, err)
		}
	}
	discover, err := discovery.NewDiscoveryClientForConfig(m.GetConfig())
	if err != nil {
		return fmt.Errorf("make discovery client: %w", err)
	}
	version := &kubernetes{server: discover, log: log}
	if err := m.Add(version); err != nil {
		return fmt.Errorf("add version: %w", err)
	}
	options := admit.Options{
		AgentImage: s.agentImage,
		Images:     images,
		Owners:     owners{live: live{client, maxObject}, cached: m.GetClient()},
		Limits:     limits{m.GetClient()},
		CronJobs:   cronJobs(m.GetClient()),
		Uncarried:  uncarried{cached: m.GetClient(), live: live{client, maxObject}}.in,
		Kubernetes: version.minor,
		Timeout:    s.timeout,
		Observe:    reporter.observe,
		Log:        log,
	}
	limit := new(load.Limit) // all handlers share the memory of the process
	m.GetWebhookServer().Register("/pods", admit.Serve(admit.NewPodHandler(options), limit))
	m.GetWebhookServer().Register("/workloads", admit.Serve(admit.NewWorkloadHandler(options), limit))
	m.GetWebhookServer().Register("/namespaces", admit.Serve(admit.NewNamespaceHandler(options), limit))
	// A replica is ready when its certificate is loaded, and its caches are filled.
	ready := map[string]healthz.Checker{"certificate": m.GetWebhookServer().StartedChecker(), "caches": synced(m.GetCache())}
	return openPorts(ctx, m, s, map[string]healthz.Checker{"process": healthz.Ping}, ready)
}

// onlyIdentities returns a function that drops the unused metadata of cached workloads, because
// each replica caches every workload of the cluster. The function passes other objects to "others".
func onlyIdentities(others toolscache.TransformFunc) toolscache.TransformFunc {
	return func(in any) (any, error) {
		metadata, ok := in.(*metav1.PartialObjectMetadata)
		if !ok {
			return others(in)
		}
		kept := &metav1.PartialObjectMetadata{TypeMeta: metadata.TypeMeta, ObjectMeta: metav1.ObjectMeta{
			Namespace: metadata.Namespace, Name: metadata.Name, UID: metadata.UID, ResourceVersion: metadata.ResourceVersion,
			Annotations: ours(metadata.Annotations),
		}}
		podspec.KeepAbove(&kept.ObjectMeta, metadata)
		return kept, nil
	}
}

// maxOurs bounds the bytes of the annotations that the cache keeps of a workload.
const maxOurs = 512

// ours returns the annotations with our prefix, or nil if they are longer than a person's.
func ours(annotations map[string]string) map[string]string {
	var kept map[string]string
	bytes := 0
	for key, value := range annotations {
		if !api.Carried(key) {
			continue
		}
		if bytes += len(key) + len(value); bytes > maxOurs {
			return nil
		}
		if kept == nil {
			kept = map[string]string{}
		}
		kept[key] = value
	}
	return kept
}

// synced returns a check that fails until the caches are filled. The check waits only a moment,
// because the kubelet probes again.
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
