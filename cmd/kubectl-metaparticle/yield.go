// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/console/view"
)

const yieldLong = `Hands a slot over: the holder drains with its pod's grace, and releases. The
command waits until another pod holds, and prints that pod and the duration.
The command refuses a start lock. If several pods hold, name one of them as pod/NAME.

In a rollout that stalls, pods of the new version do not acquire a slot that all
pods may acquire. With --to POD, the turn of such a pod begins.

Exit codes: 0 another pod holds; 1 the request is written, but in time no pod, or a
pod other than POD, holds, or nothing has the name; 2 error; 3 refused, and nothing is
written.`

func (p *plugin) yieldCommand() *cobra.Command {
	y := yielding{std: p.std}
	c := &cobra.Command{
		Use: "yield SLOTS", Short: "Hand a slot over to another pod", Long: yieldLong + slotsHelp,
		Example: `  kubectl metaparticle yield deployment/biller
  kubectl metaparticle yield lock/migrate --to biller-7d4f9-x2x8z`,
		ValidArgsFunction: p.completion(targets),
	}
	c.Flags().StringVar(&y.to, "to", "", "`POD` that is to hold next; default: any standby")
	durationFlag(c.Flags(), &y.timeout, "timeout", "`DURATION` of the wait at most; default: the lease duration, the pod's grace, the endpoint delay and 10s")
	p.completeFlag(c, "to", successors)
	c.RunE = p.runs(func(ctx context.Context, args []string) (int, error) {
		y.to = strings.TrimPrefix(y.to, "pod/")
		return p.onSlots(ctx, args, y.run)
	})
	return c
}

// onSlots runs a command about the slots that the arguments name.
func (p *plugin) onSlots(ctx context.Context, args []string, run func(context.Context, cluster, string, []string) (int, error)) (int, error) {
	if err := nameSlots(args); err != nil {
		return exitError, err
	}
	opened, namespace, err := p.open()
	if err != nil {
		return exitError, err
	}
	return run(ctx, opened, namespace, args)
}

// yielding is one yield that a person asks for.
type yielding struct {
	std     stdio
	to      string
	timeout time.Duration
}

func (y yielding) run(ctx context.Context, c cluster, namespace string, args []string) (int, error) {
	s, err := findSoon(ctx, c, namespace, args)
	if err != nil {
		return exitError, err
	}
	if s.slots, _ = api.SplitSlots(s.slots); len(s.slots) == 0 {
		return exitError, refusal(s.title + " is a start lock, which ends when the application is ready: delete its pod to end the start")
	}
	if api.RunOf(s.slots[0]) != "" {
		return exitError, refusal(s.title + " is a barrier, at which pods wait: delete a pod to make room for another one")
	}
	held, err := s.held()
	if err != nil {
		return exitError, err
	}
	asked := api.Yield{Hold: held.number}
	switch {
	case y.to == "":
		err = s.anyFit(held)
	case held.expires:
		err = refusal(fmt.Sprintf("%s has the gate pod: its slot runs out, and any standby takes it; leave out --to", api.PodOf(held.identity)))
	default:
		asked.Successor, err = s.fit(ctx, held, y.to)
	}
	if err != nil {
		return exitError, err
	}
	s.warnOfBare(y.std)
	began := time.Now()
	slot := held.slots[0]
	if err := s.annotate(ctx, slot, map[string]any{api.YieldAnnotation: asked.String()}); err != nil {
		return exitError, err
	}
	timeout := y.timeout
	if timeout == 0 {
		timeout = held.mostTime()
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	return y.await(ctx, s, held, slot, began)
}

// findSoon calls findSlots with the timeout readTimeout. A name that nothing has is an error.
func findSoon(ctx context.Context, c cluster, namespace string, args []string) (*subject, error) {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	s, err := findSlots(ctx, c, namespace, args)
	if err != nil {
		return s, err
	}
	return s, s.known()
}

// await waits until another hold of the slot has begun, and prints the new holder. For a read-write
// lock, await waits only for the release.
func (y yielding) await(ctx context.Context, s *subject, held hold, slot string, began time.Time) (int, error) {
	var next string
	var released time.Duration
	err := s.cluster.await(ctx, types.NamespacedName{Namespace: s.namespace, Name: slot}, func(l *coordinationv1.Lease) bool {
		if view.HolderOf(l) == "" && released == 0 {
			released = time.Since(began)
		}
		next = view.HolderOf(l)
		if next == "" && api.IsRWLockSlot(slot) {
			return true // after the release, a read-write lock may stay free
		}
		return next != "" && (next != held.identity || l.Annotations[api.HoldAnnotation] != held.number)
	})
	took := round(time.Since(began))
	switch {
	case errors.Is(err, context.DeadlineExceeded) && released > 0:
		say(y.std.err, "%s: %s released after %s, and nobody holds after %s", slot, api.PodOf(held.identity), round(released), took)
		return exitNot, nil
	case errors.Is(err, context.DeadlineExceeded):
		say(y.std.err, "%s: %s still holds after %s; it yields when its agent reads the Lease, unless that is of an earlier version",
			slot, api.PodOf(held.identity), took)
		return exitNot, nil
	case err != nil:
		return exitError, err
	}
	if next == "" {
		say(y.std.out, "%s: %s has released, %s after the request", slot, api.PodOf(held.identity), took)
		return exitOK, nil
	}
	say(y.std.out, "%s: %s holds, %s after the request", slot, api.PodOf(next), took)
	if next == held.identity {
		say(y.std.err, "no other pod took the slot")
		return exitNot, nil
	}
	if y.to != "" && api.PodOf(next) != y.to {
		say(y.std.err, "%s did not take the slot within its head start", y.to)
		return exitNot, nil
	}
	return exitOK, nil
}

// round returns the duration as people read it.
func round(d time.Duration) time.Duration {
	if d < time.Second {
		return d.Round(time.Millisecond)
	}
	return d.Round(100 * time.Millisecond)
}

// hold is one pod's hold of some of the subject's slots. The field "number" is the value of
// [api.HoldAnnotation].
type hold struct {
	identity, number string
	slots            []string
	duration, grace  time.Duration
	// endpointDelay is the time for which the holder serves after it has left its Services.
	endpointDelay time.Duration
	// expires reports that the pod's gate releases nothing, so the slots expire.
	expires bool
}

// held returns the only hold of the slots. The error is a refusal if no pod holds, if several pods
// hold, or if the holder cannot hand its slots over.
func (s *subject) held() (hold, error) {
	var holds []hold
	for _, slot := range s.slots {
		l := s.leases[slot]
		holder := view.HolderOf(l)
		if holder == "" || s.pod != "" && api.PodOf(holder) != s.pod {
			continue
		}
		if err := s.yields(slot, l); err != nil {
			return hold{}, err
		}
		number := l.Annotations[api.HoldAnnotation]
		i := slices.IndexFunc(holds, func(h hold) bool { return h.identity == holder && h.number == number })
		if i < 0 {
			i = len(holds)
			holds = append(holds, hold{identity: holder, number: number})
		}
		holds[i].slots = append(holds[i].slots, slot)
		holds[i].duration = max(holds[i].duration, time.Duration(ptr.Deref(l.Spec.LeaseDurationSeconds, 0))*time.Second)
	}
	switch {
	case len(holds) == 0 && s.pod != "":
		return hold{}, refusal(fmt.Sprintf("%s does not hold %s: see the holder by kubectl metaparticle status", s.pod, strings.Join(s.slots, ", ")))
	case len(holds) == 0:
		text := fmt.Sprintf("nobody holds %s: there is nothing to yield", strings.Join(s.slots, ", "))
		if len(s.bare) > 0 {
			text += "; " + s.bareText() + "; " + s.gates()
		}
		return hold{}, refusal(text)
	case len(holds) > 1:
		var names []string
		for _, h := range holds {
			names = append(names, "pod/"+api.PodOf(h.identity))
		}
		return hold{}, refusal(fmt.Sprintf("%d pods hold slots of %s: name one of %s", len(holds), s.title, strings.Join(names, ", ")))
	}
	// In one return statement, Go might copy holds[0] before the method "holding" sets fields
	// of holds[0].
	err := s.holding(&holds[0])
	return holds[0], err
}

// yields returns a refusal if the holder of the slot cannot hand the slot over.
func (s *subject) yields(slot string, l *coordinationv1.Lease) error {
	_, person := api.PersonOf(view.HolderOf(l))
	switch {
	case person:
		return refusal(fmt.Sprintf("%s is held by %s, by kubectl metaparticle hold: ask that person, or pause --stop the slot", slot, api.PodOf(view.HolderOf(l))))
	case !ours(l):
		return refusal(fmt.Sprintf("%s is held by %s, which is no agent of a gated pod: let that program release the slot itself", slot, view.HolderOf(l)))
	case api.PauseOf(l.Annotations) != "":
		return refusal(fmt.Sprintf("%s is paused, so no pod would follow: resume it first", slot))
	}
	return nil
}

// holding stores the grace of the holder's pod, and whether the slots expire because the pod's gate
// does not release them. If the pod is gone or is being deleted, the result is a refusal, because
// the hold ends without a yield.
func (s *subject) holding(h *hold) error {
	i := slices.IndexFunc(s.pods, func(p corev1.Pod) bool { return view.IdentityOf(p) == h.identity })
	switch {
	case i < 0:
		return refusal(fmt.Sprintf("%s, which holds %s, is gone: no pod acquires the slot until the Lease has not changed for %s",
			api.PodOf(h.identity), h.slots[0], h.duration))
	case s.pods[i].DeletionTimestamp != nil:
		return refusal(fmt.Sprintf("%s, which holds %s, is being deleted, and hands over as it ends", api.PodOf(h.identity), h.slots[0]))
	}
	h.expires = s.pods[i].Annotations[api.GateAnnotation] == string(api.GatePod)
	h.grace, h.endpointDelay = graceOf(s.pods[i]), endpointDelayOf(s.pods[i])
	return nil
}

// leaveMargin is the time that a holder needs to leave its Services, beside the endpoint delay. The
// holder waits for offers, and for nodes that learn late.
const leaveMargin = 10 * time.Second

// mostTime returns the longest usual time from a yield until the next hold.
func (h hold) mostTime() time.Duration {
	return h.duration + h.grace + h.endpointDelay + leaveMargin
}

// endpointDelayOf returns the endpoint delay of a pod. The webhook has refused each pod whose
// annotation is no duration.
func endpointDelayOf(pod corev1.Pod) time.Duration {
	if delay, err := time.ParseDuration(pod.Annotations[api.EndpointDelayAnnotation]); err == nil {
		return delay
	}
	return api.DefaultEndpointDelay
}

// fit returns the identity of the named pod, if that pod stands by for a slot of the hold. For any
// other pod, fit returns a refusal.
func (s *subject) fit(ctx context.Context, h hold, name string) (string, error) {
	var pod corev1.Pod
	if err := s.cluster.Get(ctx, types.NamespacedName{Namespace: s.namespace, Name: name}, &pod); err != nil {
		return "", fmt.Errorf("read pod: %w", err)
	}
	why := s.unfit(pod, h)
	if why != "" {
		return "", refusal(fmt.Sprintf("%s cannot hold next: it %s", name, why))
	}
	return view.IdentityOf(pod), nil
}

// unfit returns the reason why the pod cannot hold next. The text is empty if the pod stands by for
// a slot of the hold.
func (s *subject) unfit(pod corev1.Pod, h hold) string {
	var leases []*coordinationv1.Lease
	for _, slot := range view.Claimed(pod) {
		leases = append(leases, s.leases[slot])
	}
	claims := slices.ContainsFunc(h.slots, func(slot string) bool { return slices.Contains(view.Claimed(pod), slot) })
	if why := unfit(pod, leases); why != "" || claims {
		return why
	}
	return "does not claim " + strings.Join(h.slots, ", ")
}

// anyFit returns a refusal if no standby can take the slot. Without the refusal, the
// holder would stop, and acquire the slot again. A pod that waits for its turn cannot take
// the slot, because a free slot goes to the pods of the old revision first.
func (s *subject) anyFit(h hold) error {
	var unfit []string
	remedy := ""
	for _, pod := range s.pods {
		why := s.unfit(pod, h)
		said, _ := view.Condition(pod)
		switch {
		case why == "" && said.Reason == api.ReasonWaitsForItsTurn:
			why, remedy = "waits for its turn: "+said.Message, "; --to "+pod.Name+" begins its turn at once"
		case why == "":
			return nil
		}
		if view.IdentityOf(pod) != h.identity {
			unfit = append(unfit, "; "+pod.Name+" "+why)
		}
	}
	return refusal(fmt.Sprintf("no pod stands by for %s: %s would stop, and start again%s%s",
		h.slots[0], api.PodOf(h.identity), strings.Join(unfit, ""), remedy))
}

// annotate changes annotations of a slot's Lease. A nil value removes an annotation. The patch
// names no resourceVersion, because a late patch does no harm. A request to yield names a hold,
// and no other hold obeys that request. A pause is meant for every holder.
func (s *subject) annotate(ctx context.Context, slot string, annotations map[string]any) error {
	lease := new(coordinationv1.Lease)
	lease.Namespace, lease.Name = s.namespace, slot
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": annotations}})
	if err != nil {
		return fmt.Errorf("patch lease %s: %w", slot, err)
	}
	if err := s.cluster.Patch(ctx, lease, client.RawPatch(types.MergePatchType, patch)); err != nil {
		return fmt.Errorf("patch lease %s: %w", slot, err)
	}
	return nil
}
