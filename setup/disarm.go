// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package setup tries an installation, and removes it. The command tools/install and the hooks
// of the Helm chart (cmd/webhook) take the same steps.
//
// A removal makes sure that no gated pod loses its Lease. [Disarm] looks for gated pods before it
// empties the webhook's configuration, and afterwards until the API server has stored the last gated
// pod. If Disarm finds a gated pod, Disarm restores the configuration and returns an error.
// The clock of this process measures the wait for late pods. Disarm relies on two facts. The API
// server bounds the time of a creation, and each API server learns of the emptied configuration
// within a second.
// [RemoveMade] looks again before it deletes Leases, and finds a pod that Disarm has missed.
package setup

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metaparticle-io/metaparticle/api"
)

// RemovedAnnotation is the annotation of an emptied webhook configuration. Its value has the removed
// webhooks, so that another process can restore these webhooks after a killed removal.
const RemovedAnnotation = api.Prefix + "removed-webhooks"

// ErrLost means that a removal cannot restore the webhook configuration.
var ErrLost = errors.New("the webhook configuration is missing or empty, and no annotation has its webhooks, so new pods that claim are refused; " +
	"roll back the release, or install Metaparticle again (" + api.Repository + "docs/operate/uninstall.md)")

var errTooLarge = errors.New("the webhook configuration is too large to be saved in an annotation, so nothing was deleted; " +
	"remove the webhooks that you added, or uninstall without this check (" + api.Repository + "docs/operate/uninstall.md)")

// maxSaved bounds the bytes of [RemovedAnnotation]. The API server stores at most 256 KiB of
// annotations for each object.
const maxSaved = 200 << 10

// requestTimeout bounds a request of a removal. The API server ends each write after 34 s, so a
// write without an answer has no effect after this time.
const requestTimeout = 35 * time.Second

// restoreTimeout bounds the restoration of the webhook configuration, if the context has no
// deadline. A restarted API server answers within a minute, and a person can wait two minutes.
const restoreTimeout = 2 * time.Minute

// restoreLeast is the time that a restoration gets even if the context ends sooner. The kubelet
// leaves the pod of a Helm hook the same time between SIGTERM and SIGKILL.
const restoreLeast = 30 * time.Second

// restoreRequests bounds the time for all three requests of one attempt to restore. A
// restoration repeats a failed attempt, so a lost connection must not take the time of all
// attempts.
const restoreRequests = 10 * time.Second

// removed is the value of [RemovedAnnotation].
type removed struct {
	Webhooks []admissionv1.MutatingWebhook `json:"webhooks"`
	// Owners are the managers of the fields. Without Owners, the restored fields would belong to the
	// removal. A later server-side apply would then fail because of a conflict.
	Owners []metav1.ManagedFieldsEntry `json:"owners,omitempty"`
}

// Disarm empties the webhook configuration, so that the webhook gates no more pods. From then on a
// policy refuses pods that claim. If a gated pod exists already, Disarm empties nothing, and restores
// a configuration that a killed removal has emptied. After the emptying, Disarm waits until no gated
// pod can appear any more ([refuseLate]). If a gated pod appears, or the context ends, Disarm
// restores the configuration and returns an error. If gated pods exist, this error is [ErrGated].
func Disarm(ctx context.Context, c client.Client, configuration string, out io.Writer) error {
	there, err := read(ctx, c, configuration)
	missing := apierrors.IsNotFound(err)
	if err != nil && !missing {
		return fmt.Errorf("read webhook configuration: %w", err)
	}
	if err := refuseGated(ctx, c, out); err != nil {
		if !missing && (len(there.Webhooks) == 0 || there.Annotations[RemovedAnnotation] != "") {
			err = errors.Join(err, restore(ctx, c, configuration))
		}
		return err
	}
	if missing {
		return refuseLate(ctx, c, out)
	}
	// A write without an answer may have emptied the configuration. So Disarm restores the
	// configuration after each error.
	if err := empty(ctx, c, there); err != nil {
		return errors.Join(err, restore(ctx, c, configuration))
	}
	if err := refuseLate(ctx, c, out); err != nil {
		return errors.Join(err, restore(ctx, c, configuration))
	}
	return nil
}

// read returns the webhook configuration.
func read(ctx context.Context, c client.Client, configuration string) (*admissionv1.MutatingWebhookConfiguration, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	there := new(admissionv1.MutatingWebhookConfiguration)
	return there, c.Get(ctx, types.NamespacedName{Name: configuration}, there)
}

// empty removes the webhooks from the configuration, and saves them in [RemovedAnnotation] by the
// same write. A killed removal may have emptied the configuration. Then the function keeps the
// annotation.
func empty(ctx context.Context, c client.Client, there *admissionv1.MutatingWebhookConfiguration) error {
	if len(there.Webhooks) == 0 {
		return nil
	}
	text, err := save(there)
	if err != nil {
		return err
	}
	if there.Annotations == nil {
		there.Annotations = map[string]string{}
	}
	there.Annotations[RemovedAnnotation] = text
	there.Webhooks = nil
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	if err := c.Update(ctx, there); err != nil {
		return fmt.Errorf("empty webhook configuration: %w", err)
	}
	return nil
}

// save returns the webhooks and owners as a text of bounded length. A cluster may have a large bundle
// of CA certificates. Then save drops the bundles, because cert-manager injects them again.
func save(there *admissionv1.MutatingWebhookConfiguration) (string, error) {
	kept := removed{Webhooks: slices.Clone(there.Webhooks), Owners: there.ManagedFields}
	text, err := json.Marshal(kept)
	if err != nil {
		return "", fmt.Errorf("save webhook configuration: %w", err)
	}
	if len(text) <= maxSaved {
		return string(text), nil
	}
	for i := range kept.Webhooks {
		kept.Webhooks[i].ClientConfig.CABundle = nil
	}
	text, err = json.Marshal(kept)
	if err != nil {
		return "", fmt.Errorf("save webhook configuration: %w", err)
	}
	if len(text) > maxSaved {
		return "", errTooLarge
	}
	return string(text), nil
}

// restore writes the saved webhooks back into the configuration, even after the end of the context.
// Afterwards restore removes the annotation, and restores the owners of the fields.
func restore(ctx context.Context, c client.Client, configuration string) error {
	ctx, cancel := restoration(ctx)
	defer cancel()
	var lost error
	var owners []metav1.ManagedFieldsEntry
	err := Retry(ctx, func() error {
		ctx, cancel := context.WithTimeout(ctx, restoreRequests)
		defer cancel()
		there, err := read(ctx, c, configuration)
		if apierrors.IsNotFound(err) {
			lost = ErrLost
			return nil
		}
		if err != nil {
			return err
		}
		if len(there.Webhooks) == 0 {
			var kept removed
			if json.Unmarshal([]byte(there.Annotations[RemovedAnnotation]), &kept) != nil || len(kept.Webhooks) == 0 {
				lost = ErrLost
				return nil
			}
			there.Webhooks, owners = kept.Webhooks, kept.Owners
			if err := c.Update(ctx, there); err != nil {
				return err
			}
		}
		return unmark(ctx, c, there, owners)
	})
	if err != nil {
		err = fmt.Errorf("restore webhook configuration (new pods that claim may be refused; run the same command again): %w", err)
	}
	return errors.Join(lost, err)
}

// unmark removes the annotation from a restored configuration, and sets the owners of the fields.
// The owners need a write of their own: if the same write restored the webhooks, the API server
// would add the writer to the owners.
func unmark(ctx context.Context, c client.Client, there *admissionv1.MutatingWebhookConfiguration, owners []metav1.ManagedFieldsEntry) error {
	if _, marked := there.Annotations[RemovedAnnotation]; !marked {
		return nil
	}
	delete(there.Annotations, RemovedAnnotation)
	if len(owners) > 0 {
		there.ManagedFields = owners
	}
	return c.Update(ctx, there)
}

// restoration returns a context for [restore]. A cancellation of the given context does not end
// the returned context. The returned context ends at the deadline of the given context, but
// lasts at least restoreLeast. Without a given deadline, the returned context lasts
// restoreTimeout.
func restoration(ctx context.Context) (context.Context, context.CancelFunc) {
	now := time.Now()
	end, bounded := ctx.Deadline()
	if !bounded {
		end = now.Add(restoreTimeout)
	}
	if least := now.Add(restoreLeast); end.Before(least) {
		end = least
	}
	return context.WithDeadline(context.WithoutCancel(ctx), end)
}

// betweenReads is the time between two reads of a state that takes seconds to change.
const betweenReads = 200 * time.Millisecond

// Retry repeats a failing function until the context ends, and then returns the
// last error.
func Retry(ctx context.Context, do func() error) error {
	ticker := time.NewTicker(betweenReads)
	defer ticker.Stop()
	var last error
	for {
		err := do()
		if err == nil {
			return nil
		}
		if ctx.Err() == nil || last == nil {
			last = err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w (%w)", last, ctx.Err())
		case <-ticker.C:
		}
	}
}

// marksForged is the reason with which a policy refuses a pod with forged marks.
const marksForged = "MarksForged"

var (
	errNotGated = errors.New("a pod that claims was not gated")
	errNoPolicy = errors.New("a pod with forged marks was admitted: the policy metaparticle-marks is missing")
)

// AwaitGating waits until the webhook gates a pod. The function creates a pod that claims, as a
// dry run in a namespace that opted in. The dry run succeeds once the API server trusts the
// certificate, and the webhook answers with a gate.
func AwaitGating(ctx context.Context, c client.Client, namespace string) error {
	return Retry(ctx, func() error {
		gated, err := Try(ctx, c, namespace, Readable)
		if err != nil {
			return fmt.Errorf("try a pod: %w", err)
		}
		if !gated {
			return errNotGated
		}
		return nil
	})
}

// AwaitPolicies waits until a policy refuses a pod with forged marks. The API server does not call
// the webhook for that pod, because the pod has no annotation.
func AwaitPolicies(ctx context.Context, c client.Client, namespace string) error {
	return Retry(ctx, func() error {
		pod := proposed(namespace, Readable)
		pod.Labels = map[string]string{api.GatedLabel: api.Gated}
		err := c.Create(ctx, pod, client.DryRunAll)
		switch {
		case err == nil:
			return errNoPolicy
		case strings.Contains(err.Error(), marksForged):
			return nil
		}
		return fmt.Errorf("try a pod with forged marks: %w", err)
	})
}

// Readable is a container with a command, so the webhook does not read its image. The container
// complies with Pod Security "restricted", and states the resources that a ResourceQuota can demand.
var Readable = corev1.Container{
	Image: "try", Command: []string{"/try"},
	Resources: corev1.ResourceRequirements{Requests: little, Limits: little},
	SecurityContext: &corev1.SecurityContext{
		RunAsNonRoot: new(true), RunAsUser: new(int64(65532)), AllowPrivilegeEscalation: new(false),
		Capabilities:   &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
		SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
	},
}

// little are the resources of a container that never runs.
var little = corev1.ResourceList{
	corev1.ResourceCPU: resource.MustParse("10m"), corev1.ResourceMemory: resource.MustParse("16Mi"),
	corev1.ResourceEphemeralStorage: resource.MustParse("16Mi"),
}

// Try creates a pod that claims, as a dry run. The result reports whether the webhook gated the
// pod. The error is the answer of the API server, which may be the webhook's refusal.
func Try(ctx context.Context, c client.Client, namespace string, container corev1.Container) (gated bool, err error) {
	pod := proposed(namespace, container)
	pod.Annotations = map[string]string{api.LockAnnotation: "metaparticle-try"}
	err = c.Create(ctx, pod, client.DryRunAll)
	return pod.Labels[api.GatedLabel] == api.Gated, err
}

// proposed returns a pod for a dry run. The API server generates the name of the pod, so no other
// pod has that name. The answer of the API server overwrites the pod, so the pod has a copy of the
// container.
func proposed(namespace string, container corev1.Container) *corev1.Pod {
	container = *container.DeepCopy()
	container.Name = "try"
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, GenerateName: "metaparticle-try-"},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{container}},
	}
}
