// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package check

import (
	"cmp"
	"context"
	"fmt"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metaparticle-io/metaparticle/api"
)

// pauses names the paused slots, because a forgotten pause blocks a slot until a person ends it.
// The check leaves out namespaces that are being deleted. If no slot is paused, the check does not
// apply.
func (c Cluster) pauses(ctx context.Context) (Finding, error) {
	var leases coordinationv1.LeaseList
	if err := c.List(ctx, &leases, client.HasLabels{api.ManagedLabel}); err != nil {
		return Finding{}, err
	}
	var namespaces corev1.NamespaceList
	if err := c.List(ctx, &namespaces); err != nil && !apierrors.IsForbidden(err) {
		return Finding{}, err
	}
	leaving := map[string]bool{}
	for _, n := range namespaces.Items {
		leaving[n.Name] = n.DeletionTimestamp != nil
	}
	var paused []string
	do, end := "", ""
	slots, recovering := 0, 0
	for _, l := range leases.Items {
		if leaving[l.Namespace] || !api.IsSlot(l.Name) {
			continue
		}
		slots++
		pause := api.PauseOf(l.Annotations)
		if pause == "" {
			continue
		}
		if do == "" {
			do = c.resume(l)
		}
		if pause == api.PauseRecover {
			recovering++
			end = cmp.Or(end, c.resume(l))
		}
		paused = append(paused, fmt.Sprintf("%s/%s (%s)", l.Namespace, l.Name, shownPause(pause)))
	}
	blocked := fmt.Sprintf("no pod can acquire %d paused slots", len(paused))
	if len(paused) == 1 {
		blocked = "no pod can acquire 1 paused slot"
	}
	switch {
	case len(paused) == 0:
		return Finding{}, nil
	case recovering > 0:
		// Any user who may patch a Lease can write this value. A recovery makes holders of all namespaces
		// yield, so a person must not begin one for the pause of a single user.
		return found(Warning, "if somebody has begun kubectl metaparticle recover and it does not run any more, repeat it with its --floor (docs/disaster.md); "+
			"if nobody has, a user wrote the pause: "+end,
			"%s: %s; %d of all %d slots have the value recover, which a recovery gives to all slots", blocked, some(paused), recovering, slots)
	}
	return found(Warning, do, "%s: %s", blocked, some(paused))
}

// shownPause returns the value of a pause. A person may have written an unknown value, which counts
// as [api.PauseHold].
func shownPause(pause api.Pause) string {
	if !pause.Known() {
		return "an unknown value, which counts as " + string(api.PauseHold)
	}
	return string(pause)
}

// resume returns the command that ends the pause of a Lease.
func (c Cluster) resume(l coordinationv1.Lease) string {
	if c.Target != nil {
		if target := c.Target(l.Name); target != "" {
			return fmt.Sprintf("kubectl metaparticle resume -n %s %s", l.Namespace, target)
		}
	}
	return fmt.Sprintf("kubectl -n %s annotate lease %s %s-", l.Namespace, l.Name, api.PausedAnnotation)
}
