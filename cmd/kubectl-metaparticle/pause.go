// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/console/view"
)

var pauseUsage = `Keeps pods from acquiring a slot until a resume. The holder continues. If its
application ends, no pod starts the application again. With --stop the holder
drains with its pod's grace, and releases. The command waits for that release. A
pause reaches no pod without a gate: --stop refuses if such a pod of the workload runs.
SLOTS is KIND/NAME, such as deployment/biller or pod/biller-0, or a slot as status
prints it, or one of ` + shared() + `.
If SLOTS names several slots, the command pauses all of them.

Exit codes: 0 paused; 1 refused, and nothing is written; 2 error; 3 paused, but a
pod still holds.

  kubectl metaparticle pause [-n NAMESPACE] [--stop] [--timeout D] SLOTS
`

const resumeUsage = `Ends a pause. If no pod holds the slot, a standby acquires the slot.

Exit codes: 0 resumed; 1 refused; 2 error.

  kubectl metaparticle resume [-n NAMESPACE] SLOTS
`

func pauseCommand(ctx context.Context, args []string, std stdio) (int, error) {
	flags, connection := newNamespaceFlags("pause", pauseUsage, std)
	stop := flags.Bool("stop", false, "stop the holder, too")
	var timeout time.Duration
	durationFlag(flags, &timeout, "timeout", "`DURATION` of the wait for --stop at most; default: the lease duration and the pod's grace")
	c, namespace, rest, err := connection.begin(flags, args, nameSlots)
	if err != nil {
		return exitError, err
	}
	p := pausing{std: std, pause: api.PauseHold, timeout: timeout}
	if *stop {
		p.pause = api.PauseStop
	}
	return p.run(ctx, c, namespace, rest)
}

func resumeCommand(ctx context.Context, args []string, std stdio) (int, error) {
	flags, connection := newNamespaceFlags("resume", resumeUsage, std)
	c, namespace, rest, err := connection.begin(flags, args, nameSlots)
	if err != nil {
		return exitError, err
	}
	return pausing{std: std}.run(ctx, c, namespace, rest)
}

// pausing is a person's request to pause slots, or to resume slots.
type pausing struct {
	std stdio
	// pause is empty if the person resumes the slots.
	pause   api.Pause
	timeout time.Duration
}

func (p pausing) run(ctx context.Context, c cluster, namespace string, args []string) (int, error) {
	s, err := findSoon(ctx, c, namespace, args)
	if err != nil {
		return exitError, err
	}
	for _, slot := range s.slots {
		if s.leases[slot] == nil {
			return exitError, refusal(fmt.Sprintf("%s has no Lease yet: check the name, or start a gated pod that claims the slot, for which enroll makes the Lease", slot))
		}
	}
	if p.pause == api.PauseStop && len(s.bare) > 0 {
		return exitError, refusal(fmt.Sprintf("%s, and a pause does not stop them; %s", s.bareText(), s.gates()))
	}
	s.warnOfBare(p.std)
	began := time.Now()
	for _, slot := range s.slots {
		if err := s.annotate(ctx, slot, p.annotations()); err != nil {
			return exitError, err
		}
		if p.pause != api.PauseStop {
			say(p.std.out, "%s: %s", slot, p.said(s.leases[slot]))
		}
	}
	if p.pause != api.PauseStop {
		return exitOK, nil
	}
	return p.await(ctx, s, began)
}

// annotations returns the annotations for the Leases. A pause removes a request to yield that
// the holder has not obeyed yet. Otherwise the holder would yield unexpectedly after the pause.
func (p pausing) annotations() map[string]any {
	if p.pause == "" {
		return map[string]any{api.PausedAnnotation: nil}
	}
	return map[string]any{api.PausedAnnotation: string(p.pause), api.YieldAnnotation: nil}
}

// said returns the text about one slot. The command prints this text if the command does not wait
// for the release of the slot.
func (p pausing) said(before *coordinationv1.Lease) string {
	holder, was := view.HolderOf(before), api.PauseOf(before.Annotations)
	switch {
	case p.pause == "" && was == "":
		return "was not paused"
	case p.pause == "":
		return "resumed"
	case holder == "":
		return "paused; nobody holds"
	}
	return "paused; " + api.PodOf(holder) + " holds, and goes on"
}

// await waits until every slot is released, or until the timeout is over.
func (p pausing) await(ctx context.Context, s *subject, began time.Time) (int, error) {
	timeout := p.timeout
	if timeout == 0 {
		timeout = s.stopsWithin()
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	code := exitOK
	for _, slot := range s.slots {
		var holder string
		var renewed *metav1.MicroTime
		seen := began
		err := s.cluster.await(ctx, types.NamespacedName{Namespace: s.namespace, Name: slot}, func(l *coordinationv1.Lease) bool {
			if !l.Spec.RenewTime.Equal(renewed) {
				renewed, seen = l.Spec.RenewTime, time.Now()
			}
			holder = view.HolderOf(l)
			return holder == ""
		})
		switch took := round(time.Since(began)); {
		case errors.Is(err, context.DeadlineExceeded):
			// A pod with the gate "pod" releases nothing, so the slot becomes free only when the
			// Lease expires.
			say(p.std.err, "%s: paused; %s still holds after %s, and has not renewed for %s",
				slot, api.PodOf(holder), took, round(time.Since(seen)))
			code = exitUnreached
		case err != nil:
			return exitError, err
		case view.HolderOf(s.leases[slot]) == "":
			say(p.std.out, "%s: paused; nobody holds", slot)
		default:
			say(p.std.out, "%s: paused; %s has stopped, %s after the request", slot, api.PodOf(view.HolderOf(s.leases[slot])), took)
		}
	}
	return code, nil
}

// stopsWithin returns the sum of the longest lease duration and the longest grace.
func (s *subject) stopsWithin() time.Duration {
	var duration, grace time.Duration
	for _, l := range s.leases {
		duration = max(duration, time.Duration(ptr.Deref(l.Spec.LeaseDurationSeconds, 0))*time.Second)
	}
	for _, pod := range s.pods {
		grace = max(grace, graceOf(pod))
	}
	return duration + grace
}
