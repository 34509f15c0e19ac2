// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/meta/testrestmapper"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	toolscache "k8s.io/client-go/tools/cache"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/metaparticle-io/metaparticle/enroll"
)

const (
	// idleRuns is the number of reconciliations without work. The replica reports the
	// cost of the reconciliation with the median time.
	idleRuns = 21
	// patience bounds the wait until the caches contain the written objects.
	patience = time.Minute
)

// traffic counts the requests that go through a transport.
type traffic struct{ requests, writes atomic.Int64 }

type counted struct {
	http.RoundTripper
	*traffic
}

// RoundTrip implements http.RoundTripper.
func (c counted) RoundTrip(r *http.Request) (*http.Response, error) {
	c.requests.Add(1)
	if r.Method != http.MethodGet {
		c.writes.Add(1)
	}
	return c.RoundTripper.RoundTrip(r)
}

// bench is one replica that enrolls, with a count of its requests.
type bench struct {
	traffic    traffic
	manager    ctrl.Manager
	reconciler *enroll.Reconciler
	slots      int
}

func replica(ctx context.Context, address, slots string) error {
	ctrl.SetLogger(logr.Discard())
	n, err := strconv.Atoi(slots)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	b := &bench{slots: n}
	var f figures
	f.Start, err = b.cost(func() error {
		if err := b.start(ctx, address); err != nil {
			return err
		}
		return b.look(ctx)
	})
	if err != nil {
		return err
	}
	if f.Start.Resident, err = peak(); err != nil {
		return err
	}
	// A second reconciliation has no work to do, once the caches contain the writes of the first.
	if err := b.settle(ctx); err != nil {
		return err
	}
	idle := make([]cost, idleRuns)
	for i := range idle {
		if idle[i], err = b.cost(func() error { return b.look(ctx) }); err != nil {
			return err
		}
	}
	slices.SortFunc(idle, func(a, b cost) int { return cmp.Compare(a.Milliseconds, b.Milliseconds) })
	f.Idle = idle[idleRuns/2]
	if f.Start.Writes == 0 {
		// This replica has found all objects in place, so newPod measures the new pod
		// alone.
		if f.Pod, err = b.newPod(ctx); err != nil {
			return err
		}
	}
	return json.NewEncoder(os.Stdout).Encode(f)
}

// start fills the same caches as a replica of the webhook does.
func (b *bench) start(ctx context.Context, address string) error {
	objects, err := enroll.Cache()
	if err != nil {
		return err
	}
	config := &rest.Config{Host: address, QPS: -1, ContentConfig: rest.ContentConfig{ContentType: "application/json"}}
	config.Wrap(func(next http.RoundTripper) http.RoundTripper { return counted{next, &b.traffic} })
	b.manager, err = ctrl.NewManager(config, ctrl.Options{
		Cache:   cache.Options{ByObject: objects, DefaultTransform: cache.TransformStripManagedFields()},
		Metrics: metricsserver.Options{BindAddress: "0"},
		MapperProvider: func(*rest.Config, *http.Client) (meta.RESTMapper, error) {
			return testrestmapper.TestOnlyStaticRESTMapper(scheme.Scheme), nil
		},
	})
	if err != nil {
		return err
	}
	b.reconciler = &enroll.Reconciler{Client: b.manager.GetClient(), Reader: b.manager.GetAPIReader()}
	for object := range objects {
		if _, err := b.manager.GetCache().GetInformer(ctx, object, cache.BlockUntilSynced(false)); err != nil {
			return err
		}
	}
	if _, err := b.manager.GetCache().GetInformer(ctx, &corev1.Namespace{}, cache.BlockUntilSynced(false)); err != nil {
		return err
	}
	go func() { _ = b.manager.Start(ctx) }()
	if !b.manager.GetCache().WaitForCacheSync(ctx) {
		return errors.New("the caches do not fill")
	}
	return nil
}

func (b *bench) look(ctx context.Context) error {
	_, err := b.reconciler.Namespace(ctx, namespace)
	return err
}

// settle reconciles until a reconciliation sends no request.
func (b *bench) settle(ctx context.Context) error {
	for end := time.Now().Add(patience); time.Now().Before(end); {
		before := b.traffic.requests.Load()
		if err := b.look(ctx); err == nil && b.traffic.requests.Load() == before {
			return nil
		}
	}
	return errors.New("it never settles")
}

// newPod measures the reconciliation after the creation of a pod with a new slot.
func (b *bench) newPod(ctx context.Context) (cost, error) {
	informer, err := b.manager.GetCache().GetInformer(ctx, &corev1.Pod{})
	if err != nil {
		return cost{}, err
	}
	pod := gatedPod(b.slots)
	heard := make(chan struct{}, 1)
	handler := toolscache.ResourceEventHandlerFuncs{AddFunc: func(o any) {
		if o.(client.Object).GetName() == pod.Name {
			heard <- struct{}{}
		}
	}}
	if _, err := informer.AddEventHandler(handler); err != nil {
		return cost{}, err
	}
	if err := b.manager.GetClient().Create(ctx, pod); err != nil {
		return cost{}, err
	}
	<-heard
	return b.cost(func() error { return b.look(ctx) })
}

// cost measures the time, the memory and the requests of a function.
func (b *bench) cost(do func() error) (cost, error) {
	var before, after runtime.MemStats
	requests, writes := b.traffic.requests.Load(), b.traffic.writes.Load()
	runtime.ReadMemStats(&before)
	began, busy := time.Now(), processors()
	err := do()
	took, spent := time.Since(began), processors()-busy
	runtime.ReadMemStats(&after)
	return cost{
		CPU:          float64(spent.Microseconds()) / 1e3,
		Milliseconds: float64(took.Microseconds()) / 1e3,
		Megabytes:    float64(after.TotalAlloc-before.TotalAlloc) / 1e6,
		Requests:     int(b.traffic.requests.Load() - requests),
		Writes:       int(b.traffic.writes.Load() - writes),
	}, err
}

// processors returns the time that processors have spent on this process.
func processors() time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		panic(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// peak returns the highest resident memory of this process so far, in megabytes.
func peak() (float64, error) {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(status)) {
		if text, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kilobytes, err := strconv.ParseFloat(strings.Fields(text)[0], 64)
			return kilobytes * 1024 / 1e6, err
		}
	}
	return 0, fmt.Errorf("no peak in %s", "/proc/self/status")
}
