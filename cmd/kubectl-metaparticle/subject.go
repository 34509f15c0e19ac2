// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/console/view"
)

// subject has the slots that a person names, their Leases, and the gated pods that
// claim any of them.
type subject struct {
	cluster   cluster
	namespace string
	// title is the person's argument. If the argument names a pod, the field "pod" has the name of
	// this pod.
	title, pod string
	slots      []string
	// lacking are what a person meant to claim by the workload, and no pod can have: slots that the pod
	// template lacks, or the keys of annotations with a mistake.
	lacking []string
	leases  map[string]*coordinationv1.Lease
	pods    []corev1.Pod
	// bare are the pods that run without a gate, although their workloads claim any of the slots.
	bare []bare
	// unread is the error of a list without which some of these pods may be unknown.
	unread error
}

// slotsHelp ends the help of the commands with the argument SLOTS.
var slotsHelp = `

SLOTS is KIND/NAME of a workload or a pod, such as deployment/biller or
pod/biller-0; a slot as status prints it, such as singleton.deployment.biller;
or barrier/NAME, ` + shared() + `.`

// nameSlots returns an error if the arguments cannot name slots in any cluster. The error lists the
// claims that a person can name.
func nameSlots(args []string) error {
	if err := judgeSlots(args); err != nil {
		return fmt.Errorf("%w; or name %s or %s/NAME, or a slot as status prints it", err, shared(), view.Barrier)
	}
	return nil
}

// judgeSlots returns an error if the arguments cannot name slots in any cluster.
func judgeSlots(args []string) error {
	kind, name, _ := strings.Cut(strings.Join(args, "/"), "/")
	if name != "" && !strings.Contains(name, "/") && (kind == view.Barrier || sharedKind(kind) != nil) || slotName(args) != "" {
		return nil
	}
	_, _, err := target(args)
	return err
}

// findSlots finds the slots that the arguments name. The arguments are KIND/NAME of a workload or a
// pod, a claim in the list that [shared] returns, barrier/NAME, or the name of a slot. A read-write
// lock has all of its slots, whichever of them a person names.
func findSlots(ctx context.Context, c cluster, namespace string, args []string) (*subject, error) {
	s := &subject{cluster: c, namespace: namespace, title: strings.Join(args, "/")}
	var leases coordinationv1.LeaseList
	if err := c.List(ctx, &leases, client.InNamespace(namespace)); err != nil {
		return nil, fmt.Errorf("read leases: %w", err)
	}
	if len(leases.Items) == 0 {
		if err := c.hasNamespace(ctx, namespace); err != nil {
			return nil, err
		}
	}
	slot, owned := slotName(args), false
	kind, name, _ := strings.Cut(s.title, "/")
	if api.IsRWLockSlot(slot) {
		kind, name = view.RWLock, strings.TrimPrefix(lockOf(slot), view.RWLock+".")
	}
	switch {
	case sharedKind(kind) != nil && name != "":
		s.slots = sharedSlots(api.Claim{Kind: sharedKind(kind), Name: name, Size: 1}, leases.Items)
	case kind == view.Barrier && name != "":
		s.slots = barrierLeases(name, leases.Items)
	case slot != "":
		s.slots = []string{slot}
	default:
		owned = true
		if err := s.findOwned(ctx, args); err != nil {
			return nil, err
		}
	}
	switch {
	case len(s.slots) == 0 && len(s.lacking) > 0:
		return s, refusal(fmt.Sprintf("%s claims no slot in the namespace %s, though it has %s: kubectl metaparticle explain -n %s %s says why",
			s.title, namespace, strings.Join(s.lacking, ", "), namespace, s.title))
	case len(s.slots) == 0 && !owned:
		return nil, absent(s.title + " has no Lease in the namespace " + namespace + ": check the name, and the namespace (-n)")
	case len(s.slots) == 0:
		return nil, refusal(s.title + " claims no slot in the namespace " + namespace + ": check the name, and the namespace (-n)")
	}
	return s, s.readPods(ctx, leases.Items)
}

// known returns an error if nothing in the namespace has the slots that a person named. The pods of
// a workload that exists can come later, but any other name can be misspelt.
func (s *subject) known() error {
	kind, _, _ := strings.Cut(s.title, "/")
	if byName := sharedKind(kind) != nil || slotName([]string{s.title}) != ""; !byName || len(s.leases)+len(s.pods)+len(s.bare) > 0 {
		return nil
	}
	return absent(fmt.Sprintf("%s has no Lease in the namespace %s, and no pod claims it: check the name, and the namespace (-n)", s.title, s.namespace))
}

// findOwned finds the slots that a workload's pods claim, or that one pod claims.
func (s *subject) findOwned(ctx context.Context, args []string) error {
	kind, name, err := target(args)
	if err != nil {
		return err
	}
	if kind == "Pod" {
		var pod corev1.Pod
		if err := s.cluster.Get(ctx, types.NamespacedName{Namespace: s.namespace, Name: name}, &pod); err != nil {
			return unlessAbsent(fmt.Errorf("read pod: %w", err), s.title, s.namespace)
		}
		s.pod, s.slots = name, view.Claimed(pod)
		return nil
	}
	e := &explainer{cluster: s.cluster, namespace: s.namespace}
	if err := e.find(ctx, kind, name); err != nil {
		return unlessAbsent(err, s.title, s.namespace)
	}
	s.slots, s.lacking = e.slots, e.lacking()
	return nil
}

// unlessAbsent returns the error, or [absent] if the object that the person named does not exist.
func unlessAbsent(err error, named, namespace string) error {
	if apierrors.IsNotFound(err) {
		return absent(fmt.Sprintf("%s is not in the namespace %s: check the name, and the namespace (-n): %v", named, namespace, err))
	}
	return err
}

// hasNamespace returns [absent] if the namespace does not exist. If a person has no right to read
// the namespace, hasNamespace returns nil.
func (c cluster) hasNamespace(ctx context.Context, name string) error {
	if name != "" && apierrors.IsNotFound(c.Get(ctx, types.NamespacedName{Name: name}, new(corev1.Namespace))) {
		return absent(fmt.Sprintf("there is no namespace %s: check the name (-n)", name))
	}
	return nil
}

// sharedKind returns the kind with the name, if a claim of the kind has slots that all pods of a
// namespace share. Otherwise, the result is nil.
func sharedKind(name string) *api.Kind {
	for _, k := range api.Kinds() {
		if k.Name() == name && k.Scope == api.ScopeNamespace && k != api.Variable {
			return k
		}
	}
	return nil
}

// shared returns a list for the usage texts of commands: the claims that a person can name.
func shared() string {
	var texts []string
	for _, k := range api.Kinds() {
		if sharedKind(k.Name()) != nil {
			texts = append(texts, k.Name()+"/NAME")
		}
	}
	return strings.Join(texts, ", ")
}

// sharedSlots returns the slots of the claim. If the field AnyOne of the claim's kind is true,
// the result has each slot that has a Lease, sorted by number. The size that the claim states
// does not matter then.
func sharedSlots(claim api.Claim, leases []coordinationv1.Lease) (slots []string) {
	slots = claim.Slots(api.Workload{})
	if !claim.Kind.AnyOne {
		return slots
	}
	prefix := strings.TrimSuffix(slots[0], "0")
	slots = nil
	number := func(slot string) int {
		n, err := strconv.Atoi(strings.TrimPrefix(slot, prefix))
		if err != nil {
			return -1
		}
		return n
	}
	for _, l := range leases {
		if strings.HasPrefix(l.Name, prefix) && number(l.Name) >= 0 && api.IsSlot(l.Name) {
			slots = append(slots, l.Name)
		}
	}
	slices.SortFunc(slots, func(a, b string) int { return number(a) - number(b) })
	return slots
}

// barrierLeases returns the Leases of all barriers with the name. Each Job has its own barrier.
func barrierLeases(name string, leases []coordinationv1.Lease) (slots []string) {
	for _, l := range leases {
		run := api.RunOf(l.Name)
		first := (api.Barrier{Name: name, Size: 1}).Leases(run)[0]
		if run != "" && strings.TrimSuffix(first, "0") == l.Name[:strings.LastIndexByte(l.Name, '.')+1] {
			slots = append(slots, l.Name)
		}
	}
	return slots
}

// readPods stores the Leases of the slots, finds the gated pods that claim any of the slots, and
// finds the pods that should be gated and are not.
func (s *subject) readPods(ctx context.Context, leases []coordinationv1.Lease) error {
	s.leases = map[string]*coordinationv1.Lease{}
	for i, l := range leases {
		if slices.Contains(s.slots, l.Name) {
			s.leases[l.Name] = &leases[i]
		}
	}
	var pods corev1.PodList
	if err := s.cluster.List(ctx, &pods, client.InNamespace(s.namespace)); err != nil {
		return fmt.Errorf("read pods: %w", err)
	}
	slices.SortFunc(pods.Items, func(a, b corev1.Pod) int { return strings.Compare(a.Name, b.Name) })
	for _, pod := range pods.Items {
		if slices.ContainsFunc(view.Claimed(pod), s.has) {
			s.pods = append(s.pods, pod)
		}
	}
	return s.findBare(ctx, pods.Items)
}

// has reports whether the slot is one of the subject's.
func (s *subject) has(slot string) bool { return slices.Contains(s.slots, slot) }

// gatedPods selects the pods that the webhook has gated.
var gatedPods = client.MatchingLabels{api.GatedLabel: api.Gated}

// ours reports whether an agent holds the Lease.
func ours(l *coordinationv1.Lease) bool { return l.Annotations[api.HoldAnnotation] != "" }

// graceOf returns the grace of a pod. The API server bounds the pod's number of seconds only by 64
// bits. So graceOf bounds the number as the webhook does, by 68 years.
func graceOf(pod corev1.Pod) time.Duration {
	seconds := ptr.Deref(pod.Spec.TerminationGracePeriodSeconds, corev1.DefaultTerminationGracePeriodSeconds)
	return time.Duration(min(seconds, math.MaxInt32)) * time.Second
}

// kindsByName maps the names that kubectl accepts, such as "deploy", to kinds of objects.
var kindsByName = func() map[string]string {
	all := map[string]string{}
	for _, o := range api.Owners(func(o api.Owner) bool { return o.Carried || o.Kind == "Pod" }) {
		all[strings.ToLower(o.Kind)], all[cmp.Or(o.Short, strings.ToLower(o.Kind))] = o.Kind, o.Kind
	}
	return all
}()

// target parses KIND/NAME, or KIND NAME as kubectl does. The name of a slot stands for the workload
// in that name.
func target(args []string) (kind, name string, err error) {
	written := strings.Join(args, "/")
	if slot := slotName(args); slot != "" {
		if written = targetOf(slot); written == "" || api.ScopeOf(slot) == api.ScopeNamespace {
			return "", "", fmt.Errorf("%q names no workload: name the workload or one of its pods, as deployment/biller or pod/NAME", strings.Join(args, " "))
		}
	}
	kind, name, ok := strings.Cut(written, "/")
	if written == "" {
		return "", "", errors.New("name a workload or a pod, such as deployment/biller")
	}
	if !ok || name == "" || strings.Contains(name, "/") {
		return "", "", fmt.Errorf("%q: write KIND/NAME, as deployment/biller", strings.Join(args, " "))
	}
	// A person may add the API group to the kind, as in deployments.apps.
	short, _, _ := strings.Cut(strings.ToLower(kind), ".")
	known := kindsByName[short]
	if known == "" {
		known = kindsByName[strings.TrimSuffix(short, "s")]
	}
	if known == "" {
		return "", "", fmt.Errorf("%q is not a kind of workload that this command knows: name one of its pods, as pod/NAME", kind)
	}
	return known, name, nil
}

// slotName returns the slot whose Lease the arguments name: NAME or lease/NAME, as kubectl and the
// output of "status" write it. The result is empty for other arguments. Of a read-write lock, the
// command "status" writes the name without a number, so the result is then one of the lock's slots.
func slotName(args []string) string {
	name := strings.Join(args, "/")
	if kind, rest, ok := strings.Cut(name, "/"); ok {
		kind, _, _ = strings.Cut(strings.ToLower(kind), ".")
		if kind != "lease" && kind != "leases" {
			return ""
		}
		name = rest
	}
	switch {
	case api.IsSlot(name):
		return name
	case strings.HasPrefix(name, view.RWLock+".") && api.IsSlot(name+".0"):
		return name + ".0"
	}
	return ""
}

// betweenWatches is the time between two watches. Even if an API server ends each watch
// immediately, a command must not send more requests than an agent.
const betweenWatches = time.Second

// await watches the Lease until the function "wanted" returns true. If ctx ends before
// that, the result is the error of ctx.
func (c cluster) await(ctx context.Context, key types.NamespacedName, wanted func(*coordinationv1.Lease) bool) error {
	for {
		done, err := c.watchOnce(ctx, key, wanted)
		if done || err != nil {
			return err
		}
		select {
		case <-time.After(betweenWatches):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// watchOnce watches the Lease until the function "wanted" returns true, or the watch ends.
// The Lease is read after the start of the watch, so no change is missed.
func (c cluster) watchOnce(ctx context.Context, key types.NamespacedName, wanted func(*coordinationv1.Lease) bool) (bool, error) {
	changes, err := c.Watch(ctx, &coordinationv1.LeaseList{}, client.InNamespace(key.Namespace),
		client.MatchingFieldsSelector{Selector: fields.OneTermEqualSelector("metadata.name", key.Name)})
	if err != nil {
		return false, fmt.Errorf("watch lease %s: %w", key.Name, err)
	}
	defer changes.Stop()
	lease := new(coordinationv1.Lease)
	switch err := c.Get(ctx, key, lease); {
	case apierrors.IsNotFound(err): // enroll can make the Lease later
	case err != nil:
		return false, fmt.Errorf("read lease %s: %w", key.Name, err)
	case wanted(lease):
		return true, nil
	}
	for {
		select {
		case <-ctx.Done():
			return false, ctx.Err()
		case change, open := <-changes.ResultChan():
			if !open {
				return false, ctx.Err()
			}
			lease, ok := change.Object.(*coordinationv1.Lease)
			if ok && lease.Name == key.Name && wanted(lease) {
				return true, nil
			}
		}
	}
}
