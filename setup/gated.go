// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package setup

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metaparticle-io/metaparticle/api"
)

// ErrGated means that a removal has deleted nothing, because gated pods would lose their Leases.
var ErrGated = errors.New("gated pods exist, so nothing was deleted; scale their workloads to 0 (without the claims all replicas run at once), " +
	"wait until the pods are gone, remove the claims, and then uninstall again (docs/install.md#uninstall)")

// ErrUsed means that a removal has deleted the webhook, but not the objects that enroll made,
// because gated pods still use these objects.
var ErrUsed = errors.New("gated pods exist, so they keep their Leases, Roles and RoleBindings, and keep running, but the webhook is gone; " +
	"install Metaparticle again, end the gated pods, and then uninstall again (docs/install.md#uninstall)")

// latest is the longest time from the end of gating until the API server has stored the last gated
// pod. The API server ends each creation after 34 s (requestTimeoutUpperBound). One more second is
// for the other API servers, which read the emptied configuration from a watch.
const latest = 35 * time.Second

// betweenLooks is the time between two searches for gated pods. A search lists the pods of the
// cluster, so searches are rare.
const betweenLooks = 5 * time.Second

// lastLook is the time for which the last search for gated pods is repeated after a failure.
// The API server may be restarting then, and answers again within a minute.
const lastLook = time.Minute

// maxText bounds the bytes that [refuseGated] prints of each text by the author of a pod.
const maxText = 256

// refuseGated prints the gated pods that have not ended, and returns an error if there
// are any.
func refuseGated(ctx context.Context, c client.Client, out io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	var pods corev1.PodList
	if err := c.List(ctx, &pods, client.HasLabels{api.GatedLabel}); err != nil {
		return fmt.Errorf("list gated pods: %w", err)
	}
	alive := slices.DeleteFunc(pods.Items, func(pod corev1.Pod) bool {
		return pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
	})
	if len(alive) == 0 {
		return nil
	}
	for _, pod := range alive {
		claimed := cmp.Or(pod.Annotations[api.SlotsAnnotation], pod.Annotations[api.AfterAnnotation], pod.Annotations[api.BarrierAnnotation])
		// The author of the pod writes these texts, and a terminal shows them.
		fmt.Fprintf(out, "%s/%s\t%s\n", api.Shortened(pod.Namespace, maxText), api.Shortened(pod.Name, maxText), api.Shortened(claimed, maxText))
	}
	return ErrGated
}

// refuseLate repeats [refuseGated] until no gated pod can appear any more. Call refuseLate after the
// end of gating. The API server may be away during the wait: only the last [refuseGated] must
// succeed.
func refuseLate(ctx context.Context, c client.Client, out io.Writer) error {
	over, again := time.NewTimer(latest), time.NewTicker(betweenLooks)
	defer over.Stop()
	defer again.Stop()
	for waiting := true; waiting; {
		if err := refuseGated(ctx, c, out); errors.Is(err, ErrGated) {
			return err
		}
		select {
		case <-over.C:
			waiting = false
		case <-ctx.Done():
			return fmt.Errorf("wait for pods that were gated last: %w", ctx.Err())
		case <-again.C:
		}
	}
	ctx, cancel := context.WithTimeout(ctx, lastLook)
	defer cancel()
	var found error
	err := Retry(ctx, func() error {
		err := refuseGated(ctx, c, out)
		if errors.Is(err, ErrGated) {
			found = err
			return nil
		}
		return err
	})
	return cmp.Or(found, err)
}

// RefuseUsed prints the gated pods as [refuseGated] does, after the deletion of the webhook. If there
// are any, the error is [ErrUsed].
func RefuseUsed(ctx context.Context, c client.Client, out io.Writer) error {
	err := refuseGated(ctx, c, out)
	if errors.Is(err, ErrGated) {
		return ErrUsed
	}
	return err
}
