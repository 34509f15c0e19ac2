// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package check

import (
	"context"
	"fmt"
	"slices"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/version"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metaparticle-io/metaparticle/api"
)

// oldest is the first version of Kubernetes in which gates and policies work
// (docs/reference/compatibility.md).
var oldest = version.MustParseGeneric("1.33.0")

func (c Cluster) apiServer(context.Context) (Finding, error) {
	v, err := version.ParseGeneric(c.Version.GitVersion)
	switch {
	case err != nil:
		return Finding{}, fmt.Errorf("read the version of the API server: %w", err)
	case v.LessThan(oldest):
		return found(Failed, "upgrade the cluster", "Kubernetes %s is older than %s", c.Version.GitVersion, oldest)
	}
	return ok("Kubernetes %s", c.Version.GitVersion)
}

func (c Cluster) nodes(ctx context.Context) (Finding, error) {
	var nodes corev1.NodeList
	if err := c.List(ctx, &nodes); err != nil {
		return Finding{}, err
	}
	var old []string
	fit := 0
	for _, node := range nodes.Items {
		v, err := version.ParseGeneric(node.Status.NodeInfo.KubeletVersion)
		info := node.Status.NodeInfo
		switch {
		case info.OperatingSystem != "linux" || !slices.Contains([]string{"amd64", "arm64"}, info.Architecture):
		case err != nil || v.LessThan(oldest):
			old = append(old, node.Name+" ("+info.KubeletVersion+")")
		default:
			fit++
		}
	}
	switch {
	case fit == 0:
		return found(Failed, "add a node of Linux on amd64 or arm64, with a kubelet of "+oldest.String(), "no node can run a gated pod")
	case len(old) > 0:
		return found(Warning, "upgrade their kubelets, or keep gated pods away from them",
			"gated pods do not work on nodes with an older kubelet than %s: %s", oldest, some(old))
	}
	return ok("%d of %d nodes can run gated pods", fit, len(nodes.Items))
}

// mostBehind and mostAhead bound the difference between a kubelet's last renewal of its node's
// Lease and the API server's time. Kubelets renew every 10 s. Beyond a bound, either a clock is
// wrong or the node is down.
const (
	mostBehind = time.Minute
	mostAhead  = 5 * time.Second
)

// clocks compares the times that kubelets wrote with the time of the API server. Slots need no
// equal clocks, but certificates do.
func (c Cluster) clocks(ctx context.Context) (Finding, error) {
	var leases coordinationv1.LeaseList
	if err := c.List(ctx, &leases, client.InNamespace(corev1.NamespaceNodeLease)); err != nil {
		return Finding{}, err
	}
	var wrong []string
	for _, l := range leases.Items {
		if l.Spec.RenewTime == nil {
			continue
		}
		ahead := l.Spec.RenewTime.Sub(c.Now)
		switch {
		case ahead > mostAhead:
			wrong = append(wrong, fmt.Sprintf("%s is %v ahead", l.Name, ahead.Round(time.Second)))
		case ahead < -mostBehind:
			wrong = append(wrong, fmt.Sprintf("%s last wrote %v ago", l.Name, (-ahead).Round(time.Second)))
		}
	}
	if len(wrong) > 0 {
		return found(Warning, "check these nodes, and the time service (NTP) on them", "the API server's clock and those of nodes differ: %s", some(wrong))
	}
	return ok("the clocks of %d nodes agree with the API server's", len(leases.Items))
}

// certManager sends the dry run of an Issuer, which cert-manager's own webhook has to answer.
func (c Cluster) certManager(ctx context.Context) (Finding, error) {
	const do = "install cert-manager: https://cert-manager.io/docs/installation/"
	issuer := object("cert-manager.io/v1", "Issuer", defaultNamespace, "metaparticle-check")
	issuer.Object["spec"] = map[string]any{"selfSigned": map[string]any{}}
	err := c.Create(ctx, issuer, client.DryRunAll)
	switch {
	case meta.IsNoMatchError(err) || apierrors.IsNotFound(err):
		return found(Failed, do, "cert-manager is not installed")
	case apierrors.IsForbidden(err):
		return Finding{}, err
	case err != nil:
		return found(Failed, "kubectl get pods -A -l app.kubernetes.io/instance=cert-manager", "cert-manager does not answer: %s", err)
	}
	return ok("cert-manager answers")
}

// defaultNamespace is the namespace in which certManager creates an Issuer by dry run. This
// namespace exists in each cluster.
const defaultNamespace = "default"

// needed lists the resources on which a person who installs must have rights.
var needed = []schema.GroupResource{
	{Resource: "namespaces"}, {Resource: "serviceaccounts"}, {Resource: "services"}, {Resource: "resourcequotas"},
	// Helm keeps its releases in Secrets. The chart's hooks are Jobs and Pods with Roles.
	{Resource: "secrets"}, {Resource: "pods"}, {Group: "batch", Resource: "jobs"},
	{Group: "rbac.authorization.k8s.io", Resource: "roles"}, {Group: "rbac.authorization.k8s.io", Resource: "rolebindings"},
	{Group: "apps", Resource: "deployments"}, {Group: "policy", Resource: "poddisruptionbudgets"},
	{Group: "rbac.authorization.k8s.io", Resource: "clusterroles"}, {Group: "rbac.authorization.k8s.io", Resource: "clusterrolebindings"},
	{Group: "apiextensions.k8s.io", Resource: "customresourcedefinitions"},
	{Group: "admissionregistration.k8s.io", Resource: "mutatingwebhookconfigurations"},
	{Group: "admissionregistration.k8s.io", Resource: "validatingwebhookconfigurations"},
	{Group: "admissionregistration.k8s.io", Resource: "validatingadmissionpolicies"},
	{Group: "admissionregistration.k8s.io", Resource: "validatingadmissionpolicybindings"},
	{Group: flowcontrolv1.GroupName, Resource: "flowschemas"}, {Group: flowcontrolv1.GroupName, Resource: "prioritylevelconfigurations"},
	{Group: "cert-manager.io", Resource: "certificates"}, {Group: "cert-manager.io", Resource: "issuers"},
}

func (c Cluster) rights(ctx context.Context) (Finding, error) {
	var lacking []string
	for _, r := range needed {
		for _, verb := range []string{"create", "patch"} {
			review := &authorizationv1.SelfSubjectAccessReview{Spec: authorizationv1.SelfSubjectAccessReviewSpec{
				ResourceAttributes: &authorizationv1.ResourceAttributes{Verb: verb, Group: r.Group, Resource: r.Resource, Namespace: home},
			}}
			if err := c.Create(ctx, review); err != nil {
				return Finding{}, err
			}
			if !review.Status.Allowed {
				lacking = append(lacking, verb+" "+r.String())
			}
		}
	}
	if len(lacking) > 0 {
		return found(Failed, "let an administrator of the cluster install", "you may not %s", some(lacking))
	}
	return ok("you may create and change all objects of an installation")
}

// absent warns of an existing installation, because a new installation would upgrade the existing
// one.
func (c Cluster) absent(ctx context.Context) (Finding, error) {
	d, err := c.deployment(ctx)
	switch {
	case apierrors.IsNotFound(err):
		return ok("Metaparticle is not installed yet")
	case err != nil:
		return Finding{}, err
	}
	return found(Warning, "read "+api.Repository+"docs/operate/upgrade.md", "Metaparticle is installed: %s", imageOf(d))
}
