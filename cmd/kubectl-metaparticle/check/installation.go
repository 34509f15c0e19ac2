// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package check

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/yaml"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/manifests"
)

// home is the namespace of the installation, and name is the name of its Deployment, Service
// and Certificate.
const (
	home = "metaparticle-system"
	name = "metaparticle-webhook"
	// configured is the name of the webhook's configuration.
	configured = "metaparticle"
	// label is the key of a label on each pod of the Deployment. The label's value is the name of
	// the Deployment.
	label = "app.kubernetes.io/name"
	// elected is the name of the Lease by which one replica is elected to enroll.
	elected = "metaparticle-enroll"
)

const (
	again   = "install again, with the version of this plugin"
	logs    = "kubectl -n " + home + " logs -l " + label + "=" + name + " --prefix --tail=-1 --since=15m"
	details = "kubectl -n " + home + " describe pods"
)

func (c Cluster) deployment(ctx context.Context) (*appsv1.Deployment, error) {
	d := new(appsv1.Deployment)
	return d, c.Get(ctx, types.NamespacedName{Namespace: home, Name: name}, d)
}

// imageOf returns the image of the webhook.
func imageOf(d *appsv1.Deployment) string {
	for _, container := range d.Spec.Template.Spec.Containers {
		if container.Name == "webhook" {
			return container.Image
		}
	}
	return "no container named webhook"
}

func (c Cluster) webhook(ctx context.Context) (Finding, error) {
	d, err := c.deployment(ctx)
	switch {
	case apierrors.IsNotFound(err):
		return c.withoutWebhook(ctx)
	case err != nil:
		return Finding{}, err
	}
	wanted := ptr.Deref(d.Spec.Replicas, 1)
	available := d.Status.AvailableReplicas
	switch {
	case available == 0:
		return found(Failed, details, "none of %d replicas is available: each pod that claims is refused", wanted)
	case available < wanted || d.Status.UpdatedReplicas < wanted:
		return found(Warning, details, "%d of %d replicas are available, and %d have the last change", available, wanted, d.Status.UpdatedReplicas)
	case wanted < 2:
		return found(Warning, "kubectl -n "+home+" scale deployment/"+name+" --replicas=2; with Helm, add --set replicas=2 to each upgrade, which otherwise undoes this",
			"one replica answers: while its node is drained, each pod that claims is refused")
	}
	return ok("%d replicas are available: %s", available, imageOf(d))
}

// withoutWebhook returns the finding about a missing Deployment. If neither the webhook's
// configuration nor a policy exists, the error [errAbsent] ends the checks. Otherwise these objects
// refuse each pod that claims, and the other checks follow. The other checks also follow if the
// person has no right to read these objects.
func (c Cluster) withoutWebhook(ctx context.Context) (Finding, error) {
	left, err := leftovers(ctx, c)
	switch {
	case err != nil:
		return found(Failed, "read "+api.Repository+"docs/operate/install.md", "Metaparticle is not installed, or not completely: deployment %s/%s does not exist", home, name)
	case len(left) == 0:
		absent, _ := found(Failed, "read "+api.Repository+"docs/operate/install.md", "Metaparticle is not installed: deployment %s/%s does not exist", home, name)
		return absent, errAbsent
	}
	return found(Failed, again+"; or uninstall the rest ("+api.Repository+"docs/operate/uninstall.md)",
		"each pod that claims is refused: deployment %s/%s is not installed, but these objects exist: %s", home, name, some(left))
}

// leftovers returns the names of the objects that refuse pods even without a webhook.
func leftovers(ctx context.Context, c Cluster) (left []string, err error) {
	var configuration admissionv1.MutatingWebhookConfiguration
	switch err := c.Get(ctx, types.NamespacedName{Name: configured}, &configuration); {
	case err == nil:
		left = append(left, "mutatingwebhookconfiguration/"+configured)
	case !apierrors.IsNotFound(err):
		return nil, err
	}
	wanted, err := policies()
	if err != nil {
		return nil, err
	}
	var there admissionv1.ValidatingAdmissionPolicyList
	if err := c.List(ctx, &there); err != nil {
		return nil, err
	}
	for _, w := range wanted {
		if slices.ContainsFunc(there.Items, func(t admissionv1.ValidatingAdmissionPolicy) bool { return t.Name == w.Name }) {
			left = append(left, "validatingadmissionpolicy/"+w.Name)
		}
	}
	return left, nil
}

// renewed is the shortest remaining life of a certificate without a warning of the check. If the
// remaining life is shorter, cert-manager should already have renewed the certificate.
const renewed = 14 * 24 * time.Hour

func (c Cluster) certificate(ctx context.Context) (Finding, error) {
	const do = "kubectl -n " + home + " describe certificate " + name
	certificate := object("cert-manager.io/v1", "Certificate", home, name)
	switch err := c.Get(ctx, types.NamespacedName{Namespace: home, Name: name}, certificate); {
	case apierrors.IsNotFound(err) || meta.IsNoMatchError(err):
		return found(Failed, again, "the webhook's certificate does not exist")
	case err != nil:
		return Finding{}, err
	}
	ends, _, _ := unstructured.NestedString(certificate.Object, "status", "notAfter")
	end, err := time.Parse(time.RFC3339, ends)
	switch {
	case err != nil:
		return found(Failed, do, "cert-manager has issued no certificate for the webhook")
	case end.Before(c.Now):
		return found(Failed, do, "the webhook's certificate ended at %s: each pod that claims is refused", ends)
	case end.Before(c.Now.Add(renewed)):
		return found(Warning, do, "the webhook's certificate ends at %s, and cert-manager has not renewed it", ends)
	}
	return ok("the webhook's certificate is good until %s", ends)
}

func (c Cluster) configuration(ctx context.Context) (Finding, error) {
	var wanted, there admissionv1.MutatingWebhookConfiguration
	if err := yaml.UnmarshalStrict(manifests.WebhookConfiguration, &wanted); err != nil {
		return Finding{}, err
	}
	switch err := c.Get(ctx, types.NamespacedName{Name: configured}, &there); {
	case apierrors.IsNotFound(err):
		return found(Failed, again, "the webhook's configuration %q does not exist: nothing is injected", configured)
	case err != nil:
		return Finding{}, err
	}
	for _, w := range wanted.Webhooks {
		i := slices.IndexFunc(there.Webhooks, func(t admissionv1.MutatingWebhook) bool { return t.Name == w.Name })
		if i < 0 {
			return found(Failed, again, "the webhook %s is missing in the configuration %q", w.Name, configured)
		}
		switch is := there.Webhooks[i]; {
		case ptr.Deref(is.FailurePolicy, admissionv1.Fail) != ptr.Deref(w.FailurePolicy, admissionv1.Fail):
			return found(Failed, again, "the failurePolicy of the webhook %s is %s, not %s", w.Name, *is.FailurePolicy, *w.FailurePolicy)
		case !sameCall(is, w):
			return found(Failed, again, "the webhook %s is not called as this plugin's version is: compare its service, rules and selectors", w.Name)
		case len(is.MatchConditions) < len(w.MatchConditions):
			return found(Warning, "upgrade cert-manager to 1.13 or later, and install again",
				"the webhook %s has lost its matchConditions: while no webhook runs, pods without a claim cannot start either", w.Name)
		}
		if err := trusted(there.Webhooks[i].ClientConfig.CABundle, c.Now); err != nil {
			return found(Failed, "kubectl get pods -A -l app.kubernetes.io/name=cainjector", "the API server cannot trust the webhook %s: %s", w.Name, err)
		}
	}
	var optIn admissionv1.ValidatingWebhookConfiguration
	switch err := c.Get(ctx, types.NamespacedName{Name: configured}, &optIn); {
	case apierrors.IsNotFound(err) || err == nil && len(optIn.Webhooks) == 0:
		return found(Warning, again, "the configuration %q of the webhook for namespaces does not exist: nobody tells who labels a namespace which workloads stay without a gate", configured)
	case err != nil:
		return Finding{}, err
	}
	if err := trusted(optIn.Webhooks[0].ClientConfig.CABundle, c.Now); err != nil {
		return found(Warning, "kubectl get pods -A -l app.kubernetes.io/name=cainjector", "the API server cannot trust the webhook %s: %s", optIn.Webhooks[0].Name, err)
	}
	return ok("the API server calls %d webhooks, and has their CA", len(wanted.Webhooks)+len(optIn.Webhooks))
}

// sameCall reports whether two configurations make the API server call the same service for the
// same objects. The second configuration comes from the manifests, and lacks the defaults that the
// API server adds.
func sameCall(is, w admissionv1.MutatingWebhook) bool {
	service := is.ClientConfig.Service
	return is.ClientConfig.URL == nil && service != nil && w.ClientConfig.Service != nil &&
		service.Namespace == w.ClientConfig.Service.Namespace && service.Name == w.ClientConfig.Service.Name &&
		ptr.Deref(service.Path, "") == ptr.Deref(w.ClientConfig.Service.Path, "") && ptr.Deref(service.Port, 443) == ptr.Deref(w.ClientConfig.Service.Port, 443) &&
		sameSelector(is.NamespaceSelector, w.NamespaceSelector) && sameSelector(is.ObjectSelector, w.ObjectSelector) &&
		slices.EqualFunc(is.Rules, w.Rules, sameRule)
}

// sameMatch reports whether two policies apply to the same objects.
func sameMatch(is, w *admissionv1.MatchResources) bool {
	rule := func(a, b admissionv1.NamedRuleWithOperations) bool {
		return slices.Equal(a.ResourceNames, b.ResourceNames) && sameRule(a.RuleWithOperations, b.RuleWithOperations)
	}
	return is != nil && w != nil && sameSelector(is.NamespaceSelector, w.NamespaceSelector) && sameSelector(is.ObjectSelector, w.ObjectSelector) &&
		slices.EqualFunc(is.ResourceRules, w.ResourceRules, rule) && slices.EqualFunc(is.ExcludeResourceRules, w.ExcludeResourceRules, rule)
}

func sameRule(a, b admissionv1.RuleWithOperations) bool {
	return slices.Equal(a.Operations, b.Operations) && slices.Equal(a.APIGroups, b.APIGroups) && slices.Equal(a.APIVersions, b.APIVersions) &&
		slices.Equal(a.Resources, b.Resources) && ptr.Deref(a.Scope, admissionv1.AllScopes) == ptr.Deref(b.Scope, admissionv1.AllScopes)
}

// sameSelector reports whether two selectors select the same objects. A missing selector selects
// all objects, as an empty one does.
func sameSelector(a, b *metav1.LabelSelector) bool {
	return equality.Semantic.DeepEqual(ptr.Deref(a, metav1.LabelSelector{}), ptr.Deref(b, metav1.LabelSelector{}))
}

// trusted returns an error unless the bundle has a CA that is valid now.
func trusted(bundle []byte, now time.Time) error {
	last := errors.New("the configuration has no CA; cert-manager's cainjector writes it")
	for block, rest := pem.Decode(bundle); block != nil; block, rest = pem.Decode(rest) {
		ca, err := x509.ParseCertificate(block.Bytes)
		switch {
		case err != nil:
			last = fmt.Errorf("its CA cannot be read: %w", err)
		case now.Before(ca.NotBefore) || now.After(ca.NotAfter):
			last = fmt.Errorf("its CA is valid from %s to %s", ca.NotBefore.Format(time.RFC3339), ca.NotAfter.Format(time.RFC3339))
		default:
			return nil
		}
	}
	return last
}

// action returns what the binding of a policy must do. A policy that may fail only warns.
func action(p admissionv1.ValidatingAdmissionPolicy) admissionv1.ValidationAction {
	if ptr.Deref(p.Spec.FailurePolicy, admissionv1.Fail) == admissionv1.Ignore {
		return admissionv1.Warn
	}
	return admissionv1.Deny
}

// policies compares the policies of the cluster with those of this plugin.
func (c Cluster) policies(ctx context.Context) (Finding, error) {
	wanted, err := policies()
	if err != nil {
		return Finding{}, err
	}
	var there admissionv1.ValidatingAdmissionPolicyList
	var bindings admissionv1.ValidatingAdmissionPolicyBindingList
	if err := errors.Join(c.List(ctx, &there), c.List(ctx, &bindings)); err != nil {
		return Finding{}, err
	}
	var missing, loose, other []string
	for _, w := range wanted {
		i := slices.IndexFunc(there.Items, func(t admissionv1.ValidatingAdmissionPolicy) bool { return t.Name == w.Name })
		if i < 0 {
			missing = append(missing, w.Name)
			continue
		}
		if !slices.ContainsFunc(bindings.Items, func(b admissionv1.ValidatingAdmissionPolicyBinding) bool {
			return b.Spec.PolicyName == w.Name && slices.Contains(b.Spec.ValidationActions, action(w)) && b.Spec.MatchResources == nil
		}) {
			loose = append(loose, w.Name)
		}
		is := there.Items[i]
		if !slices.Equal(expressions(is), expressions(w)) || !sameMatch(is.Spec.MatchConstraints, w.Spec.MatchConstraints) || ptr.Deref(is.Spec.FailurePolicy, admissionv1.Fail) != ptr.Deref(w.Spec.FailurePolicy, admissionv1.Fail) {
			other = append(other, w.Name)
		}
	}
	switch {
	case len(missing) > 0:
		return found(Failed, again, "policies are missing: %s", some(missing))
	case len(loose) > 0:
		return found(Failed, again, "policies have no effect, because they are not bound: %s", some(loose))
	case len(other) > 0:
		return found(Warning, again, "policies differ from those of this plugin's version: %s", some(other))
	}
	return ok("%d policies are bound, and equal to this plugin's", len(wanted))
}

// policies returns the policies of this plugin's version.
func policies() ([]admissionv1.ValidatingAdmissionPolicy, error) {
	files, err := fs.Glob(manifests.Policies, "policies/*.yaml")
	if err != nil {
		return nil, err
	}
	var all []admissionv1.ValidatingAdmissionPolicy
	for _, file := range files {
		text, err := fs.ReadFile(manifests.Policies, file)
		if err != nil {
			return nil, err
		}
		for document := range strings.SplitSeq(string(text), "\n---\n") {
			var p admissionv1.ValidatingAdmissionPolicy
			if err := yaml.Unmarshal([]byte(document), &p); err != nil {
				return nil, fmt.Errorf("%s: %w", file, err)
			}
			if p.Kind == "ValidatingAdmissionPolicy" {
				all = append(all, p)
			}
		}
	}
	return all, nil
}

// expressions returns the expressions of a policy, and their names and messages, for the comparison
// of two policies. The function leaves out the other fields, because the API server adds defaults
// to these fields. An installer may break the lines of an expression at other places. So the
// function replaces each sequence of spaces and line feeds by one space.
func expressions(p admissionv1.ValidatingAdmissionPolicy) []string {
	var all []string
	for _, m := range p.Spec.MatchConditions {
		all = append(all, m.Name, m.Expression)
	}
	for _, v := range p.Spec.Variables {
		all = append(all, v.Name, v.Expression)
	}
	for _, v := range p.Spec.Validations {
		all = append(all, v.Expression, v.Message, v.MessageExpression)
	}
	for i, text := range all {
		all[i] = strings.Join(strings.Fields(text), " ")
	}
	return all
}

func (c Cluster) variables(ctx context.Context) (Finding, error) {
	crd := object("apiextensions.k8s.io/v1", "CustomResourceDefinition", "", api.VariableResource+"."+api.VariableGroup)
	switch err := c.Get(ctx, types.NamespacedName{Name: crd.GetName()}, crd); {
	case apierrors.IsNotFound(err):
		return found(Failed, again, "the definition of Variables does not exist: programs cannot use variable/NAME")
	case err != nil:
		return Finding{}, err
	}
	conditions, _, _ := unstructured.NestedSlice(crd.Object, "status", "conditions")
	for _, condition := range conditions {
		if m, isMap := condition.(map[string]any); isMap && m["type"] == "Established" && m["status"] == "True" {
			return ok("Variables are served")
		}
	}
	return found(Failed, "kubectl describe crd "+crd.GetName(), "Variables are not served yet")
}

// silent bounds the time since the last renewal of the Lease [elected]. After a longer time, the
// check assumes that no replica enrolls.
const silent = time.Minute

func (c Cluster) enroll(ctx context.Context) (Finding, error) {
	var lease coordinationv1.Lease
	err := c.Get(ctx, types.NamespacedName{Namespace: home, Name: elected}, &lease)
	switch {
	case apierrors.IsNotFound(err) || err == nil && ptr.Deref(lease.Spec.HolderIdentity, "") == "":
		return found(Failed, logs, "no replica enrolls: new slots get no Lease, and their pods wait")
	case err != nil:
		return Finding{}, err
	case lease.Spec.RenewTime == nil || c.Now.Sub(lease.Spec.RenewTime.Time) > silent:
		return found(Failed, logs, "the replica that enrolls has been silent for more than %v: new slots get no Lease, and their pods wait", silent)
	}
	return ok("replica %s enrolls", api.PodOf(*lease.Spec.HolderIdentity))
}
