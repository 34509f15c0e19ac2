// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package manifests_test checks the manifests against the types of the Kubernetes
// API and against the names in the Go code. The tests in test/e2e show, on a real API server, that
// the policies' expressions work.
package manifests_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	certmanager "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/enroll"
)

const (
	namespace = "metaparticle-system"
	account   = "metaparticle-webhook"
)

// build returns the objects of "kubectl apply -k", decodes each into its type, and
// fails on unknown fields.
func build(t *testing.T, directory string) []client.Object {
	t.Helper()
	scheme := runtime.NewScheme()
	require.NoError(t, clientgoscheme.AddToScheme(scheme))
	require.NoError(t, certmanager.AddToScheme(scheme))
	require.NoError(t, apiextensionsv1.AddToScheme(scheme))
	built, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), directory)
	require.NoError(t, err)
	var objects []client.Object
	for _, resource := range built.Resources() {
		text, err := resource.AsYAML()
		require.NoError(t, err)
		var kind metav1.TypeMeta
		require.NoError(t, yaml.Unmarshal(text, &kind))
		if strings.HasPrefix(kind.APIVersion, "monitoring.coreos.com/") {
			// This module does not depend on the types of the Prometheus Operator.
			object := new(unstructured.Unstructured)
			require.NoError(t, yaml.Unmarshal(text, object))
			objects = append(objects, object)
			continue
		}
		object, err := scheme.New(kind.GroupVersionKind())
		require.NoError(t, err)
		require.NoError(t, yaml.UnmarshalStrict(text, object), "%s", text)
		objects = append(objects, object.(client.Object))
	}
	return objects
}

// all returns the built objects of one type.
func all[T client.Object](t *testing.T) []T {
	t.Helper()
	var of []T
	for _, object := range build(t, ".") {
		if o, ok := object.(T); ok {
			of = append(of, o)
		}
	}
	require.NotEmpty(t, of)
	return of
}

func TestManifestsHaveOnlyFieldsOfTheirKubernetesTypes(t *testing.T) {
	assert.NotEmpty(t, build(t, "."))
}

func TestEachKustomizeComponentChangesTheManifests(t *testing.T) {
	components, err := filepath.Glob("components/*")
	require.NoError(t, err)
	require.NotEmpty(t, components)
	for _, component := range components {
		t.Run(component, func(t *testing.T) {
			changed := with(t, component)
			assert.NotEqual(t, build(t, "."), changed)
			for _, object := range changed {
				role, ok := object.(*rbacv1.ClusterRole)
				if ok && strings.HasSuffix(component, "no-pull-secrets") && role.Name == account {
					assert.False(t, slices.ContainsFunc(role.Rules, func(r rbacv1.PolicyRule) bool {
						return slices.Contains(r.Verbs, "bind")
					}))
				}
			}
		})
	}
}

// texts returns the manifests as text, without comments.
func texts(t *testing.T) map[string]string {
	t.Helper()
	found := map[string]string{}
	require.NoError(t, filepath.WalkDir(".", func(path string, _ os.DirEntry, err error) error {
		if err != nil || filepath.Ext(path) != ".yaml" {
			return err
		}
		text, err := os.ReadFile(path)
		found[path] = regexp.MustCompile(`(?m)^\s*#.*$`).ReplaceAllString(string(text), "")
		return err
	}))
	return found
}

// onLeases are the annotations that an agent writes into, or removes from, a Lease.
var onLeases = []string{
	api.HoldAnnotation, api.TokenAnnotation, api.BootAnnotation, api.AddressAnnotation, api.WorkloadAnnotation,
	api.JobAnnotation, api.RevisionAnnotation, api.RolloutAnnotation, api.ServingAnnotation, api.SuccessorAnnotation,
	api.LeavingAnnotation, api.WordsAnnotation, api.YieldAnnotation, api.DoneAnnotation, api.FailuresAnnotation, api.OpenedAnnotation,
	api.SupportersAnnotation,
}

func TestMetaparticleNamesInManifestsExistInPackageAPI(t *testing.T) {
	known := []string{
		api.InjectionLabel, api.ReadyCondition, api.RoleLabel, api.GatedLabel, api.SlotsAnnotation,
		api.ManagedLabel, api.PausedAnnotation, api.ShardLabel, api.StampAnnotation, api.Prefix,
	}
	known = append(known, onLeases...)
	for _, a := range api.Annotations {
		known = append(known, a.Key)
	}
	for path, text := range texts(t) {
		for _, name := range regexp.MustCompile(`\bmetaparticle\.io/[-a-z]*`).FindAllString(text, -1) {
			assert.Contains(t, known, name, path)
		}
	}
}

func TestGatePolicyUsesTheNamesOfPackageAPI(t *testing.T) {
	gate := texts(t)["policies/gate.yaml"]
	for _, name := range []string{
		"'" + api.ShimProgram + "'", "c.name == '" + api.AgentContainer + "'", "['" + api.TurnContainer + "', '" + api.AgentContainer + "', '" + api.WaitContainer + "']",
		fmt.Sprintf("r.action == '%s'", corev1.ContainerRestartRuleActionRestartAllContainers), fmt.Sprintf("%d in r.", api.RestartCode),
		"[?'" + api.GateAnnotation + "']", "[?'" + api.ContainersAnnotation + "']", "g.conditionType == '" + api.ReadyCondition + "'",
		"v.name == '" + api.Volume + "'", "[?'" + api.GatedLabel + "'].orValue('') == '" + api.Gated + "'",
		"[?'" + api.InjectionLabel + "'].orValue('') == '" + api.InjectionEnabled + "'",
		"[?'" + api.SlotsAnnotation + "']", "[?'" + api.InjectAnnotation + "'].orValue('') == 'false'",
	} {
		assert.Contains(t, gate, name)
	}
	assert.Contains(t, texts(t)["policies/image.yaml"], "'"+api.ShimProgram+"'")
}

func TestPoliciesCoverEveryWriteOfMarks(t *testing.T) {
	marks := texts(t)["policies/marks.yaml"]
	for _, name := range []string{
		"'" + api.ShimProgram + "'", "c.name == '" + api.AgentContainer + "'",
		"[?'" + api.GatedLabel + "'].orValue('') == '" + api.Gated + "'", "[?'" + api.SlotsAnnotation + "'].orValue('') != ''",
		"[?'" + api.InjectionLabel + "'].orValue('') == '" + api.InjectionEnabled + "'",
		"['" + strings.Join(neverOurs[0].Values, "', '") + "']",
	} {
		assert.Contains(t, marks, name)
	}
	covered := map[string]bool{}
	for _, p := range all[*admissionv1.ValidatingAdmissionPolicy](t) {
		if !slices.Contains(everywhere, p.Name) {
			continue
		}
		assert.Nil(t, p.Spec.MatchConstraints.NamespaceSelector, "%s: enroll reads marks in every namespace", p.Name)
		assert.Nil(t, p.Spec.MatchConstraints.ObjectSelector, p.Name)
		for _, rule := range p.Spec.MatchConstraints.ResourceRules {
			for _, operation := range rule.Operations {
				for _, resource := range rule.Resources {
					covered[string(operation)+" "+resource] = true
				}
			}
		}
	}
	for _, way := range []string{
		"CREATE pods", "UPDATE pods", "UPDATE pods/status", "UPDATE pods/resize", "UPDATE pods/ephemeralcontainers",
		"CREATE pods/binding", "CREATE bindings",
	} {
		assert.True(t, covered[way], way)
	}
}

// everywhere are the policies that apply in every namespace.
var everywhere = []string{"metaparticle-marks", "metaparticle-binding", "metaparticle-leftover", "metaparticle-enroll"}

// warns reports whether the policy refuses nothing.
func warns(policy string) bool { return strings.HasPrefix(policy, "metaparticle-ineffective") }

func TestGatePolicyListsEachAnnotationThatClaimsNothing(t *testing.T) {
	nothing := []string{api.SlotsAnnotation, api.WorkloadAnnotation}
	for _, a := range api.Annotations {
		if a.Kind == nil {
			nothing = append(nothing, a.Key)
		}
	}
	lists := regexp.MustCompile(`(?s)k in \[(.*?)\]`).FindAllStringSubmatch(texts(t)["policies/gate.yaml"], -1)
	require.Len(t, lists, 2)
	for _, list := range lists {
		var written []string
		for _, quoted := range regexp.MustCompile(`'([^']*)'`).FindAllStringSubmatch(list[1], -1) {
			written = append(written, quoted[1])
		}
		assert.ElementsMatch(t, nothing, written, "both lists of annotations in policies/gate.yaml")
	}
}

func TestStatusPolicyListsFieldsThatAgentsWrite(t *testing.T) {
	status := texts(t)["policies/status.yaml"]
	assert.Contains(t, status, "k == '"+api.RoleLabel+"' ?\n          variables.newLabels[k] == '"+api.RoleHolder+"'")
	assert.Contains(t, status, "k == '"+api.ShardLabel+"' ?\n          variables.newLabels[k].matches('^[0-9]{1,2}$')")
	assert.Contains(t, status, "k in ['"+api.RoleLabel+"', '"+api.ShardLabel+"'] || k in variables.newLabels")
	assert.Contains(t, status, "k == '"+api.DeletionCostAnnotation+"'")
	assert.Contains(t, status, "!(c.type in ['"+api.ReadyCondition+"', '"+api.DisruptionCondition+"'])")
}

func TestLeasePolicyBoundsDurationAndChecksIdentity(t *testing.T) {
	lease := texts(t)["policies/lease.yaml"]
	assert.Contains(t, lease, fmt.Sprintf("<= %d\n", int(api.MaxLeaseDuration.Seconds())))
	assert.Equal(t, "p_u", api.Identity("p", "u"))
	assert.Contains(t, lease, "variables.pod + '_' + variables.uid")
}

func TestLeasePolicyListsAnnotationsThatAgentsWrite(t *testing.T) {
	written := regexp.MustCompile(`(?s)- name: written\n.*?\[(.*?)\]`).FindStringSubmatch(texts(t)["policies/lease.yaml"])
	require.Len(t, written, 2)
	var keys []string
	for _, word := range regexp.MustCompile(`'(.*?)'`).FindAllStringSubmatch(written[1], -1) {
		keys = append(keys, word[1])
	}
	assert.ElementsMatch(t, onLeases, keys)
}

func TestLeasePolicyProtectsPauseAndYieldAnnotations(t *testing.T) {
	for _, key := range []string{api.PausedAnnotation, api.YieldAnnotation} {
		assert.Equal(t, 2, strings.Count(texts(t)["policies/lease.yaml"], "[?'"+key+"']"), key)
	}
}

func TestPoliciesUseTheObjectNamesOfPackageEnroll(t *testing.T) {
	for _, path := range []string{"policies/enroll.yaml", "policies/lease-deletion.yaml"} {
		assert.Contains(t, texts(t)[path], "'system:serviceaccount:"+namespace+":"+account+"'", path)
	}
	assert.Contains(t, texts(t)["policies/enroll.yaml"], "b.roleRef.name == '"+enroll.PullSecretsRole+"'")
	assert.Contains(t, texts(t)["policies/enroll.yaml"], "[?'"+api.ManagedLabel+"']")
	terms, err := os.ReadFile("../cmd/webhook/terms.go")
	require.NoError(t, err)
	election := regexp.MustCompile(`leaderElectionID = "(.*)"`).FindSubmatch(terms)
	require.NotNil(t, election)
	assert.Contains(t, texts(t)["policies/enroll.yaml"], fmt.Sprintf("o.metadata.name == '%s'", election[1]))
	const prefix = "metaparticle:"
	assert.True(t, strings.HasPrefix(enroll.RoleName("x"), prefix))
	assert.Contains(t, texts(t)["policies/enroll.yaml"], "roleRef.name.startsWith('"+prefix+"')")
	assert.True(t, slices.ContainsFunc(all[*rbacv1.ClusterRole](t), func(r *rbacv1.ClusterRole) bool {
		return r.Name == enroll.PullSecretsRole
	}))
	assert.Equal(t, account, all[*corev1.ServiceAccount](t)[0].Name)
}

func TestWebhooksFailClosedForAnnotatedPodsOnly(t *testing.T) {
	for _, configuration := range all[*admissionv1.MutatingWebhookConfiguration](t) {
		assert.Equal(t, namespace+"/"+account, configuration.Annotations["cert-manager.io/inject-ca-from"])
		for _, w := range configuration.Webhooks {
			assert.Equal(t, failures[w.Name], *w.FailurePolicy, w.Name)
			assert.Equal(t, admissionv1.SideEffectClassNone, *w.SideEffects, w.Name)
			assert.Equal(t, admissionv1.IfNeededReinvocationPolicy, *w.ReinvocationPolicy, w.Name)
			assert.Empty(t, w.ClientConfig.CABundle, w.Name)
			assert.Equal(t, map[string]string{api.InjectionLabel: api.InjectionEnabled}, w.NamespaceSelector.MatchLabels, w.Name)
			assert.Equal(t, neverOurs, w.NamespaceSelector.MatchExpressions, w.Name)
			assert.Contains(t, w.MatchConditions[0].Expression, "startsWith('"+api.Prefix+"')", w.Name)
		}
	}
}

// The webhook for namespaces is called once for each opt-in, and never keeps anybody from it.
func TestWebhookForNamespacesOnlyWarnsAtAnOptIn(t *testing.T) {
	configuration := all[*admissionv1.ValidatingWebhookConfiguration](t)[0]
	assert.Equal(t, namespace+"/"+account, configuration.Annotations["cert-manager.io/inject-ca-from"])
	require.Len(t, configuration.Webhooks, 1)
	w := configuration.Webhooks[0]
	assert.Equal(t, admissionv1.Ignore, *w.FailurePolicy)
	assert.Equal(t, admissionv1.SideEffectClassNone, *w.SideEffects)
	assert.LessOrEqual(t, *w.TimeoutSeconds, int32(3))
	assert.Equal(t, map[string]string{api.InjectionLabel: api.InjectionEnabled}, w.NamespaceSelector.MatchLabels)
	assert.Equal(t, neverOurs, w.NamespaceSelector.MatchExpressions)
	assert.Equal(t, []admissionv1.OperationType{admissionv1.Update}, w.Rules[0].Operations)
	assert.Equal(t, "oldObject.metadata.?labels[?'"+api.InjectionLabel+"'].orValue('') != '"+api.InjectionEnabled+"'", w.MatchConditions[0].Expression)
}

// failures has the failure policy of each webhook. The API server applies this policy while the
// webhook does not answer. With the policy Ignore, the API server then admits each workload. But
// the admission policy metaparticle-carried refuses changes of annotations that the webhook must
// carry to the pod template.
var failures = map[string]admissionv1.FailurePolicyType{
	"pods.metaparticle.io":      admissionv1.Fail,
	"workloads.metaparticle.io": admissionv1.Ignore,
	"marks.metaparticle.io":     admissionv1.Fail,
}

// neverOurs excludes kube-system and the webhook's own namespace, where no pod is ever gated.
var neverOurs = []metav1.LabelSelectorRequirement{{
	Key: corev1.LabelMetadataName, Operator: metav1.LabelSelectorOpNotIn, Values: []string{"kube-system", namespace},
}}

func TestPoliciesFailClosedAndHaveBindings(t *testing.T) {
	var bound []string
	for _, b := range all[*admissionv1.ValidatingAdmissionPolicyBinding](t) {
		action := admissionv1.Deny
		if warns(b.Spec.PolicyName) {
			action = admissionv1.Warn
		}
		assert.Equal(t, []admissionv1.ValidationAction{action}, b.Spec.ValidationActions, b.Name)
		bound = append(bound, b.Spec.PolicyName)
	}
	for _, p := range all[*admissionv1.ValidatingAdmissionPolicy](t) {
		assert.Equal(t, warns(p.Name), *p.Spec.FailurePolicy == admissionv1.Ignore, p.Name)
		assert.Contains(t, bound, p.Name)
		for _, rule := range p.Spec.MatchConstraints.ResourceRules {
			if strings.HasPrefix(rule.Resources[0], "pods") && !warns(p.Name) && !slices.Contains(everywhere, p.Name) {
				assert.Equal(t, neverOurs, p.Spec.MatchConstraints.NamespaceSelector.MatchExpressions, p.Name)
			}
		}
		for _, v := range p.Spec.Validations {
			// A validation's message must have one line. If a validation has no message
			// expression, or the expression fails, the API server uses the message.
			assert.NotContains(t, v.Message, "\n", p.Name)
			assert.NotEmpty(t, v.Message, p.Name)
		}
	}
}

// The API server lets enroll grant only rights that the webhook's own account has.
func TestWebhookHasEveryRightThatEnrollGrants(t *testing.T) {
	roles := all[*rbacv1.ClusterRole](t)
	i := slices.IndexFunc(roles, func(r *rbacv1.ClusterRole) bool { return r.Name == account })
	for _, given := range slices.Concat(enroll.AgentRules("lock.x"), enroll.VariableRules("x")) {
		for _, verb := range given.Verbs {
			assert.True(t, slices.ContainsFunc(roles[i].Rules, func(r rbacv1.PolicyRule) bool {
				return slices.Contains(r.APIGroups, given.APIGroups[0]) && slices.Contains(r.Resources, given.Resources[0]) &&
					slices.Contains(r.Verbs, verb) && len(r.ResourceNames) == 0
			}), "%s %v", verb, given.Resources)
		}
		switch given.Resources[0] {
		case "leases":
			assert.NotContains(t, given.Verbs, "create", "the policy on Leases would judge no agent")
		case api.VariableResource:
			assert.NotContains(t, given.Verbs, "create", "the policy on Variables would judge no agent")
		case "pods/status":
			assert.NotContains(t, given.Verbs, "update", "the policy on pods/status would judge no agent")
		case "events":
			assert.NotContains(t, given.Verbs, "patch", "the policy on Events would judge no agent")
		}
	}
}

// The policies on agents' writes apply only to users whose Role has the last rule of
// [enroll.AgentRules].
func TestPoliciesRecognizeAgentsByTheirRBACRole(t *testing.T) {
	given := enroll.AgentRules("lock.x")
	marker := given[len(given)-1]
	require.Empty(t, marker.ResourceNames, "the policies check the right without a name")
	check := fmt.Sprintf("authorizer.group('%s').resource('%s').namespace(request.namespace).check('%s').allowed()",
		marker.APIGroups[0], marker.Resources[0], marker.Verbs[0])
	for _, path := range []string{"policies/lease.yaml", "policies/status.yaml", "policies/events.yaml", "policies/variable.yaml"} {
		assert.Contains(t, texts(t)[path], check, path)
		assert.NotContains(t, texts(t)[path], "system:serviceaccount:", path)
	}
}

// A service account of pods can have the ClusterRole edit. If that gave the right to create Leases or
// Variables, the policies on agents would not judge its pods.
func TestRolesOfPeopleExemptNoAgentFromPolicies(t *testing.T) {
	aggregated := 0
	for _, r := range all[*rbacv1.ClusterRole](t) {
		for label := range r.Labels {
			if !strings.HasPrefix(label, "rbac.authorization.k8s.io/aggregate-to-") {
				continue
			}
			aggregated++
			for _, rule := range r.Rules {
				for _, verb := range rule.Verbs {
					assert.Contains(t, []string{"get", "list", "watch", "patch"}, verb, r.Name)
				}
				assert.Equal(t, slices.Contains(rule.Verbs, "patch"), label == "rbac.authorization.k8s.io/aggregate-to-edit", r.Name)
			}
		}
	}
	assert.Equal(t, 2, aggregated)
}
