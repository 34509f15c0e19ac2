// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package check

import (
	"context"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metaparticle-io/metaparticle/api"
)

// claims warns of workloads that claim in a namespace without the label of an opt-in. The API server
// does not call the webhook there, so the annotation never reaches the pod template. Then each pod of
// the workload runs the application, and no policy refuses the pods. The check reads only metadata,
// and so does not see a claim in a pod template. A policy refuses the pods of such a claim.
func (c Cluster) claims(ctx context.Context) (Finding, error) {
	namespaces, err := withoutOptIn(ctx, c)
	if err != nil {
		return Finding{}, err
	}
	var without, open []string
	for _, kind := range []string{"Deployment", "StatefulSet", "DaemonSet", "CronJob"} {
		list := new(metav1.PartialObjectMetadataList)
		list.APIVersion, list.Kind = "apps/v1", kind+"List"
		if kind == "CronJob" {
			list.APIVersion = "batch/v1"
		}
		if err := c.List(ctx, list, client.Limit(mostWorkloads)); err != nil {
			return Finding{}, err
		}
		for _, w := range list.Items {
			if claims(w.Annotations) && metav1.GetControllerOf(&w) == nil && slices.Contains(namespaces, w.Namespace) {
				without, open = append(without, w.Namespace+"/"+w.Name), append(open, w.Namespace)
			}
		}
	}
	if len(without) > 0 {
		return found(Warning, optInOf(open)+"; then kubectl rollout restart, or any change of a CronJob",
			"workloads claim, and run without a gate, because their namespace has not opted in: %s", some(without))
	}
	return ok("no workload claims in a namespace that has not opted in")
}

// labels warns of namespaces whose label has another value than the one that opts in. Other values that
// say no are deliberate. Without such a namespace the check does not apply.
func (c Cluster) labels(ctx context.Context) (Finding, error) {
	var namespaces corev1.NamespaceList
	if err := c.List(ctx, &namespaces, client.HasLabels{api.InjectionLabel}); err != nil {
		return Finding{}, err
	}
	var wrong, names []string
	for _, n := range namespaces.Items {
		value := n.Labels[api.InjectionLabel]
		if n.DeletionTimestamp == nil && !slices.Contains([]string{api.InjectionEnabled, "disabled", "false"}, value) {
			wrong, names = append(wrong, n.Name+" ("+value+")"), append(names, n.Name)
		}
	}
	if len(wrong) == 0 {
		return Finding{}, nil
	}
	return found(Warning, strings.Replace(optInOf(names), "label", "label --overwrite", 1),
		"only the value %s of the label %s opts a namespace in: %s", api.InjectionEnabled, api.InjectionLabel, some(wrong))
}

// optInOf returns the command by which the namespaces opt in. The command names at most [most] of them.
func optInOf(namespaces []string) string {
	slices.Sort(namespaces)
	namespaces = slices.Compact(namespaces)
	named := strings.Join(namespaces[:min(len(namespaces), most)], " ")
	return strings.Replace(optIn, "NAMESPACE", named, 1)
}

// withoutOptIn returns the namespaces without the label of an opt-in. The function leaves out each
// namespace that is being deleted. A claim has no effect in [home] and in kube-system, even with the
// label, so the function leaves out these two namespaces, too.
func withoutOptIn(ctx context.Context, c Cluster) (names []string, err error) {
	var namespaces corev1.NamespaceList
	if err := c.List(ctx, &namespaces); err != nil {
		return nil, err
	}
	for _, n := range namespaces.Items {
		if n.DeletionTimestamp == nil && n.Labels[api.InjectionLabel] != api.InjectionEnabled &&
			n.Name != home && n.Name != metav1.NamespaceSystem {
			names = append(names, n.Name)
		}
	}
	return names, nil
}

// mostWorkloads bounds the workloads of one kind that a check reads.
const mostWorkloads = 5000
