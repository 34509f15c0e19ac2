// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package check

import (
	"context"
	"regexp"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

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
			return found(Warning, "use the plugin of version "+tag+", or upgrade the installation (docs/upgrade.md)",
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
