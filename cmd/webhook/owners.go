// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/api/podspec"
	"github.com/metaparticle-io/metaparticle/mutate/feature"
)

var (
	// errReplaced reports that the object with the owner's name has another UID than the
	// owner reference.
	errReplaced = errors.New("the owner of that name is another object: the one that the reference means is gone, or never was")
	// errNoKind reports an owner's kind that differs from a kind of Kubernetes only by the case of
	// letters or by the group.
	errNoKind = errors.New("no API of Kubernetes has such a kind in that group")
)

// owners implements [mutate.Owners] with one to three live GETs. The GETs are live because an
// outdated cache would not show that a ReplicaSet was orphaned. An orphaned ReplicaSet is a
// workload of its own.
//
// A pod's creator can write any owner reference. If a reference names a built-in kind of
// Kubernetes, such as ReplicaSet, the object of that name must have the UID in the reference. So a
// pod cannot join another workload's singleton by a forged reference.
type owners struct {
	live objects
	// cached has the metadata of the objects whose kinds are in [watched]. This metadata may be
	// outdated.
	cached client.Reader
}

// watched lists the kinds whose objects are in the cache, because these objects outlive many pods.
var watched = kindsOf(api.Owner.Lasts)

// unwatched lists the built-in kinds that can control pods and that the list [watched] lacks.
var unwatched = kindsOf(func(o api.Owner) bool { return o.Builtin() && !o.Lasts() })

func kindsOf(are func(api.Owner) bool) (kinds []schema.GroupVersionKind) {
	for _, o := range api.Owners(are) {
		kinds = append(kinds, schema.GroupVersionKind{Group: o.Group, Version: "v1", Kind: o.Kind})
	}
	return kinds
}

// Origin implements [mutate.Owners].
func (o owners) Origin(ctx context.Context, namespace string, pod *corev1.Pod) (feature.Origin, error) {
	owner := metav1.GetControllerOf(pod)
	if owner == nil {
		return feature.Origin{Workload: api.Workload{Kind: "Pod", Name: pod.Name}}, nil
	}
	kind, err := schema.ParseGroupVersion(owner.APIVersion)
	if err != nil {
		return feature.Origin{}, fmt.Errorf("owner's version: %w", err)
	}
	switch of := podspec.WorkloadOf(owner).Owner(); {
	case of.Group != kind.Group: // named like a kind of Kubernetes, which it is not
	case of.PerVersion && of.Runs:
		return o.job(ctx, namespace, owner)
	case of.PerVersion:
		return o.replicas(ctx, kind.WithKind(owner.Kind), namespace, owner)
	case of.InPlace:
		return o.numbered(ctx, namespace, owner, pod)
	}
	return o.under(ctx, namespace, owner, feature.Origin{})
}

// under completes the origin of a pod whose workload is the owner, or what is above the owner.
func (o owners) under(ctx context.Context, namespace string, owner *metav1.OwnerReference, origin feature.Origin) (feature.Origin, error) {
	above, err := o.verify(ctx, namespace, owner)
	if above != nil {
		// Of two Deployments, the numbers of the templates say nothing about each other.
		owner, origin.Revision, origin.MinReady = above, api.Revision{}, 0
	}
	origin.Workload = podspec.WorkloadOf(owner)
	return origin, err
}

// numbered returns the origin of a pod of a StatefulSet or a DaemonSet, by the template from which the set made
// the pod. The controllers store a template and its number before they make the first pod from it. The template
// of a pod without a revision's name is unknown, because no controller made the pod.
func (o owners) numbered(ctx context.Context, namespace string, owner *metav1.OwnerReference, pod *corev1.Pod) (feature.Origin, error) {
	var set struct {
		identity
		Spec struct {
			MinReadySeconds     int32                          `json:"minReadySeconds"`
			PodManagementPolicy appsv1.PodManagementPolicyType `json:"podManagementPolicy"`
			UpdateStrategy      struct {
				Type string `json:"type"`
			} `json:"updateStrategy"`
		} `json:"spec"`
	}
	if err := o.get(ctx, appsv1.SchemeGroupVersion.WithKind(owner.Kind), namespace, owner, &set); err != nil {
		return feature.Origin{}, err
	}
	origin := feature.Origin{Workload: podspec.WorkloadOf(owner)}
	// The author of the pod writes the hash, and no user validates the hash before the webhook.
	hash := pod.Labels[appsv1.ControllerRevisionHashLabelKey]
	if !revision(owner, 1, hash).Valid() {
		return origin, nil
	}
	name := hash // of a StatefulSet, the label has the whole name of the ControllerRevision
	if origin.Workload.Owner().PerNode {
		name = owner.Name + "-" + hash
	}
	var stored struct {
		identity
		Revision int64           `json:"revision"`
		Data     json.RawMessage `json:"data"`
	}
	err := o.live.read(ctx, appsv1.SchemeGroupVersion.WithKind("ControllerRevision"), namespace, name, &stored)
	if client.IgnoreNotFound(err) != nil {
		return feature.Origin{}, fmt.Errorf("read revision: %w", err)
	}
	// If the ControllerRevision does not exist, stored is empty, and has no controller.
	if by := stored.controller(); by == nil || by.UID != owner.UID {
		return origin, nil
	}
	var data struct {
		Spec struct {
			Template podTemplate `json:"template"`
		} `json:"spec"`
	}
	if err := json.Unmarshal(stored.Data, &data); err != nil {
		return feature.Origin{}, fmt.Errorf("read revision %s: %w", name, err)
	}
	origin.Template, origin.Revision = data.Spec.Template.podSpec(), revision(owner, stored.Revision, hash)
	if origin.Revision.Valid() {
		origin.MinReady = time.Duration(set.Spec.MinReadySeconds) * time.Second
		// Both kinds have a strategy of this name. Only a StatefulSet has a policy.
		parallel := origin.Workload.Owner().PerNode || set.Spec.PodManagementPolicy == appsv1.ParallelPodManagement
		origin.ReplacesUnready = parallel && set.Spec.UpdateStrategy.Type == string(appsv1.RollingUpdateStatefulSetStrategyType)
	}
	return origin, nil
}

// replicas returns the origin of a pod of a ReplicaSet or a ReplicationController.
func (o owners) replicas(ctx context.Context, kind schema.GroupVersionKind, namespace string, owner *metav1.OwnerReference) (feature.Origin, error) {
	kind.Version = "v1"
	var set struct {
		identity
		Spec struct {
			MinReadySeconds int32 `json:"minReadySeconds"`
			Selector        struct {
				// MatchLabels of a ReplicationController, whose selector has plain labels, may be a text.
				MatchLabels any `json:"matchLabels"`
			} `json:"selector"`
			Template podTemplate `json:"template"`
		} `json:"spec"`
	}
	if err := o.get(ctx, kind, namespace, owner, &set); err != nil {
		return feature.Origin{}, err
	}
	above := set.above(kind.Kind)
	if above == nil {
		// This object has no controller. A person may have edited its template after the pod
		// was made, so the template of the pod is unknown.
		return feature.Origin{Workload: podspec.WorkloadOf(owner), Apart: set.apart(kind.Kind, owner.Name)}, nil
	}
	origin := feature.Origin{Template: set.Spec.Template.podSpec()}
	workload := podspec.WorkloadOf(above)
	of, hash := workload.Owner(), owner.Name
	if of.Hash != "" { // no user can change a selector
		labels, _ := set.Spec.Selector.MatchLabels.(map[string]any)
		hash, _ = labels[of.Hash].(string)
	}
	number, err := strconv.ParseInt(set.Metadata.Annotations[of.Number], 10, 64)
	if err == nil {
		origin.Revision = revision(above, number, hash)
	}
	if origin.Revision.Valid() {
		origin.MinReady = time.Duration(set.Spec.MinReadySeconds) * time.Second
	}
	return o.under(ctx, namespace, above, origin)
}

// revision returns the revision of a workload's template, or the zero value if the
// number or the hash is missing or invalid.
func revision(workload *metav1.OwnerReference, number int64, hash string) api.Revision {
	r := api.Revision{Workload: string(workload.UID), Number: number, Hash: hash}
	if !r.Valid() {
		return api.Revision{}
	}
	return r
}

func (o owners) job(ctx context.Context, namespace string, owner *metav1.OwnerReference) (feature.Origin, error) {
	var job struct {
		identity
		Spec struct {
			Parallelism    *int32                 `json:"parallelism"`
			Completions    *int32                 `json:"completions"`
			CompletionMode batchv1.CompletionMode `json:"completionMode"`
			Template       podTemplate            `json:"template"`
		} `json:"spec"`
	}
	if err := o.get(ctx, batchv1.SchemeGroupVersion.WithKind("Job"), namespace, owner, &job); err != nil {
		return feature.Origin{}, err
	}
	// A Job's template is immutable, so this template is that of the pod.
	origin := feature.Origin{
		Workload: podspec.WorkloadOf(owner), Template: job.Spec.Template.podSpec(),
		Run: feature.Run{
			UID: string(owner.UID), AtOnce: feature.PodsAtOnce(job.Spec.Parallelism, job.Spec.Completions),
			Completions: job.Spec.Completions, Indexed: job.Spec.CompletionMode == batchv1.IndexedCompletion,
		},
	}
	if above := job.above("Job"); above != nil {
		return o.under(ctx, namespace, above, origin)
	}
	origin.Apart = job.apart("Job", owner.Name)
	return origin, nil
}

// JobUID implements [mutate.Owners].
func (o owners) JobUID(ctx context.Context, namespace, job string) (string, error) {
	var found identity
	err := o.live.read(ctx, batchv1.SchemeGroupVersion.WithKind("Job"), namespace, job, &found)
	return string(found.Metadata.UID), client.IgnoreNotFound(err)
}

// verify reports an error if an owner is not the object that its reference means. An object
// that the cache lacks is new or gone, so the API server is asked. The webhook knows
// nothing of APIs that are not Kubernetes' own, and accepts their kinds. If the owner is a Deployment,
// the result is the owner above it, or nil.
func (o owners) verify(ctx context.Context, namespace string, owner *metav1.OwnerReference) (*metav1.OwnerReference, error) {
	version, err := schema.ParseGroupVersion(owner.APIVersion)
	if err != nil {
		return nil, fmt.Errorf("owner's version: %w", err)
	}
	kind, ok := builtin(version.Group, owner.Kind)
	switch {
	case kind.Empty():
		return nil, nil
	case !ok:
		return nil, errNoKind
	}
	var found identity
	if slices.Contains(watched, kind) {
		var metadata metav1.PartialObjectMetadata
		metadata.SetGroupVersionKind(kind)
		err := o.cached.Get(ctx, types.NamespacedName{Namespace: namespace, Name: owner.Name}, &metadata)
		if err == nil && metadata.UID == owner.UID {
			found.Metadata.Labels, found.Metadata.OwnerReferences = metadata.Labels, metadata.OwnerReferences
			return found.aboveDeployment(kind), nil
		}
	}
	if err := o.get(ctx, kind, namespace, owner, &found); err != nil {
		return nil, err
	}
	return found.aboveDeployment(kind), nil
}

// builtin returns the kind of Kubernetes that equals the owner's kind, apart from the case of
// letters and the group. The name of a slot contains the owner's kind in lower case, and omits the
// groups of Kubernetes. So workloads of two such kinds could share a slot. The first result is
// empty if no such kind exists. The second result reports whether case and group are equal, too.
func builtin(group, kind string) (schema.GroupVersionKind, bool) {
	if !slices.Contains([]string{"", "apps", "batch"}, group) {
		return schema.GroupVersionKind{}, false
	}
	for _, k := range slices.Concat(watched, unwatched) {
		if strings.EqualFold(k.Kind, kind) {
			return k, k.Kind == kind && k.Group == group
		}
	}
	return schema.GroupVersionKind{}, false
}

// get reads the object that an owner reference means. The argument "into" points to a struct that
// contains an [identity].
func (o owners) get(ctx context.Context, kind schema.GroupVersionKind, namespace string, owner *metav1.OwnerReference, into interface{ uid() types.UID }) error {
	if err := o.live.read(ctx, kind, namespace, owner.Name, into); err != nil {
		return fmt.Errorf("read owner: %w", err)
	}
	if into.uid() != owner.UID {
		return errReplaced
	}
	return nil
}

// maxCronJobs bounds the CronJobs of a namespace with which a new Job is compared.
const maxCronJobs = 1000

// cronJobs returns CronJobs of a namespace, from the cache.
func cronJobs(cached client.Reader) func(context.Context, string) ([]metav1.ObjectMeta, error) {
	// One list at a time, and of a bounded length: a user could create many CronJobs, and many Jobs by dry
	// run. A warning that a very large namespace does not get is the price.
	var one sync.Mutex
	return func(ctx context.Context, namespace string) (all []metav1.ObjectMeta, err error) {
		one.Lock()
		defer one.Unlock()
		var list metav1.PartialObjectMetadataList
		list.SetGroupVersionKind(batchv1.SchemeGroupVersion.WithKind("CronJobList"))
		err = cached.List(ctx, &list, client.InNamespace(namespace), client.UnsafeDisableDeepCopy, client.Limit(maxCronJobs))
		for _, item := range list.Items {
			all = append(all, item.ObjectMeta)
		}
		return all, err
	}
}

// limits implements [admit.Limits] from the cache.
type limits struct{ cached client.Reader }

// LimitRanges implements [admit.Limits].
func (l limits) LimitRanges(ctx context.Context, namespace string) ([]corev1.LimitRange, error) {
	var ranges corev1.LimitRangeList
	if err := l.cached.List(ctx, &ranges, client.InNamespace(namespace)); err != nil {
		return nil, err
	}
	return ranges.Items, nil
}
