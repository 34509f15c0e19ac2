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

// maxAfterText bounds the text of all conditions. The policy "after" has the same bound. The
// longest possible text of [maxAfter] conditions is shorter.
const maxAfterText = 4096

func setAfter(r *Request, value string) string {
	if len(value) > maxAfterText {
		return fmt.Sprintf("write at most %d characters", maxAfterText)
	}
	texts, problem := list(value, "condition", func(text string) string {
		_, problem := parseCondition(text)
		return problem
	})
	switch {
	case problem != "":
		return problem
	case len(texts) > maxAfter:
		return fmt.Sprintf("name at most %d conditions", maxAfter)
	}
	for _, text := range texts {
		c, _ := parseCondition(text)
		r.After = append(r.After, c)
	}
	return ""
}

func conditionTexts(conditions []Condition) []string {
	var texts []string
	for _, c := range conditions {
		texts = append(texts, c.String())
	}
	return texts
}

// ConditionArgs are the arguments of the role "after". The webhook writes the conditions, and
// only tests set Credentials.
type ConditionArgs struct {
	Conditions []Condition
	// Credentials is the directory of the service account token and the cluster's CA.
	Credentials string
}

var conditionArguments = arguments[ConditionArgs]{
	{
		name: "conditions", meaning: "what to wait for, comma-separated: once.NAME=KEY, or the Lease of a slot",
		text: func(of ConditionArgs) string { return strings.Join(conditionTexts(of.Conditions), ",") },
		read: func(into *ConditionArgs, value string) error {
			var r Request
			if problem := setAfter(&r, value); problem != "" {
				return fmt.Errorf("conditions: %s", problem)
			}
			into.Conditions = r.After
			return nil
		},
	},
	textArg("credentials", "directory of the service account token and the cluster's CA", func(r *ConditionArgs) *string { return &r.Credentials }).
		written(func(of ConditionArgs) bool { return of.Credentials != CredentialsPath }),
}

// Args returns the words of the container [AfterContainer], as a pod's spec has them.
func (a ConditionArgs) Args() []string {
	return append([]string{AfterRole}, conditionArguments.words(a)...)
}

// ParseConditionArgs reads the words that follow the role.
func ParseConditionArgs(words []string) (ConditionArgs, error) {
	a := ConditionArgs{Credentials: CredentialsPath}
	rest, err := conditionArguments.parse(AfterRole, &a, words)
	switch {
	case err != nil:
	case len(rest) > 0:
		err = fmt.Errorf("agent %s: unexpected arguments %q", AfterRole, rest)
	case len(a.Conditions) == 0:
		err = fmt.Errorf("agent %s: no -conditions", AfterRole)
	}
	return a, err
}

// RecallConditions reads the conditions back from the words of [ConditionArgs.Args]. The result
// is empty for any other words.
func RecallConditions(words []string) []Condition {
	if len(words) == 0 || words[0] != AfterRole {
		return nil
	}
	var a ConditionArgs
	conditionArguments.recall(&a, words[1:])
	return a.Conditions
}
