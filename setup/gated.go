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
	"strings"
	"unicode"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metaparticle-io/metaparticle/api"
)

// ErrGated means that a removal has deleted nothing, because gated pods would lose their Leases.
var ErrGated = errors.New("gated pods exist, so nothing was deleted; remove the claims of their workloads and wait for the rollouts, " +
	"or delete the workloads, and then uninstall again")

// RefuseGated prints the gated pods that have not ended, and returns an error if there
// are any.
func RefuseGated(ctx context.Context, c client.Client, out io.Writer) error {
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
		fmt.Fprintf(out, "%s/%s\t%s\n", pod.Namespace, pod.Name, harmless(claimed))
	}
	return ErrGated
}

// Disarm empties the webhook configuration, so that the API server gates no more pods. From then on
// a policy refuses pods that claim. If a gated pod exists before that write, Disarm writes nothing.
// If a gated pod exists after that write, Disarm restores the configuration. In both cases Disarm
// returns [ErrGated].
func Disarm(ctx context.Context, c client.Client, configuration string, out io.Writer) error {
	if err := RefuseGated(ctx, c, out); err != nil {
		return err
	}
	var there admissionv1.MutatingWebhookConfiguration
	err := c.Get(ctx, types.NamespacedName{Name: configuration}, &there)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read webhook configuration: %w", err)
	}
	webhooks := there.Webhooks
	there.Webhooks = nil
	if err := c.Update(ctx, &there); err != nil {
		return fmt.Errorf("empty webhook configuration: %w", err)
	}
	// A pod may have been gated before the configuration was empty, so the check is repeated.
	if err := RefuseGated(ctx, c, out); err != nil {
		there.Webhooks = webhooks
		if failed := c.Update(ctx, &there); failed != nil {
			err = errors.Join(err, fmt.Errorf("restore webhook configuration: %w", failed))
		}
		return err
	}
	return nil
}

// harmless replaces control characters in a text by the author of a pod, because a terminal shows
// the text.
func harmless(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return '?'
		}
		return r
	}, text)
}
