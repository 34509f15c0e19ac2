// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package show

import (
	"context"
	"log/slog"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/kube"
)

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
