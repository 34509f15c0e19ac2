// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/api/podspec"
	"github.com/metaparticle-io/metaparticle/console/view"
)

const explainLong = `Tells why a pod or workload is gated or not, which pods hold its slots, why a slot
moved last, and what its next move waits for. What keeps a claim from being in force
comes first, with the command that helps. The command only reads. KIND is pod, deployment, statefulset, daemonset, replicaset, job
or cronjob, or kubectl's short name of the kind. For the name of a REASON in a
refusal or an Event, the command tells what it means, and what to do.

Exit codes: 0 each claim is in force, or nothing claims; 1 a claim is not in
force: new pods get no gate or are refused, a pod runs without its gate, or no
pod can run; or nothing has the name; 2 error.`

// readTimeout bounds the time of all reads, because a person waits.
const readTimeout = 30 * time.Second

func (p *plugin) explainCommand() *cobra.Command {
	output := ""
	c := &cobra.Command{
		Use: "explain KIND/NAME|REASON", Short: "Tell why a pod or workload is gated or not", Long: explainLong,
		Example: `  kubectl metaparticle explain deployment/biller
  kubectl metaparticle explain pod biller-7d4f9-x2x8z -o json
  kubectl metaparticle explain ImageUnreadable`,
		ValidArgsFunction: p.targetsOrReasons,
	}
	outputFlag(c, &output)
	c.RunE = p.runs(func(ctx context.Context, args []string) (int, error) {
		if err := judgeOutput(output); err != nil {
			return exitError, err
		}
		if known := explanationOf(strings.Join(args, "/")); known != nil {
			say(p.std.out, "%s: %s", known.Reason, known.Meaning)
			say(p.std.out, "Do: %s", known.Do)
			return exitOK, nil
		}
		if len(args) == 1 && !strings.Contains(args[0], "/") && slotName(args) == "" {
			return exitError, fmt.Errorf("%q is no reason that this plugin knows: write KIND/NAME, as deployment/biller, or a reason, as ImageUnreadable", args[0])
		}
		kind, name, err := target(args)
		if err != nil {
			return exitError, err
		}
		opened, namespace, err := p.open()
		if err != nil {
			return exitError, err
		}
		config, err := p.config()
		if err != nil {
			return exitError, err
		}
		opened.minor = minor(config)
		ctx, cancel := context.WithTimeout(ctx, readTimeout)
		defer cancel()
		return explain(ctx, &explainer{cluster: opened, namespace: namespace, now: time.Now()}, p.std.out, output, kind, name)
	})
	return c
}

// explain reads the cluster's state and writes the answer about the object with the given kind and
// name.
func explain(ctx context.Context, e *explainer, out io.Writer, output, kind, name string) (int, error) {
	if err := e.gather(ctx, kind, name); err != nil {
		return exitError, err
	}
	e.judge()
	e.found = append(e.found, e.notForwarded...)
	text, err := []byte(e.report()), error(nil)
	if output != "" {
		text, err = encoded(e.explanation(), output)
	}
	if err == nil {
		_, err = out.Write(text)
	}
	if err != nil {
		return exitError, err
	}
	if !e.inForce() {
		return exitNot, nil
	}
	return exitOK, nil
}

// conditionLines returns a line for each condition. A condition gets no line if the command could
// not read the condition's first Lease.
func conditionLines(e *explainer) [][]string {
	var lines [][]string
	for _, c := range conditionsOf(e) {
		lease, read := e.leases[c.Leases()[0]]
		if !read {
			continue // the section "not readable" names this Lease
		}
		if c.Sharded() {
			lines = append(lines, []string{c.String(), shardsState(e, c, lease)})
			continue
		}
		lines = append(lines, []string{c.String(), leaseState(e, c, lease)})
	}
	return lines
}

// leaseState returns the text about a condition on one Lease: whether the condition is met, and why
// not. The Lease is nil if it does not exist.
func leaseState(e *explainer, c api.Condition, lease *coordinationv1.Lease) string {
	switch {
	case lease == nil:
		return "not met: no Lease, so no pod has claimed it yet"
	case c.Key == "":
		return holderState(e, lease)
	}
	switch done := api.Done(lease.Annotations[api.DoneAnnotation]); {
	case done.Has(c.Key):
		return "met: the key is done"
	case len(done.Keys()) >= api.MaxDone:
		return fmt.Sprintf("not met: the key is not among the last %d done keys", api.MaxDone)
	}
	return "not met: the key is not done"
}

// shardsState returns the text about a condition on the shards of a Job. The argument "first" is
// the first shard's Lease, or nil if that Lease does not exist.
func shardsState(e *explainer, c api.Condition, first *coordinationv1.Lease) string {
	if first == nil {
		return "not met: no Lease, so no Job has had these shards yet"
	}
	stamp := api.ParseStamp(first.Annotations[api.StampAnnotation])
	switch {
	case stamp.Run == "":
		return "not met: no run of a Job has begun"
	case c.Key != "" && stamp.Run != c.Key:
		return "not met: the Leases are for the run " + stamp.Run
	}
	done := 0
	for _, name := range c.Leases()[:stamp.Count] {
		lease := e.leases[name]
		if lease != nil && api.ParseStamp(lease.Annotations[api.StampAnnotation]).Epoch == stamp.Epoch && api.Done(lease.Annotations[api.DoneAnnotation]).Has(stamp.Run) {
			done++
		}
	}
	if done < stamp.Count {
		return fmt.Sprintf("not met: %d of %d shards are done", done, stamp.Count)
	}
	return "met: all shards are done"
}

// holderState returns the text about a condition that is met while the holder of the Lease serves.
// The container that waits for the condition must also see a renewal of the holder. This command
// does not know whether the container has seen one.
func holderState(e *explainer, lease *coordinationv1.Lease) string {
	identity := view.HolderOf(lease)
	name := api.PodOf(identity)
	renewed := lease.Spec.RenewTime
	lasts := time.Duration(ptr.Deref(lease.Spec.LeaseDurationSeconds, 0)) * time.Second
	switch {
	case identity == "" || name == identity:
		return "not met: no pod holds"
	case !ours(lease):
		return "not met: the holder " + name + " is no gated pod"
	case e.others[identity] == "":
		return "not met: the holder " + name + " is gone"
	case !api.ServesInHold(lease.Annotations[api.ServingAnnotation], ptr.Deref(lease.Spec.AcquireTime, metav1.MicroTime{}).Time):
		return "not met: the application of " + name + " does not serve"
	case renewed == nil || e.now.Sub(renewed.Time) > lasts:
		return "not met: the holder " + name + " does not renew"
	}
	return "met with the next renewal: " + name + " serves"
}

// waitsForConditions reports whether the pod still waits for conditions.
func waitsForConditions(pod corev1.Pod) bool {
	return len(podspec.ConditionsOf(&pod.Spec)) > 0 && !succeeded(pod, api.AfterContainer)
}

// waitsAtBarrier reports whether the pod still waits at a barrier.
func waitsAtBarrier(pod corev1.Pod) bool {
	return len(podspec.BarrierOf(&pod.Spec).Leases()) > 0 && !succeeded(pod, api.BarrierContainer)
}

// succeeded reports whether an init container of the pod has ended with code 0.
func succeeded(pod corev1.Pod, name string) bool {
	return slices.ContainsFunc(pod.Status.InitContainerStatuses, func(s corev1.ContainerStatus) bool {
		return s.Name == name && s.State.Terminated != nil && s.State.Terminated.ExitCode == 0
	})
}
