// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package show

import (
	"strconv"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/gate"
	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/agent/probe"
	"github.com/metaparticle-io/metaparticle/api"
)

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
