// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/console/view"
)

const pauseLong = `Keeps pods from acquiring a slot until a resume. The holder continues. If its
application ends, no pod starts the application again. With --stop the holder
drains with its pod's grace, and releases. The command waits for that release. A
pause reaches no pod without a gate: --stop refuses if such a pod of the workload runs.
If SLOTS names several slots, the command pauses all of them.

Exit codes: 0 paused; 1 paused, but a pod still holds, or nothing has the name;
2 error; 3 refused, and nothing is written.`

const resumeLong = `Ends a pause. If no pod holds the slot, a standby acquires the slot.

Exit codes: 0 resumed; 1 nothing has the name; 2 error; 3 refused.`

func (p *plugin) pauseCommand() *cobra.Command {
	stop, timeout := false, time.Duration(0)
	c := &cobra.Command{
		Use: "pause SLOTS", Short: "Keep pods from acquiring a slot", Long: pauseLong + slotsHelp,
		Example: `  kubectl metaparticle pause lock/migrate
  kubectl metaparticle pause --stop deployment/biller`,
		ValidArgsFunction: p.completion(targets),
	}
	c.Flags().BoolVar(&stop, "stop", false, "stop the holder, too")
	durationFlag(c.Flags(), &timeout, "timeout", "`DURATION` of the wait for --stop at most; default: the lease duration and the pod's grace")
	c.RunE = p.runs(func(ctx context.Context, args []string) (int, error) {
		pause := api.PauseHold
		if stop {
			pause = api.PauseStop
		}
		return p.onSlots(ctx, args, pausing{std: p.std, pause: pause, timeout: timeout}.run)
	})
	return c
}

func (p *plugin) resumeCommand() *cobra.Command {
	return &cobra.Command{
		Use: "resume SLOTS", Short: "End a pause", Long: resumeLong + slotsHelp,
		Example:           `  kubectl metaparticle resume lock/migrate`,
		ValidArgsFunction: p.completion(targets),
		RunE: p.runs(func(ctx context.Context, args []string) (int, error) {
			return p.onSlots(ctx, args, pausing{std: p.std}.run)
		}),
	}
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
			code = exitNot
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
