// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metaparticle-io/metaparticle/api"
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
