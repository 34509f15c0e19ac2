// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package after

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/api"
)

const (
	// noticeAfter delays the first notice. A pod whose wait is short says nothing.
	noticeAfter = 10 * time.Second
	// warnAfter is longer than most migrations and starts. So a warning means that a person
	// should look.
	warnAfter = 5 * time.Minute

	// An Event is sent three times at most. The API server may be restarting, or enroll has
	// not granted the right yet, so the pause is longer than either takes.
	eventAttempts = 3
	eventTimeout  = 10 * time.Second
	eventPause    = 15 * time.Second
)

// Reasons of the Events.
const (
	eventWaits  = "WaitsForCondition"
	eventNotMet = "ConditionNotMet"
)

// notices tell people about the wait for one condition, beside that wait.
type notices struct {
	config    Config
	condition api.Condition
	began     time.Time

	mu sync.Mutex
	// cause is why the condition is not met, by the last state or error.
	cause string
}

func newNotices(c Config, condition api.Condition) *notices {
	return &notices{config: c, condition: condition, began: time.Now(), cause: "The API server has not answered yet."}
}

// because stores why the condition is not met.
func (n *notices) because(cause string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cause = cause
}

// met writes a line if people have read that the pod waits.
func (n *notices) met() {
	if waited := time.Since(n.began); waited > noticeAfter {
		n.log(fmt.Sprintf("The pod has waited %v until %s.", waited.Round(time.Second), goal(n.condition)))
	}
}

// run writes both notices in their time, until ctx ends.
func (n *notices) run(ctx context.Context) {
	notice, warning := time.After(noticeAfter), time.After(warnAfter)
	for {
		select {
		case <-notice:
			n.tell(ctx, kube.Normal, eventWaits, "The pod waits until "+goal(n.condition)+".")
		case <-warning:
			n.mu.Lock()
			cause := n.cause
			n.mu.Unlock()
			n.tell(ctx, kube.Warning, eventNotMet, fmt.Sprintf(
				"The pod still waits until %s. %s See: kubectl metaparticle status", goal(n.condition), cause))
		case <-ctx.Done():
			return
		}
	}
}

// tell writes a line, and the same text as an Event.
func (n *notices) tell(ctx context.Context, kind kube.EventType, reason, message string) {
	n.log(message)
	event := kube.Event{
		PodName: n.config.PodName, PodUID: n.config.PodUID,
		Type: kind, Reason: reason, Message: message, Time: time.Now(),
	}
	for attempt := range eventAttempts {
		if attempt > 0 {
			select {
			case <-time.After(eventPause):
			case <-ctx.Done():
				return
			}
		}
		if n.send(ctx, event) == nil {
			return
		}
	}
}

func (n *notices) send(ctx context.Context, event kube.Event) error {
	ctx, cancel := context.WithTimeout(ctx, eventTimeout)
	defer cancel()
	return n.config.API.CreateEvent(ctx, event)
}

func (n *notices) log(text string) { fmt.Fprintf(n.config.Log, "metaparticle: %s\n", text) }

// goal returns the condition in words, as the end of a sentence.
func goal(c api.Condition) string {
	if c.Key == "" {
		return "the holder of " + c.Lease + " serves"
	}
	return "key " + c.Key + " of " + c.Lease + " is done"
}

// failure returns what a person checks after a failed request.
func failure(err error) string {
	if errors.Is(err, kube.ErrForbidden) {
		return fmt.Sprintf("The pod has no right to read the Lease. Check the log of Metaparticle's webhook, which grants the right (%v).", err)
	}
	return fmt.Sprintf("The Lease cannot be read. Check the API server (%v).", err)
}
