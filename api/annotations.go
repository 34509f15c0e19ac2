// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"maps"
	"slices"
	"strings"
)

// Annotation describes one annotation that a person writes. The parser's
// known names, the nearest-name hints and docs/annotations.md all come from
// [Annotations].
type Annotation struct {
	Key string
	// Value is the syntax, as the documentation shows it.
	Value string
	// Default is what holds where the annotation is absent.
	Default string
	// Meaning is one sentence for people.
	Meaning string
	// Claim: the annotation asks for slots. The others modify a claim.
	Claim bool
}

// Annotations are all that this version carries out, in the order in which the
// documentation lists them.
var Annotations = []Annotation{
	{
		Key: SingletonAnnotation, Value: "`\"true\"` or a name", Default: "no claim", Claim: true,
		Meaning: "Of all pods of this workload, one runs. " +
			"A name instead of `true` makes a slot of its own; `\"false\"` claims nothing.",
	},
	{
		Key: LockAnnotation, Value: "`name[,name…]`", Default: "no claim", Claim: true,
		Meaning: "Of all pods in the namespace that name the lock, whatever their workload, one runs. " +
			"Several locks are taken in one global order, so there is no deadlock.",
	},
	{
		Key: ContainersAnnotation, Value: "`name[,name…]`", Default: "the containers of the workload's own template; where that is not known, all but those of well-known proxies",
		Meaning: "Which containers wait for the slot, ordinary init containers too if they are named; the others run at once.",
	},
	{
		Key: LeaseDurationAnnotation, Value: "`30s`, `2m`, …", Default: "`30s`",
		Meaning: "How long a holder that vanished without a word blocks the others. " +
			"Whole seconds, from `10s` to `1h`.",
	},
	{
		Key: OnLossAnnotation, Value: "`standby` or `restart`", Default: "`standby`",
		Meaning: "After a lost slot: stand by in the same container, or in a fresh one.",
	},
	{
		Key: ReadinessAnnotation, Value: "`forward` or `holder`", Default: "`forward`",
		Meaning: "With `forward` a standby is Ready while the slot is in good hands, and forwards its declared " +
			"TCP ports to the holder; a StatefulSet's standbys forward only if this is written out. " +
			"With `holder` the holder alone is Ready.",
	},
	{
		Key: GateAnnotation, Value: "`container`, `pod` or `readiness`", Default: "`container`",
		Meaning: "How the application is held back. `container`: each gated container's program is started only while " +
			"the slot is held, and proven dead before it is released. `pod`: nothing in the application's containers " +
			"is changed; all of them start only once the slot is held, and are all restarted when it is lost " +
			"(for images that must be PID 1; Kubernetes 1.36). `readiness`: the application runs everywhere, and the " +
			"holder alone is Ready. The last two guarantee less: see docs/guarantees.md.",
	},
	{
		Key: InjectAnnotation, Value: "`\"true\"` or `\"false\"`", Default: "`\"true\"`",
		Meaning: "`\"false\"` opts a pod out. Together with a claim it is an error.",
	},
}

// planned are annotations that this version knows of and does not carry out.
// They are refused by name: each would silently do nothing otherwise.
var planned = []string{
	Prefix + "barrier",
	Prefix + "once",
	Prefix + "ports",
	Prefix + "semaphore",
	Prefix + "shards",
}

// written are annotations that our own programs write on pods. They are no
// mistake on a pod that comes by again, and nothing is read from them here:
// what a person puts into them has no effect on the claims. The policy on gates
// knows the same names.
var written = []string{SlotsAnnotation, WorkloadAnnotation}

// Written: the annotation is one that our own programs write.
func Written(key string) bool { return slices.Contains(written, key) }

// Known: this version carries the annotation out.
func Known(key string) bool {
	return slices.ContainsFunc(Annotations, func(a Annotation) bool { return a.Key == key })
}

// Carried: the annotation is a person's, so that from a workload it is carried
// to the pod template. One that nobody knows is carried as well: the pods are
// then refused instead of running ungated.
func Carried(key string) bool { return strings.HasPrefix(key, Prefix) && !Written(key) }

// Effective are the annotations of a workload's next pods: the template's own,
// and those that are carried to it. Where both speak the template counts.
func Effective(workload, template map[string]string) map[string]string {
	all := make(map[string]string, len(template))
	for key, value := range workload {
		if Carried(key) {
			all[key] = value
		}
	}
	maps.Copy(all, template)
	return all
}
