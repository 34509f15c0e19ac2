// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/api/podspec"
	"github.com/metaparticle-io/metaparticle/console/view"
	"github.com/metaparticle-io/metaparticle/diagnosis"
)

// webhookName is the name of the MutatingWebhookConfiguration of an installation.
const webhookName = "metaparticle"

// explainer gathers the facts about one pod or workload.
type explainer struct {
	cluster   cluster
	namespace string
	now       time.Time

	labels map[string]string
	// missing reports whether the cluster has no MutatingWebhookConfiguration [webhookName].
	missing bool
	// asked is the pod that the user named, or nil.
	asked *corev1.Pod
	// part is the Job or ReplicaSet that the user named, if a workload above it owns it. The answer is
	// then about its template and its pods.
	part *unstructured.Unstructured
	// workload is the top-most controller of a known kind, or nil. The field "group" names the
	// top-most controller of any kind.
	workload *unstructured.Unstructured
	raw      []byte
	template corev1.PodTemplateSpec
	group    api.Workload
	// owners are the uids of the workload, of its ReplicaSets or Jobs, and of the controller of
	// the pod that the user named.
	owners map[types.UID]bool
	// makers are those owners that make pods, each with the selector of its pods.
	makers makers
	// current is the object that makes the pods to come: of a Deployment the ReplicaSet of its present
	// template, of a CronJob the newest Job, otherwise the workload; nil if there is only a pod.
	current *unstructured.Unstructured
	pods    []corev1.Pod // the pods of the owners, and the pod that the user named
	others  map[string]string
	gated   []*corev1.Pod // all gated pods of the namespace
	slots   []string
	// leases has the Leases of the slots and of the conditions, by name. The value for a missing
	// Lease is nil. A Lease that the command cannot read has no entry.
	leases map[string]*coordinationv1.Lease
	events []corev1.Event
	// seen are the slots as the command "status" shows them.
	seen []view.Slot
	// modes has the access modes of the PersistentVolumeClaims that the template names, as far as the
	// user may read them.
	modes map[string][]corev1.PersistentVolumeAccessMode
	// notForwarded are the findings about Services whose connections standbys refuse.
	notForwarded []diagnosis.Finding
	// unread are the errors of failed reads, such as a read for which the user has no right.
	unread []string

	verdict string
	// trouble are pods that do not run. What is found concerns the pods to come, or existing pods without a gate, if it
	// keeps their claims from being in force, and otherwise claims that are.
	trouble, found []diagnosis.Finding
}

// gather reads all facts. The facts may lack Leases and Events, because the user may have
// no right to read them.
func (e *explainer) gather(ctx context.Context, kind, name string) error {
	var namespace corev1.Namespace
	if err := e.cluster.Get(ctx, types.NamespacedName{Name: e.namespace}, &namespace); apierrors.IsNotFound(err) {
		return e.cluster.hasNamespace(ctx, e.namespace)
	} else if err != nil {
		return fmt.Errorf("read namespace: %w", err)
	}
	e.labels = namespace.Labels
	configuration := &admissionregistrationv1.MutatingWebhookConfiguration{}
	e.missing = apierrors.IsNotFound(e.cluster.Get(ctx, types.NamespacedName{Name: webhookName}, configuration))
	if err := e.find(ctx, kind, name); err != nil {
		return unlessAbsent(err, strings.ToLower(kind)+"/"+name, e.namespace)
	}
	e.see(e.readEvents(ctx))
	e.readClaims(ctx)
	e.readServices(ctx)
	return nil
}

// readServices finds the Services whose connections the standbys of the pods refuse.
func (e *explainer) readServices(ctx context.Context) {
	var services corev1.ServiceList
	if err := e.cluster.List(ctx, &services, client.InNamespace(e.namespace)); err != nil {
		e.unread = append(e.unread, fmt.Sprintf("read services: %v", err))
		return
	}
	var pods []*corev1.Pod
	for i := range e.pods {
		pods = append(pods, &e.pods[i])
	}
	for _, r := range podspec.Refused(services.Items, pods) {
		e.notForwarded = append(e.notForwarded, diagnosis.Finding{
			Reason: "ServiceNotForwarded", Run: meaning("ServiceNotForwarded"),
			Says: fmt.Sprintf("Service %s, port %d/%s: %s", r.Service.Name, r.Number, r.Protocol, policyReason("ServiceNotForwarded")),
		})
	}
}

// maxClaims bounds the requests of readClaims. A message names about as many reasons.
const maxClaims = 20

func (e *explainer) readClaims(ctx context.Context) {
	e.modes = map[string][]corev1.PersistentVolumeAccessMode{}
	for _, v := range e.template.Spec.Volumes[:min(maxClaims, len(e.template.Spec.Volumes))] {
		var claim corev1.PersistentVolumeClaim
		if v.PersistentVolumeClaim != nil && e.get(ctx, v.PersistentVolumeClaim.ClaimName, &claim) == nil {
			e.modes[claim.Name] = claim.Spec.AccessModes
		}
	}
}

// find finds the top-most workload of the named pod or controller, the pods of that workload,
// and the slots that these pods claim.
func (e *explainer) find(ctx context.Context, kind, name string) error {
	if kind == "Pod" {
		e.asked = new(corev1.Pod)
		if err := e.get(ctx, name, e.asked); err != nil {
			return err
		}
		e.group = api.Workload{Kind: kind, Name: name}
		if err := e.followControllers(ctx, metav1.GetControllerOf(e.asked)); err != nil {
			return err
		}
	} else if err := e.followNamed(ctx, kind, name); err != nil {
		return err
	}
	if err := e.readTemplate(); err != nil {
		return err
	}
	if err := e.readPods(ctx); err != nil {
		return err
	}
	e.readLeases(ctx)
	return nil
}

func (e *explainer) get(ctx context.Context, name string, object client.Object) error {
	if err := e.cluster.Get(ctx, types.NamespacedName{Namespace: e.namespace, Name: name}, object); err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	return nil
}

// followControllers finds the workload of the object that the reference means. If no reference can be
// trusted, the field "group" stays as it is.
func (e *explainer) followControllers(ctx context.Context, at *metav1.OwnerReference) error {
	o, err := originOf(ctx, e.get, at)
	e.workload = o.workload
	if o.group.Name != "" {
		e.group = o.group
	}
	return err
}

// followNamed finds the workload of the object that the user named. If the object is below that
// workload, the field "part" gets the object.
func (e *explainer) followNamed(ctx context.Context, kind, name string) error {
	if err := e.followControllers(ctx, &metav1.OwnerReference{APIVersion: kinds[kind], Kind: kind, Name: name}); err != nil {
		return err
	}
	if e.group.Kind == kind && e.group.Name == name || kind == "Deployment" { // ReplicaSets make the pods of a Deployment, even of Knative's
		return nil
	}
	e.part = new(unstructured.Unstructured)
	e.part.SetAPIVersion(kinds[kind])
	e.part.SetKind(kind)
	return e.get(ctx, name, e.part)
}

// of returns the object whose template and pods the answer is about; nil if there is only a pod.
func (e *explainer) of() *unstructured.Unstructured {
	if e.part != nil {
		return e.part
	}
	return e.workload
}

func (e *explainer) readTemplate() error {
	of := e.of()
	if of == nil {
		return nil
	}
	var err error
	if e.raw, err = of.MarshalJSON(); err != nil {
		return fmt.Errorf("read %s: %w", e.group, err)
	}
	found, _, err := unstructured.NestedMap(of.Object, api.BuiltinOwner(of.GetKind()).TemplatePath()...)
	if err != nil {
		return fmt.Errorf("read template of %s: %w", e.group, err)
	}
	text, err := json.Marshal(found)
	if err != nil {
		return fmt.Errorf("read template of %s: %w", e.group, err)
	}
	return json.Unmarshal(text, &e.template)
}

// readPods finds the pods of the explained workload that have not ended. If the user named a pod,
// the method also finds that pod and the other pods of its controller. Of a Job or a ReplicaSet that
// the user named, the method finds its own pods, and those that have ended, too.
func (e *explainer) readPods(ctx context.Context) error {
	e.owners, e.makers, e.current = map[types.UID]bool{}, makers{}, e.of()
	between := ""
	switch {
	case e.part != nil:
		e.owners[e.part.GetUID()] = true
		e.makers[e.part.GetUID()] = selectorOf(e.part)
	case e.workload != nil:
		e.owners[e.workload.GetUID()] = true
		between = api.BuiltinOwner(e.workload.GetKind()).Below
		if between == "" {
			e.makers[e.workload.GetUID()] = selectorOf(e.workload)
		}
	}
	if between != "" {
		list := &unstructured.UnstructuredList{}
		list.SetAPIVersion(kinds[between])
		list.SetKind(between + "List")
		if err := e.cluster.List(ctx, list, client.InNamespace(e.namespace)); err != nil {
			return fmt.Errorf("read %ss: %w", between, err)
		}
		for _, item := range list.Items {
			if above := podspec.Above(between, &item); above != nil && above.UID == e.workload.GetUID() {
				e.owners[item.GetUID()] = true
				e.makers[item.GetUID()] = selectorOf(&item)
				if e.current == e.workload || newer(&item, e.current) {
					e.current = &item
				}
			}
		}
	}
	if e.asked != nil {
		if of := metav1.GetControllerOf(e.asked); of != nil {
			e.owners[of.UID] = true
			if e.makers[of.UID] == nil {
				e.makers[of.UID] = labels.Everything()
			}
		}
	}
	var pods corev1.PodList
	if err := e.cluster.List(ctx, &pods, client.InNamespace(e.namespace)); err != nil {
		return fmt.Errorf("read pods: %w", err)
	}
	e.others = map[string]string{}
	for i, pod := range pods.Items {
		if view.Gated(pod) {
			e.gated = append(e.gated, &pods.Items[i])
		}
		e.others[api.Identity(pod.Name, string(pod.UID))] = pod.Name
		ended := pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
		if e.asked != nil && pod.UID == e.asked.UID || e.makers.made(&pod, e.workload) && (!ended || e.part != nil) {
			e.pods = append(e.pods, pod)
		}
	}
	slices.SortFunc(e.pods, func(a, b corev1.Pod) int { return strings.Compare(a.Name, b.Name) })
	return nil
}

// newer reports whether a Deployment or CronJob made or took up the object later than the other. A
// rollback gives an old ReplicaSet the newest revision.
func newer(object, other metav1.Object) bool {
	revision := func(o metav1.Object) int {
		n, _ := strconv.Atoi(o.GetAnnotations()["deployment.kubernetes.io/revision"])
		return n
	}
	made, before := object.GetCreationTimestamp(), other.GetCreationTimestamp()
	return cmp.Or(cmp.Compare(revision(object), revision(other)), made.Compare(before.Time)) > 0
}

// readLeases reads the Leases of the slots that the existing pods claim, and that pods created from
// now on will claim. The method also reads the Leases of the conditions of all these pods.
func (e *explainer) readLeases(ctx context.Context) {
	for _, pod := range e.pods {
		e.slots = append(e.slots, view.Claimed(pod)...)
	}
	if request, err := api.Parse(e.effective()); err == nil && e.group.Name != "" {
		e.slots = append(e.slots, request.Slots(e.group)...)
	}
	slices.Sort(e.slots)
	e.slots = slices.Compact(e.slots)
	needed := slices.Clone(e.slots)
	for _, slot := range e.slots {
		if api.HasNextLease(slot) {
			needed = append(needed, api.NextLease(slot))
		}
	}
	for _, c := range conditionsOf(e) {
		needed = append(needed, c.Leases()...)
	}
	e.leases = map[string]*coordinationv1.Lease{}
	for _, slot := range needed {
		if _, read := e.leases[slot]; read {
			continue
		}
		lease := new(coordinationv1.Lease)
		err := e.get(ctx, slot, lease)
		switch {
		case err == nil:
			e.leases[slot] = lease
		case apierrors.IsNotFound(err):
			e.leases[slot] = nil
		default:
			e.unread = append(e.unread, err.Error())
		}
	}
}

// see computes the slots as the command "status" does, from all Events of the namespace.
func (e *explainer) see(events []*corev1.Event) {
	state := view.State{Pods: e.gated, Events: events, Now: e.now}
	for _, lease := range e.leases {
		if lease != nil {
			state.Leases = append(state.Leases, lease)
		}
	}
	e.seen = state.Slots(e.slots, 1)
}

// conditionsOf returns the conditions of the existing gated pods, and the conditions that pods
// created from now on will have.
func conditionsOf(e *explainer) []api.Condition {
	var all []api.Condition
	add := func(more []api.Condition) {
		for _, c := range more {
			if !slices.Contains(all, c) {
				all = append(all, c)
			}
		}
	}
	for _, pod := range e.pods {
		if injected(pod) {
			add(podspec.ConditionsOf(&pod.Spec))
		}
	}
	if request, err := api.Parse(e.effective()); err == nil {
		add(request.After)
	}
	return all
}

// readEvents finds the Events that report a refused or ungated pod, and the Events about pods that are
// not Ready. Each Event is about the workload, one of its pods, or a controller between the two. If
// the user named a pod, readEvents finds only the Events about that pod. The function compares uids,
// because an Event may be about an earlier object of the same name. The result has the Events of agents.
func (e *explainer) readEvents(ctx context.Context) (agents []*corev1.Event) {
	about, unready := map[types.UID]bool{}, map[types.UID]bool{}
	for uid := range e.owners {
		about[uid] = true
	}
	for _, pod := range e.pods {
		about[pod.UID] = true
		unready[pod.UID] = !view.Ready(pod)
	}
	if e.asked != nil {
		about = map[types.UID]bool{e.asked.UID: true}
	}
	var events corev1.EventList
	if err := e.cluster.List(ctx, &events, client.InNamespace(e.namespace)); err != nil {
		e.unread = append(e.unread, fmt.Sprintf("read events: %v", err))
		return nil
	}
	for i, event := range events.Items {
		if event.Source.Component == api.AgentReporter {
			agents = append(agents, &events.Items[i])
		}
		uid := event.InvolvedObject.UID
		if about[uid] && event.Type == corev1.EventTypeWarning && (unready[uid] || event.Reason == failedCreate || refuses(event)) {
			e.events = append(e.events, event)
		}
	}
	slices.SortFunc(e.events, func(a, b corev1.Event) int { return view.Last(b).Compare(view.Last(a)) })
	return agents
}

// failedCreate is the reason of a controller's Event about a pod that it could not create.
const failedCreate = "FailedCreate"

// effective returns the annotations that pods created from now on will have. For a pod without a
// workload of a known kind, the result has the annotations of that pod.
func (e *explainer) effective() map[string]string {
	if e.workload == nil {
		if e.asked != nil {
			return e.asked.Annotations
		}
		return nil
	}
	if e.part != nil || metav1.GetControllerOf(e.workload) != nil {
		return e.template.Annotations // the webhook carries no annotations from a controlled workload to its template
	}
	return api.Effective(own(e.workload), e.template.Annotations)
}

// lacking returns what the workload's annotations mean to claim, and no pod can have: the slots that the
// template of a controlled workload lacks, or the keys of annotations with a mistake.
func (e *explainer) lacking() []string {
	annotations := e.effective()
	if by := e.controller(); by != nil && !api.Asks(e.template.Annotations) {
		annotations = own(e.workload)
	}
	request, err := api.Parse(annotations)
	if err != nil {
		return api.Asking(annotations)
	}
	return slices.DeleteFunc(request.Slots(e.group), func(slot string) bool { return slices.Contains(e.slots, slot) })
}

// controller returns the controller of the explained workload, such as an operator's object; nil for none.
func (e *explainer) controller() *metav1.OwnerReference {
	if e.workload == nil || e.part != nil {
		return nil
	}
	return metav1.GetControllerOf(e.workload)
}

// own returns the annotations that the webhook carries from the workload to its template. A CronJob
// also has those of its job template.
func own(workload *unstructured.Unstructured) map[string]string {
	if workload.GetKind() != "CronJob" {
		return workload.GetAnnotations()
	}
	all, _, _ := unstructured.NestedStringMap(workload.Object, "spec", "jobTemplate", "metadata", "annotations")
	if all == nil {
		all = map[string]string{}
	}
	maps.Copy(all, workload.GetAnnotations())
	return all
}

// injected reports whether the webhook has given the pod a gate, or an init container that waits
// for conditions or at a barrier.
func injected(pod corev1.Pod) bool {
	waits := len(podspec.ConditionsOf(&pod.Spec)) > 0 || len(podspec.BarrierOf(&pod.Spec).Leases()) > 0
	return view.Gated(pod) || pod.Labels[api.GatedLabel] == api.GatedAfter && waits
}

// refuses reports whether the Event is about a refused or ungated pod.
func refuses(event corev1.Event) bool {
	if event.Type != corev1.EventTypeWarning {
		return false
	}
	if event.Reason == failedCreate {
		return strings.Contains(event.Message, api.Prefix) || strings.Contains(event.Message, ".metaparticle.io") ||
			strings.Contains(event.Message, "metaparticle-")
	}
	return explanationOf(event.Reason) != nil
}
