// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package check

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/api/podspec"
	"github.com/metaparticle-io/metaparticle/console/view"
	"github.com/metaparticle-io/metaparticle/mutate/image"
	"github.com/metaparticle-io/metaparticle/setup"
)

// optIn is the command by which a namespace opts in.
const optIn = "kubectl label namespace NAMESPACE " + api.InjectionLabel + "=" + api.InjectionEnabled

// optedIn returns the sorted names of the namespaces that opted in, without [home] and kube-system.
// The function also leaves out each namespace that is being deleted.
func optedIn(ctx context.Context, c Cluster) ([]string, error) {
	var namespaces corev1.NamespaceList
	if err := c.List(ctx, &namespaces, client.MatchingLabels{api.InjectionLabel: api.InjectionEnabled}); err != nil {
		return nil, err
	}
	var names []string
	for _, n := range namespaces.Items {
		if n.DeletionTimestamp == nil && n.Name != home && n.Name != metav1.NamespaceSystem {
			names = append(names, n.Name)
		}
	}
	slices.Sort(names)
	return names, nil
}

// errElsewhere reports that no namespace has admitted the dry run of a pod. Neither the webhook nor a
// policy of Metaparticle has refused the pod.
var errElsewhere = errors.New("no namespace admits the pod of this check")

// try sends the dry run of a pod that claims, and returns the namespace of the attempt. A namespace
// can refuse each such pod for reasons of its own, such as a ResourceQuota or Pod Security. So try
// goes on to the next namespace after such a refusal, but sends at most [most] dry runs.
func try(ctx context.Context, c Cluster, namespaces []string, container corev1.Container) (namespace string, gated bool, err error) {
	for _, namespace = range namespaces[:min(len(namespaces), most)] {
		gated, err = setup.Try(ctx, c, namespace, container)
		if !refusedElsewhere(err) {
			return namespace, gated, err
		}
	}
	return namespace, false, fmt.Errorf("%w: %w", errElsewhere, err)
}

// refusedElsewhere reports whether a part of the API server that is not of Metaparticle has refused
// a pod. The webhook and the policies of Metaparticle name themselves in their refusals. An owner of a
// namespace chooses the name of a ResourceQuota, but such a name has no quotes.
func refusedElsewhere(err error) bool {
	return apierrors.IsForbidden(err) && !strings.Contains(err.Error(), `webhook "pods.metaparticle.io"`) &&
		!strings.Contains(err.Error(), "ValidatingAdmissionPolicy 'metaparticle-")
}

// admit is the instruction after a refusal that is not of Metaparticle.
const admit = "remove what the message names, or opt in a namespace that admits a small pod, and check again"

// admission sends the dry run of a pod that claims and has a command. For such a pod, the webhook
// reads no image.
func (c Cluster) admission(ctx context.Context) (Finding, error) {
	names, err := optedIn(ctx, c)
	switch {
	case err != nil:
		return Finding{}, err
	case len(names) == 0:
		return found(Warning, optIn, "no namespace has opted in, so nothing is injected")
	}
	namespace, gated, err := try(ctx, c, names, setup.Readable)
	switch {
	case errors.Is(err, errElsewhere):
		return found(Unknown, admit, "%s", err)
	case err != nil:
		return found(Failed, logs, "a pod that claims is refused in namespace %s: %s", namespace, err)
	case !gated:
		return found(Failed, again, "a pod that claims got no gate in namespace %s", namespace)
	}
	return ok("%s opted in, and a pod that claims gets its gate (tried in %s)", count(len(names), "namespace has", "namespaces have"), namespace)
}

// registry sends the dry run of a pod that claims and has no command. So the webhook must read the
// command of the image. Without an image in [Cluster], the check does not apply.
func (c Cluster) registry(ctx context.Context) (Finding, error) {
	if c.Image == "" {
		return Finding{}, nil
	}
	names, err := optedIn(ctx, c)
	switch {
	case err != nil:
		return Finding{}, err
	case len(names) == 0:
		return found(Unknown, optIn, "no namespace has opted in, so the webhook reads no image")
	}
	container := *setup.Readable.DeepCopy()
	container.Image, container.Command = c.Image, nil
	namespace, gated, err := try(ctx, c, names, container)
	switch {
	case errors.Is(err, errElsewhere):
		return found(Unknown, admit, "%s", err)
	case err != nil:
		return found(Failed, "let the webhook's pods reach the registry, or write the command into the pod template", "the webhook cannot read %s: %s", c.Image, err)
	case !gated:
		return found(Failed, again, "a pod of image %s got no gate in namespace %s", c.Image, namespace)
	}
	return ok("the webhook can read %s", c.Image)
}

// pods counts the pods that should be gated and are not, or are refused, and those whose agent has another image than the
// agents of new pods.
func (c Cluster) pods(ctx context.Context) (Finding, error) {
	d, err := c.deployment(ctx)
	if err != nil {
		return Finding{}, client.IgnoreNotFound(err)
	}
	current := agentOf(d.Spec.Template.Spec)
	names, err := optedIn(ctx, c)
	if err != nil {
		return Finding{}, err
	}
	var ungated, refused []string
	gated, older := 0, 0
	for _, namespace := range names {
		workloads, err := workloadsOf(ctx, c, namespace) // before the pods, as view.State demands
		if err != nil {
			return Finding{}, err
		}
		var pods corev1.PodList
		if err := c.List(ctx, &pods, client.InNamespace(namespace)); err != nil {
			return Finding{}, err
		}
		for _, pod := range pods.Items {
			switch {
			case pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed:
			case pod.Labels[api.GatedLabel] != "":
				gated++
				if !slices.ContainsFunc(pod.Spec.InitContainers, func(c corev1.Container) bool { return image.Same(c.Image, current) }) {
					older++
				}
			case api.Asks(pod.Annotations):
				ungated = append(ungated, namespace+"/pod/"+pod.Name)
			}
		}
		for of, g := range gaps(workloads, pods.Items) {
			if g.Ungated > 0 {
				ungated = append(ungated, fmt.Sprintf("%s/%s (%d)", namespace, of, g.Ungated))
			}
			if g.Refused != "" {
				refused = append(refused, namespace+"/"+of)
			}
		}
	}
	switch {
	case len(ungated)+len(refused) > 0:
		namespace, name, _ := strings.Cut(slices.Min(append(slices.Clone(ungated), refused...)), "/")
		name, _, _ = strings.Cut(name, " ")
		do := fmt.Sprintf("kubectl metaparticle explain -n %s %s", namespace, name)
		switch {
		case len(ungated) == 0:
			return found(Failed, do, "pods that claim are refused: %s", some(refused))
		case len(refused) > 0:
			return found(Failed, do, "pods claim, and run without a gate: %s; others are refused: %s", some(ungated), some(refused))
		}
		return found(Failed, do, "pods claim, and run without a gate: %s", some(ungated))
	case older > 0:
		return ok("%s gated, and %d of them have the agent of another version until they are replaced", count(gated, "pod is", "pods are"), older)
	}
	return ok("%s gated", count(gated, "pod is", "pods are"))
}

// gaps returns the workloads with ungated or refused pods, by kind/name.
func gaps(workloads []client.Object, pods []corev1.Pod) map[string]view.Gap {
	state := view.State{Workloads: workloads}
	for i := range pods {
		state.Pods = append(state.Pods, &pods[i])
	}
	all := map[string]view.Gap{}
	for _, s := range state.Slots(nil, 0) {
		for _, g := range s.Gaps {
			kind, name, _ := strings.Cut(g.Workload, "/")
			all[strings.ToLower(kind)+"/"+name] = g
		}
	}
	return all
}

// workloadsOf returns the workloads of a namespace whose pods [view.State] counts.
func workloadsOf(ctx context.Context, c Cluster, namespace string) (all []client.Object, err error) {
	for _, list := range []client.ObjectList{new(appsv1.DeploymentList), new(appsv1.StatefulSetList), new(appsv1.DaemonSetList), new(batchv1.JobList)} {
		if err := c.List(ctx, list, client.InNamespace(namespace)); err != nil {
			return nil, err
		}
		items, err := meta.ExtractList(list)
		if err != nil {
			return nil, err
		}
		for _, item := range items {
			if object, ok := item.(client.Object); ok {
				all = append(all, object)
			}
		}
	}
	return all, nil
}

// agentOf returns the image of the agents that the webhook injects.
func agentOf(spec corev1.PodSpec) string {
	for _, container := range spec.Containers {
		for _, e := range container.Env {
			if e.Name == "AGENT_IMAGE" {
				return e.Value
			}
		}
	}
	return ""
}

// replicas warns if all replicas of the webhook run on one node of several. The check does not
// apply if the person has no right to read the pods or the nodes.
func (c Cluster) replicas(ctx context.Context) (Finding, error) {
	var pods corev1.PodList
	if err := c.List(ctx, &pods, client.InNamespace(home), client.MatchingLabels{label: name}); err != nil {
		return unlessForbidden(err)
	}
	var nodes corev1.NodeList
	if err := c.List(ctx, &nodes); err != nil {
		return unlessForbidden(err)
	}
	running := slices.DeleteFunc(pods.Items, func(p corev1.Pod) bool { return p.DeletionTimestamp != nil || p.Status.Phase != corev1.PodRunning })
	elsewhere := func(p corev1.Pod) bool { return p.Spec.NodeName != running[0].Spec.NodeName }
	if len(nodes.Items) < 2 || len(running) < 2 || slices.ContainsFunc(running, elsewhere) {
		return Finding{}, nil
	}
	return found(Warning, "kubectl -n "+home+" rollout restart deployment/"+name+"; the scheduler prefers different nodes with free room",
		"all %d replicas run on node %s: while this node is down, each pod that claims is refused", len(running), running[0].Spec.NodeName)
}

// unlessForbidden returns no finding if the person lacks a right, and the error otherwise.
func unlessForbidden(err error) (Finding, error) {
	if apierrors.IsForbidden(err) {
		return Finding{}, nil
	}
	return Finding{}, err
}

// released matches the tag of a release's image.
var released = regexp.MustCompile(`^v[0-9]+\.[0-9]+\.[0-9]+`)

// version compares the tags of the webhook's and the agent's images with the version of this
// plugin. Many installations name images by digest alone, and a digest tells no version. For these
// installations only [Cluster.policies] can show a difference: the method compares the installed
// policies with those of the plugin.
func (c Cluster) version(ctx context.Context) (Finding, error) {
	d, err := c.deployment(ctx)
	if err != nil {
		return Finding{}, client.IgnoreNotFound(err)
	}
	for _, image := range []string{imageOf(d), agentOf(d.Spec.Template.Spec)} {
		tag := tagOf(image)
		if released.MatchString(tag) && released.MatchString(c.Release) && tag != c.Release {
			return found(Warning, "use the plugin of version "+tag+", or upgrade the installation ("+api.Repository+"docs/operate/upgrade.md)",
				"the installation has the image %s, but this plugin has the version %s", image, c.Release)
		}
	}
	return Finding{}, nil
}

// tagOf returns the tag of an image; empty for none.
func tagOf(image string) string {
	image, _, _ = strings.Cut(image, "@")
	last := image[strings.LastIndexByte(image, '/')+1:]
	_, tag, _ := strings.Cut(last, ":")
	return tag
}

// services warns of Services whose connections the standbys of their pods refuse.
func (c Cluster) services(ctx context.Context) (Finding, error) {
	names, err := optedIn(ctx, c)
	if err != nil {
		return Finding{}, err
	}
	var refused []string
	for _, namespace := range names {
		var services corev1.ServiceList
		var pods corev1.PodList
		if err := c.List(ctx, &services, client.InNamespace(namespace)); err != nil {
			return Finding{}, err
		}
		if err := c.List(ctx, &pods, client.InNamespace(namespace), client.HasLabels{api.GatedLabel}); err != nil {
			return Finding{}, err
		}
		var gated []*corev1.Pod
		for i := range pods.Items {
			gated = append(gated, &pods.Items[i])
		}
		for _, r := range podspec.Refused(services.Items, gated) {
			refused = append(refused, fmt.Sprintf("%s/%s (port %d/%s)", namespace, r.Service.Name, r.Number, r.Protocol))
		}
	}
	if len(refused) > 0 {
		return found(Warning, "name these ports in metaparticle.io/ports of the workloads, or set metaparticle.io/readiness: holder",
			"standbys are Ready, and refuse the connections of Services: %s", some(refused))
	}
	return ok("standbys forward the ports of all Services")
}
