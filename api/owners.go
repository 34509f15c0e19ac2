// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"slices"
	"strings"
)

// Owner is what this project knows of a kind of objects that make pods, or that make the objects below. Of a kind
// without a row the zero value holds: its pods are a workload of their own, without revisions.
type Owner struct {
	Group, Kind string
	// Short is a further name by which kubectl knows the kind.
	Short string
	// Product names, for people, where a kind that is not Kubernetes' own comes from.
	Product string

	// Carried reports that the webhook carries the annotations of such an object to its pod template.
	Carried bool
	// Replicas reports that the object states the number of its pods. With PerNode they are as many as nodes, which
	// the webhook does not know.
	Replicas, PerNode bool
	// Runs reports that the pods end with their work.
	Runs bool
	// Rolls reports that the controller gives each pod template a number, so that pods have revisions.
	Rolls bool
	// Surges reports that in a rollout new pods run beside the old ones, and InPlace that an old pod must be gone
	// before the new one in its place is made.
	Surges, InPlace bool
	// Restarts reports that kubectl rollout restart replaces the pods.
	Restarts bool
	// PerVersion reports that a controller makes another such object for each version or run of what a person calls
	// the workload, so the pods share the slots of that controller.
	PerVersion bool
	// Below is the kind of the objects that such an object makes, and that make its pods; empty for none.
	Below string
	// Number is the annotation of the object below that has the template's number, and Hash the label of its
	// selector that has the template's hash. If only Hash is empty, the name of the object below stands for it.
	Number, Hash string
}

// owners are all kinds of owners that somebody here treats in a special way. A new one needs a row, and what is said
// about it in docs/reference/compatibility.md. One whose annotations the webhook carries (Carried) also needs what reads
// its Go type: mutate/admit, mutate/carry.go, cmd/webhook, enroll/workload.go and the console's watch.
//
// The controllers write Number and Hash when they make an object below, so both exist before its first pod. After
// kubectl rollout undo, the controller first raises the number of the old ReplicaSet, and then scales it up. Each
// version of a DeploymentConfig, even an undo, has a ReplicationController of its own.
var owners = []Owner{
	{
		Group: "apps", Kind: "Deployment", Short: "deploy", Carried: true, Replicas: true, Rolls: true, Surges: true, Restarts: true,
		Below: "ReplicaSet", Number: "deployment.kubernetes.io/revision", Hash: "pod-template-hash",
	},
	{Group: "apps", Kind: "StatefulSet", Short: "sts", Carried: true, Replicas: true, Rolls: true, InPlace: true, Restarts: true},
	{Group: "apps", Kind: "DaemonSet", Short: "ds", Carried: true, PerNode: true, Rolls: true, InPlace: true, Restarts: true},
	{Group: "apps", Kind: "ReplicaSet", Short: "rs", Carried: true, Replicas: true, PerVersion: true},
	{Group: "batch", Kind: "CronJob", Short: "cj", Carried: true, Runs: true, Below: "Job"},
	{Group: "batch", Kind: "Job", Carried: true, Runs: true, PerVersion: true},
	{Kind: "ReplicationController", PerVersion: true},
	{Kind: "Pod", Short: "po"}, // some driver pods make their own workers
	{
		Group: "argoproj.io", Kind: "Rollout", Product: "argoproj.io", Rolls: true, Surges: true,
		Below: "ReplicaSet", Number: "rollout.argoproj.io/revision", Hash: "rollouts-pod-template-hash",
	},
	{
		Group: "apps.openshift.io", Kind: "DeploymentConfig", Product: "OpenShift", Rolls: true, Surges: true,
		Below: "ReplicationController", Number: "openshift.io/deployment-config.latest-version",
	},
}

// Owners returns the rows for which a function is true.
func Owners(are func(Owner) bool) []Owner {
	return slices.DeleteFunc(slices.Clone(owners), func(o Owner) bool { return !are(o) })
}

// KindsOf returns the kinds of the rows for which a function is true.
func KindsOf(are func(Owner) bool) (kinds []string) {
	for _, o := range Owners(are) {
		kinds = append(kinds, o.Kind)
	}
	return kinds
}

// BuiltinOwner returns the row of a kind in one of Kubernetes' own groups, in which no two kinds have one name; the
// zero value if it has none.
func BuiltinOwner(kind string) Owner { return Workload{Kind: kind}.Owner() }

// Owner returns the row of the workload's kind; the zero value if it has none.
func (w Workload) Owner() Owner {
	i := slices.IndexFunc(owners, func(o Owner) bool {
		return o.Kind == w.Kind && (o.Group == w.Group || o.Builtin() && w.builtin())
	})
	if i < 0 {
		return Owner{}
	}
	return owners[i]
}

// Builtin reports whether the kind is in one of Kubernetes' own groups.
func (o Owner) Builtin() bool { return Workload{Group: o.Group}.builtin() }

// Lasts reports that an object outlives many pods, and that a person annotates it.
func (o Owner) Lasts() bool { return o.Carried && !o.PerVersion }

// APIVersion returns the version in which the webhook and the plugin read objects of a kind of Kubernetes.
func (o Owner) APIVersion() string { return strings.TrimPrefix(o.Group+"/v1", "/") }

// TemplatePath returns the path to the pod template in an object of a kind that carries annotations to it.
func (o Owner) TemplatePath() []string {
	if o.Below == "Job" {
		return []string{"spec", "jobTemplate", "spec", "template"}
	}
	return []string{"spec", "template"}
}

// rolls reports whether the text is, in the name of a Lease, a kind whose pods have revisions ([Workload.kindPart]).
func rolls(part string) bool {
	return slices.ContainsFunc(owners, func(o Owner) bool { return o.Rolls && part == Workload{Group: o.Group, Kind: o.Kind}.kindPart() })
}

// KindsThatRoll names for people the kinds whose pods have revisions.
func KindsThatRoll(and string) string {
	var names []string
	for _, o := range Owners(func(o Owner) bool { return o.Rolls }) {
		name := o.Kind
		if o.Product != "" {
			name += " (" + o.Product + ")"
		}
		names = append(names, name)
	}
	last := len(names) - 1
	return strings.Join(names[:last], ", ") + " " + and + " " + names[last]
}
