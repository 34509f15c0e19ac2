// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package console

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/selection"
	"k8s.io/apimachinery/pkg/types"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/console/view"
	"github.com/metaparticle-io/metaparticle/diagnosis"
	"github.com/metaparticle-io/metaparticle/listing"
)

const (
	// settles is the time for which changes are collected, because a handover consists of
	// several changes within milliseconds.
	settles = 200 * time.Millisecond
	// mostHandovers bounds the handovers that the page gets of each slot.
	mostHandovers = 20
	// unpublished is the text that the page shows after a failed publication.
	unpublished = "The console could not publish the last changes: its log has the error. What this page shows is old."
)

// watch keeps the objects of all slots, and publishes the slots after each change.
type watch struct {
	cache   cache.Cache
	publish func(slots []view.Slot, trouble string) error
	// warn publishes only the reason why the slots may be old, and no slots.
	warn func(trouble string) error
	log  *slog.Logger
	// links records which watch is closed or silent.
	links *links
	// changed has a value if an object changed since the last publication.
	changed chan struct{}
	full    atomic.Bool

	mu sync.Mutex
	// seen has the instant of the last change of each Lease, renewals included.
	seen map[types.UID]time.Time
	// silence wakes the watch at the next instant at which a holder becomes silent, a hold expires, or something is
	// wrong with a pod.
	silence *time.Timer
}

// newWatch returns a watch. After a change, the watch passes all slots, and the trouble of its
// connections, to the function "publish". When a trouble begins or ends, the watch passes only the
// text about the trouble to the function "warn".
func newWatch(config *rest.Config, publish func([]view.Slot, string) error, warn func(string) error, log *slog.Logger) (*watch, error) {
	w := &watch{publish: publish, warn: warn, log: log, links: newLinks(), changed: make(chan struct{}, 1), seen: map[types.UID]time.Time{}}
	config = rest.CopyConfig(config)
	config.Wrap(listing.BoundPages)
	config.Wrap(w.links.wrap)
	byUs, err := labels.NewRequirement(api.ManagedLabel, selection.Exists, nil)
	if err != nil {
		return nil, fmt.Errorf("select leases: %w", err)
	}
	w.cache, err = cache.New(config, cache.Options{
		Scheme: clientgoscheme.Scheme,
		Mapper: mapper(),
		ByObject: map[client.Object]cache.ByObject{
			&coordinationv1.Lease{}: {Label: labels.NewSelector().Add(*byUs)},
			&corev1.Pod{}:           {Label: labels.SelectorFromSet(labels.Set{api.GatedLabel: api.Gated})},
			&corev1.Event{}: {Field: fields.AndSelectors(
				fields.OneTermEqualSelector("involvedObject.kind", "Pod"), fields.OneTermEqualSelector("source", api.AgentReporter))},
		},
		DefaultTransform: strip,
		NewInformer:      listing.NewPager().Informers(strip),
	})
	if err != nil {
		return nil, fmt.Errorf("make caches: %w", err)
	}
	return w, nil
}

// mapper returns the resources of the watched kinds. With this table the console needs no discovery
// of the API server's resources.
func mapper() meta.RESTMapper {
	m := meta.NewDefaultRESTMapper(nil)
	for _, kind := range []schema.GroupVersionKind{
		coordinationv1.SchemeGroupVersion.WithKind("Lease"), corev1.SchemeGroupVersion.WithKind("Pod"), corev1.SchemeGroupVersion.WithKind("Event"),
		appsv1.SchemeGroupVersion.WithKind("Deployment"), appsv1.SchemeGroupVersion.WithKind("StatefulSet"),
		appsv1.SchemeGroupVersion.WithKind("DaemonSet"), batchv1.SchemeGroupVersion.WithKind("Job"),
	} {
		m.Add(kind, meta.RESTScopeNamespace)
	}
	return m
}

// synced reports whether the caches have been filled once.
func (w *watch) synced() bool { return w.full.Load() }

// touch notes that something changed.
func (w *watch) touch() {
	select {
	case w.changed <- struct{}{}:
	default:
	}
}

// run watches until ctx ends.
func (w *watch) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var heeding sync.WaitGroup
	defer heeding.Wait()
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- w.cache.Start(ctx) }()
	heeding.Go(func() { w.heed(ctx) })
	for _, object := range []client.Object{
		&coordinationv1.Lease{}, &corev1.Pod{}, &corev1.Event{},
		&appsv1.Deployment{}, &appsv1.StatefulSet{}, &appsv1.DaemonSet{}, &batchv1.Job{},
	} {
		informer, err := w.cache.GetInformer(ctx, object, cache.BlockUntilSynced(false))
		if err != nil {
			return fmt.Errorf("watch %T: %w", object, err)
		}
		if _, err := informer.AddEventHandler(toolscache.ResourceEventHandlerFuncs{
			AddFunc:    func(added any) { w.note(nil, added); w.touch() },
			DeleteFunc: func(gone any) { w.note(gone, nil); w.touch() },
			UpdateFunc: func(before, after any) {
				if w.note(before, after) || !onlyRenewed(before, after) {
					w.touch()
				}
			},
		}); err != nil {
			return fmt.Errorf("watch %T: %w", object, err)
		}
	}
	if w.cache.WaitForCacheSync(ctx) {
		w.full.Store(true)
		w.touch()
		w.follow(ctx)
	}
	return <-ended
}

// note notes when a Lease changed, and reports whether its holder was silent before. After an
// interruption the API server repeats Leases with known resourceVersions. Such a repetition is no
// change.
func (w *watch) note(before, after any) (silent bool) {
	if missed, ok := before.(toolscache.DeletedFinalStateUnknown); ok {
		before = missed.Obj // the watch was closed when the object was deleted
	}
	was, _ := before.(*coordinationv1.Lease)
	is, _ := after.(*coordinationv1.Lease)
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case is == nil && was != nil:
		delete(w.seen, was.UID)
	case is != nil && (was == nil || was.ResourceVersion != is.ResourceVersion):
		now := time.Now()
		silent = was != nil && !view.Silent(was, w.seen[is.UID]).After(now)
		w.seen[is.UID] = now
	}
	return silent
}

// follow publishes the slots after each change until ctx ends.
func (w *watch) follow(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.changed:
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(settles):
		}
		if err := w.show(ctx); err != nil {
			w.log.Error("show slots", "error", err)
			w.say(unpublished)
		}
	}
}

// show publishes the slots of the caches.
func (w *watch) show(ctx context.Context) error {
	var leases coordinationv1.LeaseList
	var pods corev1.PodList
	var events corev1.EventList
	var deployments appsv1.DeploymentList
	var statefulSets appsv1.StatefulSetList
	var daemonSets appsv1.DaemonSetList
	var jobs batchv1.JobList
	for _, list := range []client.ObjectList{&deployments, &statefulSets, &daemonSets, &jobs, &leases, &pods, &events} {
		if err := w.cache.List(ctx, list, client.UnsafeDisableDeepCopy); err != nil {
			return fmt.Errorf("read %T: %w", list, err)
		}
	}
	now := time.Now()
	trouble, _ := w.links.trouble(now)
	state := view.State{
		Leases: pointers(leases.Items), Pods: pointers(pods.Items), Events: pointers(events.Items), Now: now, Old: trouble != "",
	}
	state.Workloads = slices.Concat(objects(deployments.Items), objects(statefulSets.Items), objects(daemonSets.Items), objects(jobs.Items))
	if !state.Old {
		state.Seen = w.notices(state.Leases, state.Pods, state.Now)
	}
	return w.publish(state.Slots(nil, mostHandovers), trouble)
}

// notices returns the instant of each Lease's last change, by the Lease's uid. The method also sets
// the timer for the next instant at which a holder becomes silent, a hold expires, or something is wrong with a pod.
func (w *watch) notices(leases []*coordinationv1.Lease, pods []*corev1.Pod, now time.Time) map[types.UID]time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	var next time.Time
	sooner := func(at time.Time) {
		if at.After(now) && (next.IsZero() || at.Before(next)) {
			next = at
		}
	}
	for _, pod := range pods {
		sooner(diagnosis.Due(pod))
	}
	for _, l := range leases {
		seen, ok := w.seen[l.UID]
		if !ok || view.HolderOf(l) == "" {
			continue
		}
		sooner(view.Silent(l, seen))
		sooner(view.Expired(l, seen))
	}
	if w.silence != nil {
		w.silence.Stop()
		w.silence = nil
	}
	if !next.IsZero() {
		w.silence = time.AfterFunc(next.Sub(now), w.touch)
	}
	return maps.Clone(w.seen)
}

// heed publishes the beginning and the end of each trouble with the watches, until ctx ends.
func (w *watch) heed(ctx context.Context) {
	told := ""
	for {
		text, next := w.links.trouble(time.Now())
		if text != told {
			told = text
			w.say(text)
			w.touch() // publishes again, because holders count as silent only while no watch is in trouble
		}
		var due <-chan time.Time
		if !next.IsZero() {
			due = time.After(time.Until(next))
		}
		select {
		case <-ctx.Done():
			return
		case <-w.links.changed:
		case <-due:
		}
	}
}

// say warns of a trouble.
func (w *watch) say(trouble string) {
	if err := w.warn(trouble); err != nil {
		w.log.Error("warn of old slots", "error", err)
	}
}

// onlyRenewed reports whether a Lease changed only by a renewal. Renewals are the most frequent
// changes of a cluster, and no person sees them.
func onlyRenewed(before, after any) bool {
	a, ok := before.(*coordinationv1.Lease)
	b, same := after.(*coordinationv1.Lease)
	if !ok || !same {
		return false
	}
	a, b = a.DeepCopy(), b.DeepCopy()
	a.ResourceVersion, b.ResourceVersion = "", ""
	a.Spec.RenewTime, b.Spec.RenewTime = nil, nil
	return equality.Semantic.DeepEqual(a, b)
}

// pointers returns the addresses of the items.
func pointers[T any](items []T) []*T {
	all := make([]*T, len(items))
	for i := range items {
		all[i] = &items[i]
	}
	return all
}

// objects returns the addresses of the items.
func objects[T any, P interface {
	*T
	client.Object
}](items []T) []client.Object {
	all := make([]client.Object, len(items))
	for i := range items {
		all[i] = P(&items[i])
	}
	return all
}
