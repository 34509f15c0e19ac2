// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package policies

import (
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	admissionreviewv1 "k8s.io/api/admission/v1"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/admission/plugin/cel"
	"k8s.io/apiserver/pkg/admission/plugin/webhook/matchconditions"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/cel/environment"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"
	"sigs.k8s.io/yaml"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/manifests"
	"github.com/metaparticle-io/metaparticle/mutate/admit"
	"github.com/metaparticle-io/metaparticle/mutate/feature"
	"github.com/metaparticle-io/metaparticle/mutate/image"
)

// kind is a kind of objects on which a person may write a key with our prefix.
type kind struct {
	resource schema.GroupVersionResource
	// made returns an object with the metadata, and with the template's annotations and labels if the kind has
	// a template.
	made func(own metav1.ObjectMeta, template metav1.ObjectMeta) object
	// templated reports that the kind has a pod template.
	templated bool
}

var podSpec = corev1.PodSpec{Containers: []corev1.Container{{Name: "app", Image: "app:1", Command: []string{"/app"}}}}

func templateOf(meta metav1.ObjectMeta) corev1.PodTemplateSpec {
	return corev1.PodTemplateSpec{ObjectMeta: meta, Spec: podSpec}
}

func coreResource(name string) schema.GroupVersionResource {
	return corev1.SchemeGroupVersion.WithResource(name)
}

// kinds are the kinds of the principle: what a person writes there with our prefix has an effect, or is answered.
var kinds = map[string]kind{
	"Pod": {podResource, func(own, _ metav1.ObjectMeta) object { return &corev1.Pod{ObjectMeta: own, Spec: podSpec} }, false},
	"Deployment": {appsv1.SchemeGroupVersion.WithResource("deployments"), func(own, t metav1.ObjectMeta) object {
		return &appsv1.Deployment{ObjectMeta: own, Spec: appsv1.DeploymentSpec{Template: templateOf(t)}}
	}, true},
	"StatefulSet": {appsv1.SchemeGroupVersion.WithResource("statefulsets"), func(own, t metav1.ObjectMeta) object {
		return &appsv1.StatefulSet{ObjectMeta: own, Spec: appsv1.StatefulSetSpec{Template: templateOf(t)}}
	}, true},
	"DaemonSet": {appsv1.SchemeGroupVersion.WithResource("daemonsets"), func(own, t metav1.ObjectMeta) object {
		return &appsv1.DaemonSet{ObjectMeta: own, Spec: appsv1.DaemonSetSpec{Template: templateOf(t)}}
	}, true},
	"ReplicaSet": {appsv1.SchemeGroupVersion.WithResource("replicasets"), func(own, t metav1.ObjectMeta) object {
		return &appsv1.ReplicaSet{ObjectMeta: own, Spec: appsv1.ReplicaSetSpec{Template: templateOf(t)}}
	}, true},
	"ReplicationController": {coreResource("replicationcontrollers"), func(own, t metav1.ObjectMeta) object {
		template := templateOf(t)
		return &corev1.ReplicationController{ObjectMeta: own, Spec: corev1.ReplicationControllerSpec{Template: &template}}
	}, true},
	"Job": {batchv1.SchemeGroupVersion.WithResource("jobs"), func(own, t metav1.ObjectMeta) object {
		return &batchv1.Job{ObjectMeta: own, Spec: batchv1.JobSpec{Template: templateOf(t)}}
	}, true},
	"CronJob": {batchv1.SchemeGroupVersion.WithResource("cronjobs"), func(own, t metav1.ObjectMeta) object {
		c := &batchv1.CronJob{ObjectMeta: own}
		c.Spec.JobTemplate.Spec.Template = templateOf(t)
		return c
	}, true},
	"Service":               {coreResource("services"), func(own, _ metav1.ObjectMeta) object { return &corev1.Service{ObjectMeta: own} }, false},
	"PersistentVolumeClaim": {coreResource("persistentvolumeclaims"), func(own, _ metav1.ObjectMeta) object { return &corev1.PersistentVolumeClaim{ObjectMeta: own} }, false},
	"ConfigMap":             {coreResource("configmaps"), func(own, _ metav1.ObjectMeta) object { return &corev1.ConfigMap{ObjectMeta: own} }, false},
	"Secret":                {coreResource("secrets"), func(own, _ metav1.ObjectMeta) object { return &corev1.Secret{ObjectMeta: own} }, false},
	"ServiceAccount":        {coreResource("serviceaccounts"), func(own, _ metav1.ObjectMeta) object { return &corev1.ServiceAccount{ObjectMeta: own} }, false},
}

// origins gives every pod the workload that controls it. No image is read, because the pods have commands.
type origins struct{}

func (origins) Origin(_ context.Context, _ string, pod *corev1.Pod) (feature.Origin, error) {
	by := metav1.GetControllerOf(pod)
	return feature.Origin{Workload: api.Workload{Group: "apps", Kind: by.Kind, Name: by.Name}}, nil
}

func (o origins) For(image.PullRights) image.Reader { return o }

func (origins) Command(context.Context, string) (image.Command, error) { return image.Command{}, nil }

func (origins) JobUID(context.Context, string, string) (string, error) { return "", nil }

// handled reports whether the webhook changes, refuses or warns of the object of the request, if the API server
// calls it for the request.
func handled(t testing.TB, r request) (words []string, changes bool) {
	t.Helper()
	var configuration admissionv1.MutatingWebhookConfiguration
	require.NoError(t, yaml.Unmarshal(manifests.WebhookConfiguration, &configuration))
	for _, w := range configuration.Webhooks {
		if !calls(t, w, r) {
			continue
		}
		o := admit.Options{AgentImage: "agent:1", Owners: origins{}, Images: origins{}}
		handler := admit.NewWorkloadHandler(o)
		if *w.ClientConfig.Service.Path == "/pods" {
			handler = admit.NewPodHandler(o)
		}
		operation, _ := r.operation()
		review := admission.Request{AdmissionRequest: admissionreviewv1.AdmissionRequest{
			Operation: admissionreviewv1.Operation(operation), Namespace: r.in.Name, Name: r.object.GetName(),
			Kind: metav1.GroupVersionKind{Kind: kindOf(r.object)}, Object: raw(t, r.object),
		}}
		if r.old != nil {
			review.OldObject = raw(t, r.old)
		}
		answer := handler.Handle(t.Context(), review)
		words, changes = append(words, answer.Warnings...), changes || len(answer.Patches) > 0 || !answer.Allowed
	}
	return words, changes
}

func raw(t testing.TB, o object) runtime.RawExtension {
	text, err := json.Marshal(o)
	require.NoError(t, err)
	return runtime.RawExtension{Raw: text}
}

func kindOf(o object) string {
	_, name, _ := strings.Cut(fmt.Sprintf("%T", o), ".")
	return name
}

// calls reports whether the API server calls the webhook for the request.
func calls(t testing.TB, w admissionv1.MutatingWebhook, r request) bool {
	t.Helper()
	selector, err := metav1.LabelSelectorAsSelector(w.NamespaceSelector)
	require.NoError(t, err)
	operation, _ := r.operation()
	if !selector.Matches(labelsOf(r.in)) || !slices.ContainsFunc(w.Rules, func(rule admissionv1.RuleWithOperations) bool {
		return slices.Contains(rule.Operations, admissionv1.OperationType(operation)) && slices.Contains(rule.APIGroups, r.resource.Group) && slices.Contains(rule.Resources, r.resource.Resource)
	}) {
		return false
	}
	compiler := cel.NewConditionCompiler(environment.MustBaseEnvSet(environment.DefaultCompatibilityVersion()))
	var conditions []cel.ExpressionAccessor
	for i := range w.MatchConditions {
		conditions = append(conditions, (*matchconditions.MatchCondition)(&w.MatchConditions[i]))
	}
	matcher := matchconditions.NewMatcher(compiler.CompileCondition(conditions, cel.OptionalVariableDeclarations{HasAuthorizer: true}, environment.StoredExpressions),
		w.FailurePolicy, "webhook", "admit", w.Name)
	result := matcher.Match(t.Context(), r.versioned(t), nil, r.may)
	require.NoError(t, result.Error)
	return result.Matches
}

// reasonIn matches the reason with which a warning begins, behind the name of its policy.
var reasonIn = regexp.MustCompile(`^metaparticle-[a-z-]+: ([A-Z][A-Za-z]+): `)

// An object that a person has annotated or labelled has an effect, or the person reads why not. Nothing else
// would tell that all pods of the workload run the application.
func TestKeyWithOurPrefixHasAnEffectOrAWarning(t *testing.T) {
	person := &user.DefaultInfo{Name: "person"}
	controllers := map[string]*metav1.OwnerReference{
		"":           nil,
		"operator":   {APIVersion: "monitoring.example/v1", Kind: "Prometheus", Name: "main", UID: "u", Controller: new(true)},
		"Kubernetes": {APIVersion: "apps/v1", Kind: "Deployment", Name: "web", UID: "u", Controller: new(true)},
	}
	values := map[string]string{
		api.SingletonAnnotation: "true", api.ReadinessAnnotation: "holder", api.Prefix + "singelton": "true", api.InjectionLabel: "enabled",
		api.WorkloadAnnotation: "Deployment/web", api.SlotsAnnotation: "lock.a",
	}
	cells := 0
	for name, k := range kinds {
		for _, optedIn := range []bool{true, false} {
			for by, controller := range controllers {
				for key, value := range values {
					for _, place := range []string{"annotation", "label", "template's annotation", "template's label", "removed annotation"} {
						for _, update := range []bool{true, false} {
							switch removed := place == "removed annotation"; {
							case strings.HasPrefix(place, "template") && (!k.templated || controller != nil): // the controller writes it
							case !update && controller != nil && (by == "Kubernetes" || name == "Pod"): // the controller makes it
							case removed && (name != "Pod" || !update || key == api.SlotsAnnotation): // where it is carried, a removal is an update like any other
							default:
								cells++
								what := fmt.Sprintf("%s of %s %s, opted in %t, controlled by %q, update %t", place, name, key, optedIn, by, update)
								judgeCell(t, what, cellOf(k, optedIn, controller, person, place, update, map[string]string{key: value}), place)
							}
						}
					}
				}
			}
		}
	}
	assert.Greater(t, cells, 800)
}

// cellOf returns the request by which the person writes the keys at the place.
func cellOf(k kind, optedIn bool, controller *metav1.OwnerReference, by user.Info, place string, update bool, keys map[string]string) request {
	in := namespace("other", optedIn)
	own, template := metav1.ObjectMeta{Namespace: in.Name, Name: "thing"}, metav1.ObjectMeta{}
	if controller != nil {
		own.OwnerReferences = []metav1.OwnerReference{*controller}
	}
	r := request{by: by, resource: k.resource, in: in}
	before := own
	switch place {
	case "annotation":
		own.Annotations = keys
	case "label":
		own.Labels = keys
	case "template's annotation":
		template.Annotations = keys
	case "template's label":
		template.Labels = keys
	case "removed annotation":
		before.Annotations = keys
	}
	r.object = k.made(own, template)
	if update {
		r.old = k.made(before, metav1.ObjectMeta{})
	}
	return r
}

// judgeCell fails unless the request has an effect or a warning with a reason, and not both.
func judgeCell(t *testing.T, what string, r request, place string) {
	t.Helper()
	said, refused := warnings(t, r), refusals(t, r)
	words, changes := handled(t, r)
	for _, text := range said {
		assert.Regexp(t, reasonIn, text, what)
		assert.Contains(t, text, api.Repository+"docs/troubleshoot/reasons.md#", what)
	}
	// A template's annotation is that of the pods to come: the webhook or the policy "gate" judges them.
	comes := false
	if place == "template's annotation" {
		pod := r
		pod.object, pod.old, pod.resource = &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: r.in.Name, Name: "p", Annotations: templateAnnotations(r.object)}, Spec: podSpec}, nil, podResource
		_, injected := handled(t, pod)
		comes = injected || len(refusals(t, pod))+len(warnings(t, pod)) > 0
	}
	if place == "template's label" || place == "label" && r.resource == podResource {
		comes = comes || len(refused) > 0
	}
	effect := changes || len(words) > 0 || len(refused) > 0 || comes
	assert.True(t, effect || len(said) > 0, "%s: neither an effect nor a word", what)
	if changes && len(words) == 0 {
		assert.Empty(t, said, "%s: it has an effect", what)
	}
}

// templateAnnotations returns the annotations of the pods that a workload makes.
func templateAnnotations(o object) map[string]string {
	switch o := o.(type) {
	case *appsv1.Deployment:
		return o.Spec.Template.Annotations
	case *appsv1.StatefulSet:
		return o.Spec.Template.Annotations
	case *appsv1.DaemonSet:
		return o.Spec.Template.Annotations
	case *appsv1.ReplicaSet:
		return o.Spec.Template.Annotations
	case *corev1.ReplicationController:
		return o.Spec.Template.Annotations
	case *batchv1.Job:
		return o.Spec.Template.Annotations
	case *batchv1.CronJob:
		return o.Spec.JobTemplate.Spec.Template.Annotations
	}
	return nil
}

// A key that was there before, and what controllers of Kubernetes copy down, are nothing that a person wrote.
func TestOldAndCopiedKeysCauseNoWarning(t *testing.T) {
	claim := map[string]string{api.SingletonAnnotation: "true"}
	operator := &metav1.OwnerReference{APIVersion: "monitoring.example/v1", Kind: "Prometheus", Name: "main", UID: "u", Controller: new(true)}
	deployment := &metav1.OwnerReference{APIVersion: "apps/v1", Kind: "Deployment", Name: "web", UID: "u", Controller: new(true)}
	own := &user.DefaultInfo{Name: "system:serviceaccount:kube-system:deployment-controller"}
	assert.Empty(t, warnings(t, cellOf(kinds["ReplicaSet"], false, deployment, own, "annotation", true, claim)), "the Deployment's controller copies its annotation")
	assert.Empty(t, warnings(t, cellOf(kinds["ReplicaSet"], false, deployment, own, "annotation", false, claim)))
	for name, k := range kinds {
		for _, controller := range []*metav1.OwnerReference{nil, operator} {
			r := cellOf(k, true, controller, &user.DefaultInfo{Name: "person"}, "annotation", false, claim)
			r.old = r.object.DeepCopyObject().(object)
			r.object.SetAnnotations(map[string]string{api.SingletonAnnotation: "true", "example.com/revision": "2"})
			if controller != nil || name == "Pod" || !k.templated {
				assert.Empty(t, warnings(t, r), "%s: the claim was there", name)
			}
		}
	}
	carried := cellOf(kinds["StatefulSet"], true, operator, &user.DefaultInfo{Name: "operator"}, "annotation", false, claim)
	carried.object.(*appsv1.StatefulSet).Spec.Template.Annotations = claim
	assert.Empty(t, warnings(t, carried), "the operator has it in the template, too")
}

func TestWarningNamesThePlaceWithAnEffect(t *testing.T) {
	claim := map[string]string{api.SingletonAnnotation: "true"}
	operator := &metav1.OwnerReference{APIVersion: "monitoring.example/v1", Kind: "Prometheus", Name: "main", UID: "u", Controller: new(true)}
	set := &metav1.OwnerReference{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: "web-5d4f", UID: "u", Controller: new(true)}
	for name, c := range map[string]struct {
		request
		want string
	}{
		"an operator's StatefulSet": {cellOf(kinds["StatefulSet"], true, operator, nil, "annotation", false, claim),
			"NoEffectHere: metaparticle.io/singleton does not reach the pods of StatefulSet/thing, because Prometheus/main writes its pod template: write it where Prometheus/main has the annotations of its pods"},
		"a living pod": {cellOf(kinds["Pod"], true, set, nil, "annotation", true, claim),
			"NoEffectHere: metaparticle.io/singleton changes nothing for a pod that exists: change the workload of ReplicaSet/web-5d4f, whose new pods then follow it"},
		"a ReplicationController": {cellOf(kinds["ReplicationController"], true, nil, nil, "annotation", false, claim),
			"because nothing carries it to the pod template: write it into the annotations of the template"},
		"a Service": {cellOf(kinds["Service"], true, nil, nil, "annotation", true, claim),
			"NoEffectHere: metaparticle.io/singleton has no effect on a Service: annotate the workload whose pods are meant"},
		"a Deployment without the label": {cellOf(kinds["Deployment"], false, nil, nil, "annotation", true, claim),
			"kubectl label namespace other metaparticle.io/injection=enabled. The label brings nothing to the pod template, so the pods would still run without a gate. Afterwards kubectl rollout restart -n other deployments/thing ("},
		"a CronJob without the label": {cellOf(kinds["CronJob"], false, nil, nil, "annotation", true, claim),
			"Afterwards write the annotation again: kubectl annotate --overwrite -n other cronjobs/thing metaparticle.io/singleton=… ("},
		"a Job without the label":      {cellOf(kinds["Job"], false, nil, nil, "annotation", false, claim), "Afterwards create the Job anew ("},
		"a template without the label": {cellOf(kinds["Deployment"], false, nil, nil, "template's annotation", false, claim), "injection=enabled ("},
		"the namespace's label":        {cellOf(kinds["Deployment"], true, nil, nil, "label", false, map[string]string{api.InjectionLabel: "enabled"}), "has an effect only on a namespace: kubectl label namespace other"},
	} {
		c.by = &user.DefaultInfo{Name: "person"}
		said := warnings(t, c.request)
		assert.Len(t, said, 1, name)
		assert.Contains(t, fmt.Sprint(said), c.want, name)
	}
	preferred := cellOf(kinds["Deployment"], true, nil, &user.DefaultInfo{Name: "person"}, "template's label", false, map[string]string{api.Prefix + "fast": "true"})
	preferred.object.(*appsv1.Deployment).Spec.Template.Annotations = map[string]string{api.PreferAnnotation: api.Prefix + "fast=true"}
	assert.Empty(t, warnings(t, preferred), "a preference reads the label")
}

// Of other kinds nothing is said, because an operator may read our keys there, and carry them to its pods.
func TestOtherKindsAreNotJudged(t *testing.T) {
	o := &networkingv1.Ingress{ObjectMeta: metav1.ObjectMeta{Namespace: "other", Name: "web", Annotations: map[string]string{api.SingletonAnnotation: "true"}}}
	assert.Empty(t, warnings(t, request{
		by: &user.DefaultInfo{Name: "person"}, resource: networkingv1.SchemeGroupVersion.WithResource("ingresses"), in: namespace("other", true), object: o,
	}))
}
