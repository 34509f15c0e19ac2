// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/gate"
	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/agent/probe"
)

// Reasons of the Events on the pod, beside those of a hold's end.
const (
	eventAcquired    = "Acquired"
	eventReleased    = "Released"
	eventNotReleased = "NotReleased"
	eventShimSilent  = "ShimSilent"
	eventKilling     = "Killing" // as the kubelet calls it
)

// events tells people what happens to the pod, beside the loop. What cannot be
// written soon is dropped: the log has it too.
type events struct {
	config  Config
	timeout time.Duration
	queue   chan kube.Event
	// news: something was queued since the last look.
	news chan struct{}
	// sending is full while somebody sends.
	sending chan struct{}
}

// queued is how many Events may wait: those of a few holds. More than that come
// only while nothing can be written anyway.
const queued = 16

func newEvents(config Config, timeout time.Duration) *events {
	return &events{
		config: config, timeout: timeout, queue: make(chan kube.Event, queued),
		news: make(chan struct{}, 1), sending: make(chan struct{}, 1),
	}
}

// calm is how long what is only for people's eyes waits: a handover is over by
// then, and neither the API server nor a small machine was kept from it.
const calm = 100 * time.Millisecond

func (e *events) run(ctx context.Context) {
	for {
		select {
		case <-e.news:
		case <-ctx.Done():
			return
		}
		select {
		case <-time.After(calm):
		case <-ctx.Done():
			return
		}
		e.sendAll(ctx)
		e.config.Calm()
	}
}

// parting bounds what a stopping agent, which is to leave quickly, waits for its
// last Events: the time of a retry.
const parting = time.Second

// flush sends what is queued, at the end of an agent that was asked to stop, and
// lets what is being sent arrive.
func (e *events) flush(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, parting)
	defer cancel()
	e.sendAll(ctx)
}

func (e *events) sendAll(ctx context.Context) {
	select {
	case e.sending <- struct{}{}:
	case <-ctx.Done():
		return
	}
	defer func() { <-e.sending }()
	for ctx.Err() == nil {
		select {
		case event := <-e.queue:
			e.send(ctx, event)
		default:
			return
		}
	}
}

func (e *events) send(ctx context.Context, event kube.Event) {
	ctx, cancel := context.WithTimeout(ctx, e.timeout)
	defer cancel()
	if err := e.config.API.CreateEvent(ctx, event); err != nil {
		e.config.Log.Log(ctx, slog.LevelDebug, "no event", "reason", event.Reason, "err", err)
	}
}

func (e *events) add(kind kube.EventType, reason, message string) {
	e.put(kube.Event{Type: kind, Reason: reason, Message: message})
}

// probed tells what a probe brought, as the kubelet would.
func (e *events) probed(n probe.Notice) {
	kind := kube.Normal
	if n.Warning {
		kind = kube.Warning
	}
	e.put(kube.Event{Container: n.Container, Type: kind, Reason: n.Reason, Message: n.Message})
}

func (e *events) put(event kube.Event) {
	event.PodName, event.PodUID, event.Time = e.config.PodName, e.config.PodUID, e.config.Wall()
	select {
	case e.queue <- event:
	default:
	}
	select {
	case e.news <- struct{}{}:
	default:
	}
}

func (e *events) acquired(tokens []gate.SlotToken) {
	var parts []string
	for _, t := range tokens {
		parts = append(parts, fmt.Sprintf("%s (token %s)", t.Slot, t.Token))
	}
	e.add(kube.Normal, eventAcquired, "this pod holds "+strings.Join(parts, ", "))
}

func (e *events) released(slot string) {
	e.add(kube.Normal, eventReleased, slot+" is free again")
}

// ends tells why a hold ends. The child's own end is the container's, which
// Kubernetes tells.
func (e *events) ends(reason string, slots []string) {
	names := strings.Join(slots, ", ")
	switch reason {
	case reasonYield:
		e.add(kube.Normal, reason, "draining to hand over "+names)
	case reasonPodDeleted:
		e.add(kube.Normal, reason, "draining to hand over "+names+": this pod is being deleted")
	case reasonLost:
		e.add(kube.Warning, reason, "draining: somebody else wrote into "+names)
	case reasonCutOff:
		e.add(kube.Warning, reason, "draining: "+names+" could not be renewed in time")
	case reasonUnproven:
		e.add(kube.Warning, reason, "draining: a shim that is gone may still run under "+names)
	case reasonNotGranted:
		e.add(kube.Warning, reason, "giving up "+names+": the application cannot be started here, see the agent's log")
	case reasonNotStarted:
		e.add(kube.Warning, reason, "giving up "+names+": the init container succeeded, and for "+startsWithin.String()+" nothing that is to run after it has started")
	case reasonDrained:
		e.add(kube.Warning, reason, "draining: a shim drained by itself, not hearing of a renewal of "+names)
	}
}

func (e *events) notReleased(slots []string) {
	e.add(kube.Warning, eventNotReleased,
		strings.Join(slots, ", ")+" has to expire: nothing proves that every child is dead")
}

// trouble tells what the kubelet tells of its own hooks.
func (e *events) trouble(t gate.Trouble) {
	e.add(kube.Warning, t.Reason, t.Message)
	if t.Reason == gate.ReasonPostStart {
		e.add(kube.Normal, eventKilling, t.Reason)
	}
}

func (e *events) silent(container string) {
	e.add(kube.Warning, eventShimSilent,
		"the shim of container "+container+" sends no heartbeats: it is frozen or starved and guards no deadline")
}
