// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package wait

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
	// noticeAfter delays the first notice, so that a pod with a short wait writes none.
	noticeAfter = 10 * time.Second
	// warnAfter is longer than most migrations and starts take. So a warning means that a
	// person should investigate.
	warnAfter = 5 * time.Minute

	// The pod sends an Event again if the API server has not stored the Event. Usually a pod
	// waits long because a right is missing. Then the API server may refuse the Events, too.
	// The pause before the second attempt is longer than a restart of the API server takes.
	eventTimeout       = 10 * time.Second
	shortestEventPause = 15 * time.Second
	longestEventPause  = 5 * time.Minute
)

// These are the reasons of the Events that a wait writes.
const (
	eventWaits  = "WaitsForCondition"
	eventNotMet = "ConditionNotMet"
)

// notices tells people for which condition the pod waits, by Events and lines in the log. A
// goroutine other than the wait's sends the Events, so no Event delays the wait.
type notices struct {
	config    Config
	condition api.Condition
	began     time.Time

	mu sync.Mutex
	// cause explains why the condition is not met, according to the last state of the Lease or
	// the last error.
	cause string
}

func newNotices(c Config, condition api.Condition) *notices {
	return &notices{config: c, condition: condition, began: time.Now(), cause: "The API server has not answered yet."}
}

// The method "because" stores the reason why the condition is not met.
func (n *notices) because(cause string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cause = cause
}

// met writes a line about the end of the wait, if a notice has reported the wait.
func (n *notices) met() {
	if waited := time.Since(n.began); waited > noticeAfter {
		n.log(fmt.Sprintf("The pod has waited %v until %s.", waited.Round(time.Second), goal(n.condition)))
	}
}

// run writes the notice and the warning, each at its time, until ctx ends. If an Event is not
// stored, run sends it again, with growing pauses. When the warning is due, run stops its attempts
// to send the first notice.
func (n *notices) run(ctx context.Context) {
	warning := time.After(warnAfter)
	select {
	case <-time.After(noticeAfter):
	case <-ctx.Done():
		return
	}
	notice := func() (kube.EventType, string, string) {
		return kube.Normal, eventWaits, "The pod waits until " + goal(n.condition) + "."
	}
	n.tell(ctx, warning, notice)
	n.tell(ctx, nil, n.warning)
}

// warning returns the notice of a long wait, with the present cause.
func (n *notices) warning() (kube.EventType, string, string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return kube.Warning, eventNotMet, fmt.Sprintf(
		"The pod still waits until %s. %s See: kubectl metaparticle explain", goal(n.condition), n.cause)
}

// tell writes a line, and the same text as an Event. The function returns at the end of ctx, or
// when the next notice is due.
func (n *notices) tell(ctx context.Context, next <-chan time.Time, notice func() (kube.EventType, string, string)) {
	if ctx.Err() != nil {
		return
	}
	_, _, message := notice()
	n.log(message)
	at := time.Now()
	first := make(chan time.Time, 1)
	first <- at
	var again <-chan time.Time = first
	for pause := shortestEventPause; ; pause = min(2*pause, longestEventPause) {
		select {
		case <-again:
			kind, reason, message := notice()
			event := kube.Event{
				PodName: n.config.PodName, PodUID: n.config.PodUID,
				Type: kind, Reason: reason, Message: message, Time: at,
			}
			again = nil
			if n.send(ctx, event) != nil {
				again = time.After(pause)
			}
		case <-next:
			return
		case <-ctx.Done():
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

// goal describes the condition for people, as the end of a sentence.
func goal(c api.Condition) string {
	switch {
	case c.Opened > 0:
		return fmt.Sprintf("%d pods have arrived at the barrier of %s", c.Opened, c.Lease)
	case c.Sharded() && c.Key != "":
		return "all shards of " + c.Lease + " are done in the run " + c.Key
	case c.Sharded():
		return "all shards of " + c.Lease + " are done in one run"
	case c.Key == "":
		return "the holder of " + c.Lease + " serves"
	}
	return "key " + c.Key + " of " + c.Lease + " is done"
}

// failure returns what a person should check after a failed request.
func failure(err error) string {
	if errors.Is(err, kube.ErrForbidden) {
		return fmt.Sprintf("The pod has no right to read the Lease. Check the log of Metaparticle's webhook, which grants the right (%v).", err)
	}
	return fmt.Sprintf("The Lease cannot be read. Check the API server (%v).", err)
}
