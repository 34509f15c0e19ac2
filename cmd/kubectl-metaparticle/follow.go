// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/console/view"
)

// source is one kind of objects that the command "status" reads.
type source struct {
	name    string
	list    func() client.ObjectList
	options []client.ListOption
	// replace puts all listed objects into the state. The function "note" adds, changes or removes
	// one object of the state.
	replace func(o *objects, list client.ObjectList)
	note    func(o *objects, object client.Object, gone bool)
	// lost says what the command "status" cannot show without these objects; empty if the command
	// cannot work without them.
	lost string
}

// workloads returns the source of one kind of workloads.
func workloads[T any, P interface {
	*T
	client.Object
}](name string, list func() client.ObjectList, items func(client.ObjectList) []T) source {
	return source{
		name: name, list: list, lost: "ungated or refused pods of " + name + " do not count",
		replace: func(o *objects, list client.ObjectList) {
			if o.workloads == nil {
				o.workloads = map[string]map[types.UID]client.Object{}
			}
			o.workloads[name] = map[types.UID]client.Object{}
			all := items(list)
			for i := range all {
				o.workloads[name][P(&all[i]).GetUID()] = P(&all[i])
			}
		},
		note: func(o *objects, object client.Object, gone bool) {
			delete(o.workloads[name], object.GetUID())
			if !gone {
				o.workloads[name][object.GetUID()] = object
			}
		},
	}
}

// sources are the kinds of objects that the command "status" reads. The workloads come before the pods,
// because [view.State] demands that.
var sources = []source{
	workloads("deployments", func() client.ObjectList { return new(appsv1.DeploymentList) },
		func(l client.ObjectList) []appsv1.Deployment { return l.(*appsv1.DeploymentList).Items }),
	workloads("statefulsets", func() client.ObjectList { return new(appsv1.StatefulSetList) },
		func(l client.ObjectList) []appsv1.StatefulSet { return l.(*appsv1.StatefulSetList).Items }),
	workloads("daemonsets", func() client.ObjectList { return new(appsv1.DaemonSetList) },
		func(l client.ObjectList) []appsv1.DaemonSet { return l.(*appsv1.DaemonSetList).Items }),
	workloads("jobs", func() client.ObjectList { return new(batchv1.JobList) },
		func(l client.ObjectList) []batchv1.Job { return l.(*batchv1.JobList).Items }),
	workloads("cronjobs", func() client.ObjectList { return new(batchv1.CronJobList) },
		func(l client.ObjectList) []batchv1.CronJob { return l.(*batchv1.CronJobList).Items }),
	{
		name: "leases", list: func() client.ObjectList { return new(coordinationv1.LeaseList) },
		options: []client.ListOption{client.HasLabels{api.ManagedLabel}},
		replace: func(o *objects, list client.ObjectList) {
			o.leases = byUID(list.(*coordinationv1.LeaseList).Items)
		},
		note: func(o *objects, object client.Object, gone bool) { put(o.leases, object, gone) },
	},
	{
		name: "pods", list: func() client.ObjectList { return new(corev1.PodList) }, options: []client.ListOption{gatedPods},
		replace: func(o *objects, list client.ObjectList) { o.pods = byUID(list.(*corev1.PodList).Items) },
		note:    func(o *objects, object client.Object, gone bool) { put(o.pods, object, gone) },
	},
	{
		// The command reads only the Events that state an agent as their author. A process with the
		// right to write Events can also state this author.
		name: "events", list: func() client.ObjectList { return new(corev1.EventList) }, lost: "no handovers",
		options: []client.ListOption{client.MatchingFields{"involvedObject.kind": "Pod", "source": api.AgentReporter}},
		replace: func(o *objects, list client.ObjectList) { o.events = byUID(list.(*corev1.EventList).Items) },
		note:    func(o *objects, object client.Object, gone bool) { put(o.events, object, gone) },
	},
}

// byUID returns the objects by their uids.
func byUID[T any, P interface {
	*T
	client.Object
}](items []T) map[types.UID]*T {
	all := make(map[types.UID]*T, len(items))
	for i := range items {
		all[P(&items[i]).GetUID()] = &items[i]
	}
	return all
}

// put stores one object of a watch, or removes the object if it is gone.
func put[T any](all map[types.UID]*T, object client.Object, gone bool) {
	item, ok := any(object).(*T)
	switch {
	case !ok:
	case gone:
		delete(all, object.GetUID())
	default:
		all[object.GetUID()] = item
	}
}

// read reads the state once. The second result has a sentence for each optional kind of
// objects that the person has no right to read.
func (c cluster) read(ctx context.Context, namespace string) (state objects, notes []string, err error) {
	for _, s := range sources {
		list := s.list()
		err := c.List(ctx, list, append(s.options, client.InNamespace(namespace))...)
		if s.lost != "" && apierrors.IsForbidden(err) {
			notes, err = append(notes, fmt.Sprintf("%s: read %s: %v", s.lost, s.name, err)), nil
		}
		if err != nil {
			return state, notes, fmt.Errorf("read %s: %w", s.name, err)
		}
		s.replace(&state, list)
	}
	return state, notes, nil
}

// objects are all objects that the command "status" reads, by uid.
type objects struct {
	leases map[types.UID]*coordinationv1.Lease
	pods   map[types.UID]*corev1.Pod
	events map[types.UID]*corev1.Event
	// workloads has the workloads of each source.
	workloads map[string]map[types.UID]client.Object
}

// mostHandovers bounds the number of handovers that the command shows for one slot, so that they
// fit on a screen.
const mostHandovers = 3

// slots returns all slots, or only those of the given names.
func (o objects) slots(only []string, now time.Time) []view.Slot {
	state := view.State{
		Now:    now,
		Leases: slices.Collect(maps.Values(o.leases)),
		Pods:   slices.Collect(maps.Values(o.pods)),
		Events: slices.Collect(maps.Values(o.events)),
	}
	for _, all := range o.workloads {
		state.Workloads = slices.AppendSeq(state.Workloads, maps.Values(all))
	}
	return state.Slots(only, mostHandovers)
}

// complete returns true if each source has been listed.
func (o objects) complete() bool {
	return o.leases != nil && o.pods != nil && o.events != nil && len(o.workloads) == len(sources)-3
}

// settles is the time for which [cluster.follow] collects changes before it shows them,
// because a handover consists of several changes within milliseconds.
const settles = 200 * time.Millisecond

// follow calls the function "show" with the state after each change. An error of that
// function or of a watch ends the calls, and so does the end of ctx.
func (c cluster) follow(ctx context.Context, namespace string, show func(objects) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	changes, ended := make(chan func(*objects)), make(chan error, len(sources))
	for _, s := range sources {
		go func() { ended <- c.feed(ctx, namespace, s, changes) }()
	}
	var state objects
	var timer <-chan time.Time
	for {
		select {
		case change := <-changes:
			change(&state)
			if state.complete() && timer == nil {
				timer = time.After(settles)
			}
		case <-timer:
			timer = nil
			if err := show(state); err != nil {
				return err
			}
		case err := <-ended:
			return err
		}
	}
}

// feed sends the objects of one source, and then their changes. A watch begins before
// the list, so no change is missed.
func (c cluster) feed(ctx context.Context, namespace string, s source, changes chan<- func(*objects)) error {
	for {
		if err := c.feedOnce(ctx, namespace, s, changes); err != nil {
			return err
		}
		select {
		case <-time.After(betweenWatches):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (c cluster) feedOnce(ctx context.Context, namespace string, s source, changes chan<- func(*objects)) error {
	options := append(s.options, client.InNamespace(namespace))
	list := s.list()
	watching, err := c.Watch(ctx, list, options...)
	if err == nil {
		defer watching.Stop()
		err = c.List(ctx, list, options...)
	}
	if s.lost != "" && apierrors.IsForbidden(err) {
		send(ctx, changes, func(o *objects) { s.replace(o, s.list()) })
		<-ctx.Done()
		return ctx.Err()
	}
	if err != nil {
		return fmt.Errorf("watch %s: %w", s.name, err)
	}
	send(ctx, changes, func(o *objects) { s.replace(o, list) })
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case e, open := <-watching.ResultChan():
			object, ok := e.Object.(client.Object)
			if !open || !ok {
				return ctx.Err()
			}
			send(ctx, changes, func(o *objects) { s.note(o, object, e.Type == watch.Deleted) })
		}
	}
}

func send(ctx context.Context, changes chan<- func(*objects), change func(*objects)) {
	select {
	case changes <- change:
	case <-ctx.Done():
	}
}
