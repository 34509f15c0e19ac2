// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package policies

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/admission/plugin/cel"
	"k8s.io/apiserver/pkg/admission/plugin/policy/validating"
	"k8s.io/apiserver/pkg/admission/plugin/webhook/matchconditions"
	apiservercel "k8s.io/apiserver/pkg/apis/cel"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/cel/environment"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/yaml"

	"github.com/metaparticle-io/metaparticle/api"
)

// policy is a policy of the manifests, and its compiled expressions.
type policy struct {
	*admissionv1.ValidatingAdmissionPolicy
	validating.Validator
}

// policies compiles all policies once.
var policies = sync.OnceValues(func() (all []policy, err error) {
	files, err := filepath.Glob("../../manifests/policies/*.yaml")
	if err != nil {
		return nil, err
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		for document := range bytes.SplitSeq(text, []byte("\n---\n")) {
			p := new(admissionv1.ValidatingAdmissionPolicy)
			if err := yaml.Unmarshal(document, p); err != nil {
				return nil, err
			}
			if p.Kind != "ValidatingAdmissionPolicy" {
				continue
			}
			compiled, err := compile(p)
			if err != nil {
				return nil, err
			}
			all = append(all, policy{p, compiled})
		}
	}
	return all, nil
})

// compile compiles the expressions of a policy, as the API server does.
func compile(p *admissionv1.ValidatingAdmissionPolicy) (validating.Validator, error) {
	compiler, err := cel.NewCompositedCompiler(environment.MustBaseEnvSet(environment.DefaultCompatibilityVersion()))
	if err != nil {
		return nil, err
	}
	authorized := cel.OptionalVariableDeclarations{HasAuthorizer: true}
	for _, v := range p.Spec.Variables {
		result := compiler.CompileAndStoreVariable(&validating.Variable{Name: v.Name, Expression: v.Expression}, authorized, environment.StoredExpressions)
		if result.Error != nil {
			return nil, fmt.Errorf("%s: %s: %w", p.Name, v.Name, result.Error)
		}
	}
	var conditions, validations, messages []cel.ExpressionAccessor
	for i := range p.Spec.MatchConditions {
		conditions = append(conditions, (*matchconditions.MatchCondition)(&p.Spec.MatchConditions[i]))
	}
	for _, v := range p.Spec.Validations {
		validations = append(validations, &validating.ValidationCondition{Expression: v.Expression, Message: v.Message, Reason: v.Reason})
		var message cel.ExpressionAccessor
		if v.MessageExpression != "" {
			message = &validating.MessageExpressionCondition{MessageExpression: v.MessageExpression}
		}
		messages = append(messages, message)
	}
	return validating.NewValidator(
		compiler.CompileCondition(validations, authorized, environment.StoredExpressions),
		matchconditions.NewMatcher(compiler.CompileCondition(conditions, authorized, environment.StoredExpressions),
			p.Spec.FailurePolicy, "policy", "validate", p.Name),
		compiler.CompileCondition(nil, authorized, environment.StoredExpressions),
		compiler.CompileCondition(messages, cel.OptionalVariableDeclarations{}, environment.StoredExpressions),
		p.Spec.FailurePolicy, nil), nil
}

// request is a request to the API server. Without an old object, the request creates the object.
// Without an object, the request deletes the old object.
type request struct {
	by  user.Info
	may may
	// resource and subresource name the resource of the request.
	resource    schema.GroupVersionResource
	subresource string
	in          *corev1.Namespace
	object, old object
}

// object is an object of a request.
type object interface {
	runtime.Object
	metav1.Object
}

// may reports whether the user of a request has a right.
type may func(authorizer.Attributes) bool

// Authorize answers the policies that ask for rights of the user.
func (m may) Authorize(_ context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
	if m != nil && m(a) {
		return authorizer.DecisionAllow, "", nil
	}
	return authorizer.DecisionNoOpinion, "", nil
}

// refusals returns the messages of the policies that refuse a request. Each message begins with the
// name of the policy.
func refusals(t testing.TB, r request) []string {
	t.Helper()
	return denials(t, r, admissionv1.Fail)
}

// warnings returns the messages of the policies that only warn.
func warnings(t testing.TB, r request) []string {
	t.Helper()
	return denials(t, r, admissionv1.Ignore)
}

// denials returns the denials of the policies with that failure policy.
func denials(t testing.TB, r request, failure admissionv1.FailurePolicyType) (messages []string) {
	t.Helper()
	all, err := policies()
	require.NoError(t, err)
	require.Greater(t, len(all), 10)
	versioned := r.versioned(t)
	for _, p := range all {
		if *p.Spec.FailurePolicy != failure || !p.selects(t, r) {
			continue
		}
		result := p.Validate(t.Context(), r.resource, versioned, nil, r.in, apiservercel.RuntimeCELCostBudget, r.may)
		for _, d := range result.Decisions {
			if d.Action == validating.ActionDeny {
				messages = append(messages, p.Name+": "+d.Message)
			}
			// A policy that only warns admits what it cannot judge, so nobody else would see its mistake.
			require.True(t, failure != admissionv1.Ignore || d.Evaluation != validating.EvalError, "%s: %s", p.Name, d.Message)
		}
	}
	return messages
}

// versioned returns the request as the API server gives it to expressions.
func (r request) versioned(t testing.TB) *admission.VersionedAttributes {
	t.Helper()
	about := r.about()
	kinds, _, err := scheme.Scheme.ObjectKinds(about)
	require.NoError(t, err)
	operation, options := r.operation()
	var object, old runtime.Object
	versioned := &admission.VersionedAttributes{VersionedKind: kinds[0]}
	if r.object != nil {
		object, versioned.VersionedObject = r.object, admission.NewLazyObject(r.object)
	}
	if r.old != nil {
		old, versioned.VersionedOldObject = r.old, admission.NewLazyObject(r.old)
	}
	versioned.Attributes = admission.NewAttributesRecord(object, old, kinds[0], r.in.Name, about.GetName(),
		r.resource, r.subresource, operation, options, false, r.by)
	return versioned
}

func labelsOf(o object) labels.Set { return o.GetLabels() }

// selects reports whether the policy's selectors and rules select the request.
func (p policy) selects(t testing.TB, r request) bool {
	t.Helper()
	matching := func(selector *metav1.LabelSelector, of map[string]string) bool {
		if selector == nil {
			return true
		}
		s, err := metav1.LabelSelectorAsSelector(selector)
		require.NoError(t, err)
		return s.Matches(labels.Set(of))
	}
	constraints := p.Spec.MatchConstraints
	if !matching(constraints.NamespaceSelector, r.in.Labels) {
		return false
	}
	if !slices.ContainsFunc([]object{r.object, r.old}, func(o object) bool { return o != nil && matching(constraints.ObjectSelector, o.GetLabels()) }) {
		return false
	}
	operation, _ := r.operation()
	resource := r.resource.Resource
	if r.subresource != "" {
		resource += "/" + r.subresource
	}
	return slices.ContainsFunc(constraints.ResourceRules, func(rule admissionv1.NamedRuleWithOperations) bool {
		return slices.Contains(rule.Operations, admissionv1.OperationType(operation)) &&
			slices.Contains(rule.APIGroups, r.resource.Group) && slices.Contains(rule.Resources, resource)
	})
}

// about returns an object of the request.
func (r request) about() object {
	if r.object == nil {
		return r.old
	}
	return r.object
}

// operation returns the request's operation, and the type of its options.
func (r request) operation() (admission.Operation, runtime.Object) {
	switch {
	case r.object == nil:
		return admission.Delete, new(metav1.DeleteOptions)
	case r.old == nil:
		return admission.Create, new(metav1.CreateOptions)
	}
	return admission.Update, new(metav1.UpdateOptions)
}

// namespace returns a namespace that opted in, or that did not.
func namespace(name string, optedIn bool) *corev1.Namespace {
	of := map[string]string{corev1.LabelMetadataName: name}
	if optedIn {
		of[api.InjectionLabel] = api.InjectionEnabled
	}
	return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: of}}
}
