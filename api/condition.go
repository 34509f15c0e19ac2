// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"fmt"
	"slices"
	"strings"
)

// parseCondition reads the text of [Condition.String], or says what is wrong with the text.
func parseCondition(text string) (Condition, string) {
	lease, key, keyed := strings.Cut(text, "=")
	c := Condition{Lease: lease, Key: key}
	kind := kindOf(lease)
	switch {
	case c.Sharded() && keyed && !IsRun(key):
		return c, fmt.Sprintf("%q has a run that is no UID of a Job: leave out the = and what follows", brief(text))
	case c.Sharded():
	case kind == nil, !kind.Awaited, IsRevisionSlot(lease):
		return c, fmt.Sprintf("%q is no condition: write once.NAME=KEY, shards.job.NAME, lock.NAME or a singleton's Lease, as in singleton.deployment.db", brief(text))
	case kind == Once && !keyed:
		return c, fmt.Sprintf("%q lacks a key: write once.NAME=KEY", brief(text))
	case kind == Once && !IsKey(key):
		return c, fmt.Sprintf("the key of %q is not valid: write at most %d letters, digits, dashes, dots and underscores, with a letter or digit at both ends", brief(text), maxLabel)
	case kind == Singleton && !hasKnownKind(lease):
		return c, fmt.Sprintf("%q names a kind of workload that Kubernetes does not have: write one of %s, as in singleton.deployment.db; the slot of any other kind also names the kind's API group, with dashes for dots, as in singleton.rollout-argoproj-io.db", brief(text), strings.Join(workloadKinds, ", "))
	case kind != Once && keyed:
		return c, fmt.Sprintf("%q has a key, and only a once claim has keys: leave out the = and what follows", brief(text))
	}
	return c, ""
}

// workloadKinds lists the kinds of objects that can be a workload, and that belong to Kubernetes'
// own API groups. Each kind is spelt as in the name of a Lease.
var workloadKinds = []string{"deployment", "statefulset", "daemonset", "replicaset", "job", "cronjob", "replicationcontroller", "pod"}

// hasKnownKind reports whether the name of a singleton's Lease contains a kind of objects that can
// be a workload. Each kind of an API group outside of Kubernetes is accepted, because objects of
// that kind can own pods.
func hasKnownKind(lease string) bool {
	_, rest, _ := strings.Cut(lease, ".")
	kind, _, _ := strings.Cut(rest, ".")
	of, _ := readKind(kind)
	return of.Group != "" || slices.Contains(workloadKinds, of.Kind)
}

// Sharded reports whether the condition waits for all shards of a workload.
func (c Condition) Sharded() bool { return isRunGroup(c.Lease) }

// Job returns the name of the Job whose shards the condition waits for; empty for any other
// condition.
func (c Condition) Job() string {
	job, ok := strings.CutPrefix(c.Lease, ShardGroup(Workload{Kind: "Job"}))
	if !ok || !c.Sharded() {
		return ""
	}
	return job
}

// InRuns returns a copy of the conditions. In the copy, a condition on the shards of a Job has the
// UID of that Job as its Key. So an earlier Job with the same name does not meet the condition. The
// second argument maps the names of Jobs to their UIDs. A condition that already has a Key stays as
// it is. A condition on a Job without a valid UID in the map also stays as it is.
func InRuns(conditions []Condition, runs map[string]string) []Condition {
	named := slices.Clone(conditions)
	for i, c := range named {
		if run := runs[c.Job()]; c.Job() != "" && c.Key == "" && IsRun(run) {
			named[i].Key = run
		}
	}
	return named
}

// Leases returns the names of the Leases that a pod may have to read for the condition. Only the
// stamps tell how many shards a workload has. So the result for shards has the Leases of the
// largest possible number of shards.
func (c Condition) Leases() []string {
	if !c.Sharded() {
		return []string{c.Lease}
	}
	leases := make([]string, maxShards)
	for i := range leases {
		leases[i] = ShardLease(c.Lease, i)
	}
	return leases
}
