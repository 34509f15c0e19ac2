// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package status

import (
	"context"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/ends"
	"github.com/metaparticle-io/metaparticle/agent/gate"
	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/agent/pace"
	"github.com/metaparticle-io/metaparticle/agent/probe"
	"github.com/metaparticle-io/metaparticle/api"
)

// Events writes Events on the pod for people, in goroutines beside that of the agent's loop.
// An Event that cannot be written soon is dropped, because the log has the same fact. Only the
// agent's loop adds Events.
type Events struct {
	config Config
	// own has the Events about the agent's decisions. The field "caused" has the Events that
	// the application can cause. So no Event about a decision waits for an Event of the application.
	own, caused *queue
	// pace bounds the Events of the field "caused". The field leftOut counts the Events beyond that
	// bound. The field "dry" reports that the last such Event was left out.
	pace    pace.Pace
	leftOut int
	dry     bool
}

// queued bounds the number of own Events in the queue. A few holds together cause about 16 Events.
// More Events would wait only while the API server accepts none.
const queued = 16

const (
	// causedBurst bounds the Events that an application can cause at once. The kubelet has the same bound
	// for its Events about one object.
	causedBurst = 25
	// causedPause is the least average time between two further Events that an application causes. The
	// API server keeps an Event for an hour, and an Event has a few kilobytes at most. So the
	// application of one pod fills less than a megabyte of etcd. The kubelet has a pause of 5 min. An
	// agent has a shorter pause, because several containers of its pod share this pace.
	causedPause = time.Minute
)

// NewEvents returns an [Events] with empty queues. [Events.Run] writes the queued Events to the
// API server.
func NewEvents(config Config) *Events {
	return &Events{
		config: config, own: newQueue(config, queued), caused: newQueue(config, causedBurst),
		pace: pace.Pace{Every: causedPause, Burst: causedBurst},
	}
}

// Run writes the Events until ctx ends.
func (e *Events) Run(ctx context.Context) {
	var group sync.WaitGroup
	defer group.Wait()
	group.Go(func() { e.caused.run(ctx) })
	e.own.run(ctx)
}

// lastEvents bounds the time in which a stopping agent sends its last Events.
const lastEvents = time.Second

// Flush sends the queued Events before the end of an agent that got a stop signal. Flush also
// waits for each Event that is being sent.
func (e *Events) Flush(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, lastEvents)
	defer cancel()
	e.own.flush(ctx)
	e.caused.flush(ctx)
}

func (e *Events) add(kind kube.EventType, reason, message string) {
	e.own.put(plain(kind, reason, message))
}

// plain returns an Event about the pod, with a message of one line.
func plain(kind kube.EventType, reason, message string) kube.Event {
	return kube.Event{Type: kind, Reason: reason, Message: printable(message)}
}

// Acquired adds the Event about the beginning of a hold.
func (e *Events) Acquired(tokens []api.Token) {
	var parts []string
	for _, t := range tokens {
		parts = append(parts, fmt.Sprintf("%s (token %s)", t.Slot, t.Token))
	}
	e.add(kube.Normal, eventAcquired, "this pod holds "+strings.Join(parts, ", "))
}

// Released adds the Event that a slot is free again. The argument "cause" is the cause of the
// application's end; empty if the method Ends has added an Event about that end.
func (e *Events) Released(slot, cause string) {
	if cause != "" {
		cause = ": " + cause
	}
	e.add(kube.Normal, eventReleased, slot+" "+api.FreeAgain+cause)
}

// Ends adds the Event with the reason why a hold ends. If the child has ended by itself,
// the function adds no Event, because Kubernetes reports the end of the container. A hold without
// slots has no Event, either.
func (e *Events) Ends(why *ends.Row, slots []string) {
	if len(slots) == 0 || why.Event == "" {
		return
	}
	kind := kube.Normal
	if why.Warning {
		kind = kube.Warning
	}
	e.add(kind, why.Reason, fmt.Sprintf(why.Event, strings.Join(slots, ", ")))
}

// Paused adds the Event of a pause. The argument "pause" is the pause in words. If the
// argument "stops" is true, the pause also stops the application of this holder.
func (e *Events) Paused(pause string, stops bool) {
	part := ": this pod goes on, and no other takes the slot"
	if stops {
		part = ": draining, and no pod takes the slot"
	}
	e.add(kube.Normal, ends.Paused.Reason, pause+part)
}

// Skipped adds the Event that the pod ends instead of waiting, with the holder as the cause.
func (e *Events) Skipped(holder string) {
	e.add(kube.Normal, eventSkipped, holder+": this pod ends with exit code 0 and does not start its application")
}

// StartsSlowly adds the Event that this pod has held the start lock for a long time.
func (e *Events) StartsSlowly(slot string, since time.Duration) {
	e.add(kube.Warning, eventSlowStart, "this pod has held "+slot+" for "+since.String()+": its application is not ready, and other pods wait to start")
}

// NotReleased adds the Event that the slots have to expire.
func (e *Events) NotReleased(slots []string) {
	if len(slots) == 0 {
		return
	}
	e.add(kube.Warning, eventNotReleased,
		strings.Join(slots, ", ")+" has to expire: nothing proves that every child is dead")
}

// cause adds an Event that the application can cause, for example by a false report of a shim. Beyond the
// pace, the Event is left out. One line in the log then stands for all such Events until the next
// Event.
func (e *Events) cause(now time.Duration, event kube.Event) {
	if e.pace.TrySpend(now) && e.caused.put(event) {
		e.dry = false
		return
	}
	e.leftOut++
	if !e.dry {
		e.dry = true
		e.config.Log.Warn("an Event is left out: the application, or requests of probes, cause too many",
			"reason", event.Reason, "container", event.Container, "leftOut", e.leftOut)
	}
}

// Probed adds the Event of a probe, as the kubelet would. The output of a probe may have several lines,
// and kubectl shows the lines of the kubelet's Events, too.
func (e *Events) Probed(now time.Duration, n probe.Notice) {
	kind := kube.Normal
	if n.Warning {
		kind = kube.Warning
	}
	e.cause(now, kube.Event{Container: n.Container, Type: kind, Reason: n.Reason, Message: printableLines(n.Message)})
}

// Trouble adds the Event of a shim's failure. If a postStart hook has failed, the function
// also adds the Event Killing, as the kubelet does.
func (e *Events) Trouble(now time.Duration, t gate.Trouble) {
	e.cause(now, plain(kube.Warning, t.Reason, t.Message))
	if t.Reason == gate.ReasonPostStart {
		e.cause(now, plain(kube.Normal, eventKilling, t.Reason))
	}
}

// Silent adds the Event that a shim sends no heartbeats.
func (e *Events) Silent(now time.Duration, container string) {
	e.cause(now, plain(kube.Warning, eventShimSilent,
		"the shim of container "+container+" sends no heartbeats: it is frozen or starved and guards no deadline"))
}

// AlreadyDone adds the Event that a container ends because its work is done.
func (e *Events) AlreadyDone(now time.Duration, container, reason string) {
	e.cause(now, plain(kube.Normal, eventDone, reason+": container "+container+" ends with exit code 0 and does not run"))
}

// WaitedTooLong adds the Event that a container has waited for as long as it may.
func (e *Events) WaitedTooLong(now time.Duration, container, reason string) {
	e.cause(now, plain(kube.Warning, eventWaited, reason+": container "+container+" ends with exit code "+strconv.Itoa(api.ExitWaited)))
}

// queue sends Events one after the other. A slow Event delays only the Events of the same queue.
type queue struct {
	config Config
	events chan kube.Event
	// news contains a value if an Event was queued after the method "run" last read the queue.
	news chan struct{}
	// sending is full while a goroutine sends an Event.
	sending chan struct{}
}

// newQueue returns an empty queue with room for so many Events.
func newQueue(config Config, room int) *queue {
	return &queue{
		config: config, events: make(chan kube.Event, room),
		news: make(chan struct{}, 1), sending: make(chan struct{}, 1),
	}
}

// put adds an Event. The result is false if the queue is full, and the Event is dropped.
func (q *queue) put(event kube.Event) (queued bool) {
	event.PodName, event.PodUID, event.Time = q.config.PodName, q.config.PodUID, q.config.Wall()
	select {
	case q.events <- event:
		queued = true
	default:
	}
	select {
	case q.news <- struct{}{}:
	default:
	}
	return queued
}

// run sends the Events until ctx ends.
func (q *queue) run(ctx context.Context) {
	for {
		select {
		case <-q.news:
		case <-ctx.Done():
			return
		}
		select {
		case <-time.After(Calm):
		case <-ctx.Done():
			return
		}
		q.flush(ctx)
		q.config.Idle()
	}
}

// flush sends the queued Events. Flush also waits for an Event that is being sent.
func (q *queue) flush(ctx context.Context) {
	select {
	case q.sending <- struct{}{}:
	case <-ctx.Done():
		return
	}
	defer func() { <-q.sending }()
	for ctx.Err() == nil {
		select {
		case event := <-q.events:
			q.send(ctx, event)
		default:
			return
		}
	}
}

func (q *queue) send(ctx context.Context, event kube.Event) {
	ctx, cancel := context.WithTimeout(ctx, q.config.Timeout)
	defer cancel()
	if err := q.config.API.CreateEvent(ctx, event); err != nil {
		q.config.Log.Log(ctx, slog.LevelDebug, "no event", "reason", event.Reason, "err", err)
	}
}
