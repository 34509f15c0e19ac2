// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/json"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/mutate/reason"
)

// bare is a pod that runs without a gate, although its workload claims.
type bare struct {
	pod      string
	workload api.Workload
}

// findBare finds the pods without a gate whose workloads claim any of the subject's slots. The
// workloads decide, because such a pod is often older than the claim, and has no annotation.
func (s *subject) findBare(ctx context.Context, pods []corev1.Pod) error {
	read := &siblings{cluster: s.cluster, namespace: s.namespace, lists: map[string]siblingList{}}
	for _, pod := range pods {
		ended := pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
		if injected(pod) || ended || pod.DeletionTimestamp != nil {
			continue
		}
		o, err := originOf(ctx, read.get, metav1.GetControllerOf(&pod))
		switch {
		case apierrors.IsForbidden(err):
			s.unread = err
			continue
		case apierrors.IsNotFound(err):
			continue // the controller was deleted just now
		case err != nil:
			return err
		case o.workload == nil:
			continue
		}
		e := &explainer{workload: o.workload, group: o.group}
		if err := e.readTemplate(); err != nil {
			return err
		}
		request, err := api.Parse(e.effective())
		if err == nil && !request.OptOut && slices.ContainsFunc(request.Slots(o.group), s.has) {
			s.bare = append(s.bare, bare{pod: pod.Name, workload: o.group})
		}
	}
	return nil
}

// siblings reads objects of a namespace by their names, with one list for each kind.
type siblings struct {
	cluster   cluster
	namespace string
	lists     map[string]siblingList
}

// siblingList has the objects of one kind by name, or the error of their list.
type siblingList struct {
	byName map[string]*unstructured.Unstructured
	err    error
}

func (s *siblings) get(ctx context.Context, name string, object client.Object) error {
	into, ok := object.(*unstructured.Unstructured)
	if !ok || kinds[into.GetKind()] != into.GetAPIVersion() {
		return apierrors.NewNotFound(schema.GroupResource{}, name)
	}
	kind := into.GetKind()
	list, read := s.lists[kind]
	if !read {
		list = s.list(ctx, into)
		s.lists[kind] = list
	}
	found := list.byName[name]
	switch {
	case list.err != nil:
		return list.err
	case found == nil:
		return apierrors.NewNotFound(schema.GroupResource{Resource: kind}, name)
	}
	*into = *found
	return nil
}

// list lists all objects of the kind of the given object.
func (s *siblings) list(ctx context.Context, of *unstructured.Unstructured) siblingList {
	list := &unstructured.UnstructuredList{}
	list.SetAPIVersion(of.GetAPIVersion())
	list.SetKind(of.GetKind() + "List")
	if err := s.cluster.List(ctx, list, client.InNamespace(s.namespace)); err != nil {
		return siblingList{err: fmt.Errorf("read %ss: %w", of.GetKind(), err)}
	}
	byName := map[string]*unstructured.Unstructured{}
	for i, item := range list.Items {
		byName[item.GetName()] = &list.Items[i]
	}
	return siblingList{byName: byName}
}

// warnOfBare says which pods a command does not reach, because they run without a gate.
func (s *subject) warnOfBare(std stdio) {
	if len(s.bare) > 0 {
		say(std.err, "note: %s; %s", s.bareText(), s.gates())
	}
	if s.unread != nil {
		say(std.err, "note: pods without a gate may be unknown: %v", s.unread)
	}
}

// bareText names the pods that run without a gate, and the workloads of these pods.
func (s *subject) bareText() string {
	var names []string
	for _, b := range s.bare {
		names = append(names, "pod/"+b.pod)
	}
	run := " run"
	if len(names) == 1 {
		run = " runs"
	}
	if rest := len(names) - mostNamed; rest > 0 {
		names = append(names[:mostNamed], fmt.Sprintf("%d more", rest))
	}
	return fmt.Sprintf("%s%s without a gate, although %s claims %s", strings.Join(names, ", "), run, s.bare[0].workload, strings.Join(s.slots, ", "))
}

// gates returns the command that replaces the pods by gated pods.
func (s *subject) gates() string {
	w := s.bare[0].workload
	if restart(w.Kind) == "" {
		return fmt.Sprintf("replace these pods by new ones, which get a gate (kubectl metaparticle explain -n %s pod/%s tells more)", s.namespace, s.bare[0].pod)
	}
	name := strings.ToLower(w.Kind) + "/" + w.Name
	return fmt.Sprintf("kubectl rollout restart -n %s %s replaces them by gated pods (kubectl metaparticle explain -n %s %s tells more)",
		s.namespace, name, s.namespace, name)
}

// mostStrays bounds the messages about one object.
const mostStrays = 10

// strays returns what the webhook does not understand of the object: annotations that a person wrote for
// it, at places or in objects where they have no effect. The second result has those of whose effect this
// command knows nothing, because another program makes the pods.
func (d document) strays() (lost, unsure []string) {
	var content any
	if json.Unmarshal(d.raw, &content) != nil {
		return nil, nil
	}
	found := strays{document: d, old: d.old(), annotations: map[string]bool{}}
	if !d.workload() && !d.pod() {
		found.templates = templates(content)
	}
	walk(content, nil, func(key string, _ any, path []string) {
		if path[len(path)-1] == "annotations" {
			found.annotations[key] = true
		}
	})
	walk(content, nil, found.judge)
	return found.lost, found.unsure
}

// old reports whether the object is a workload in an API version from before the one that the webhook
// sees, such as a Deployment of extensions/v1beta1.
func (d document) old() bool {
	group, _, _ := strings.Cut(d.APIVersion, "/")
	now, _, _ := strings.Cut(kinds[d.Kind], "/")
	return kinds[d.Kind] != "" && kinds[d.Kind] != d.APIVersion && (group == now || group == "extensions")
}

// fragment reports whether the object is a workload or a pod without any container, or with one that lacks its
// name or image. The API server or the kubelet would refuse it, but such a text can be a patch for kustomize.
func (d document) fragment() bool {
	if !d.workload() && !d.pod() {
		return false
	}
	var pod template
	var w shape
	if json.Unmarshal(d.raw, &pod) != nil || json.Unmarshal(d.raw, &w) != nil {
		return false // the webhook's own decoder says what is wrong
	}
	switch {
	case d.Kind == "CronJob":
		pod = w.Spec.JobTemplate.Spec.Template
	case d.workload():
		pod = w.Spec.Template
	}
	return !pod.whole()
}

// known reports whether the object is of Kubernetes itself, or of a kind whose controller is known to pass
// nothing but a pod template on to its pods.
func (s *strays) known() bool {
	group, err := schema.ParseGroupVersion(s.APIVersion)
	return err == nil && (clientgoscheme.Scheme.Recognizes(group.WithKind(s.Kind)) || strings.HasSuffix(group.Group, ".k8s.io") ||
		group.Group == "argoproj.io" && s.Kind == "Rollout")
}

// strays collects the annotations of an object that have no effect, or perhaps none.
type strays struct {
	document
	old bool
	// annotations are the keys of all annotations in the object.
	annotations map[string]bool
	// templates are the pod templates in an object of a kind that the webhook does not know.
	templates    []placed
	lost, unsure []string
}

func (s *strays) add(format string, args ...any) { s.lost = addStray(s.lost, format, args...) }

func addStray(all []string, format string, args ...any) []string {
	text := fmt.Sprintf(format, args...)
	if len(all) < mostStrays && !slices.Contains(all, text) {
		all = append(all, text)
	}
	return all
}

// walk calls the function with each key that has a text, a number or a truth value, and the path to the key's map.
func walk(at any, path []string, do func(key string, value any, path []string)) {
	switch at := at.(type) {
	case []any:
		for _, element := range at {
			walk(element, path, do)
		}
	case map[string]any:
		for _, key := range slices.Sorted(maps.Keys(at)) {
			switch value := at[key].(type) {
			case nil:
			case []any, map[string]any:
				walk(value, append(slices.Clip(path), key), do)
			default:
				if path != nil {
					do(key, value, path)
				}
			}
		}
	}
}

// judge judges a key and its value.
func (s *strays) judge(key string, value any, path []string) {
	_, text := value.(string)
	place, last := strings.Join(path, "."), path[len(path)-1]
	meant := misspelt(key)
	own := api.Carried(key) && api.Known(key)
	switch {
	case !own && meant == "", strings.HasSuffix(strings.ToLower(last), "selector"), last == "matchLabels":
	case meant != "":
		s.add("%s in %s has another prefix, and has no effect: did you mean %s?", key, place, meant)
	case last == "labels" && s.annotations[key]:
	case last == "labels":
		s.add("%s in %s is a label, and only an annotation counts", key, place)
	case s.old:
		s.add("Kubernetes has removed %s, and the webhook sees only %s: write apiVersion: %s", s.APIVersion, kinds[s.Kind], kinds[s.Kind])
	case s.understood(path):
	case !text && !s.known():
		s.add("%s in %s is %v, and annotations are texts: write the value in quotes, as in \"true\"", key, place, value)
	case s.objectless():
		s.unsure = addStray(s.unsure, "%s in %s: this is no object of Kubernetes, so what reads it decides whether pods get the annotation", key, place)
	case !s.known():
		s.unsure = addStray(s.unsure, "%s in %s: what makes the pods of this %s decides whether they get it; the webhook gates each pod that has it", key, place, s.Kind)
	case place == "metadata.annotations" && len(s.templates) > 0:
		s.add("%s has an effect only on the pod template of a %s: write it into the annotations of the template", key, s.Kind)
	case place == "metadata.annotations":
		s.add("%s has no effect, because a %s has no pod template that the webhook knows: write it on the workload or its pods", key, s.Kind)
	default:
		s.add("%s in %s has no effect there: write it into metadata.annotations of the workload or of its pod template", key, place)
	}
}

// understood reports whether the webhook reads the annotations at the path.
func (s *strays) understood(path []string) bool {
	place := strings.Join(path, ".")
	switch {
	case s.pod():
		return place == "metadata.annotations"
	case s.workload() && s.Kind == "CronJob":
		return slices.Contains([]string{"metadata.annotations", "spec.jobTemplate.metadata.annotations", "spec.jobTemplate.spec.template.metadata.annotations"}, place)
	case s.workload():
		return place == "metadata.annotations" || place == "spec.template.metadata.annotations"
	}
	return slices.ContainsFunc(s.templates, func(t placed) bool { return place == t.place+".metadata.annotations" })
}

// placed is a pod template, and its place in the object.
type placed struct {
	template
	place string
}

// templates returns the pod templates in an object of a kind that the webhook does not know, such as a
// Rollout, wherever they stand. A template has containers.
func templates(content any) (all []placed) {
	var walk func(at any, path []string)
	walk = func(at any, path []string) {
		switch at := at.(type) {
		case []any:
			for _, element := range at {
				walk(element, path)
			}
		case map[string]any:
			if t, ok := templateOf(at); ok && path != nil {
				all = append(all, placed{t, strings.Join(path, ".")})
				return
			}
			for _, key := range slices.Sorted(maps.Keys(at)) {
				walk(at[key], append(slices.Clip(path), key))
			}
		}
	}
	walk(content, nil)
	return all
}

// templateOf returns the object as a pod template; false if it is none.
func templateOf(fields map[string]any) (t template, ok bool) {
	t.Spec, _ = fields["spec"].(map[string]any)
	t.Metadata, _ = fields["metadata"].(map[string]any)
	containers, _ := t.Spec["containers"].([]any)
	return t, len(containers) > 0
}

// whole reports whether there are containers, and each has a name and an image. The controller of a custom resource may
// add what is missing.
func (t template) whole() bool {
	containers, _ := t.Spec["containers"].([]any)
	return len(containers) > 0 && !slices.ContainsFunc(containers, func(c any) bool {
		fields, _ := c.(map[string]any)
		name, _ := fields["name"].(string)
		image, _ := fields["image"].(string)
		return name == "" || image == ""
	})
}

// foreignPod is a pod of a template in an object of a kind that the webhook does not know.
type foreignPod struct {
	document
	of owner
	// place is where the template stands. The text "unsure" says why nothing more is known of the pod.
	place, unsure string
	// mistakes are those of the annotations, if nothing more is known.
	mistakes reason.Refusals
}

// foreignPods returns a pod for each pod template of such an object that claims.
func (d document) foreignPods() (pods []foreignPod, err error) {
	var content any
	if !d.mentions() {
		return nil, nil
	}
	if err := json.Unmarshal(d.raw, &content); err != nil {
		return nil, err
	}
	for _, t := range templates(content) {
		annotations := map[string]string{}
		written, _ := t.Metadata["annotations"].(map[string]any)
		for key, value := range written {
			annotations[key], _ = value.(string)
		}
		request, err := api.Parse(annotations)
		if err == nil && !request.Injects() {
			continue
		}
		p := foreignPod{place: t.place}
		switch _, once := request.Once(); {
		case !t.whole():
			mistakes, _ := errors.AsType[api.Mistakes](err)
			p.mistakes = reason.Mistaken(mistakes)
			p.unsure = "their controller adds what a container lacks here, so this command does not judge them"
		case err == nil && (once || request.Shards() > 0 || request.Barrier.Size > 0):
			p.unsure = "only their controller knows the Job or the revision on which this claim depends, so this command does not judge them"
		default:
			if p.document, p.of, err = t.pod(d); err != nil {
				return nil, err
			}
		}
		pods = append(pods, p)
	}
	return pods, nil
}
