// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestConditionsAreSortedWithoutDuplicates(t *testing.T) {
	r, err := Parse(map[string]string{AfterAnnotation: " singleton.deployment.db,once.schema=7, lock.a.b,once.schema=7"})
	require.NoError(t, err)
	assert.Equal(t, []Condition{{Lease: "lock.a.b"}, {Lease: "once.schema", Key: "7"}, {Lease: "singleton.deployment.db"}}, r.After)
	assert.False(t, r.Claims(), "a condition holds no slot")
	assert.True(t, r.Injects())
}

func TestErrorExplainsEachInvalidCondition(t *testing.T) {
	many := []string{}
	for name := range strings.SplitSeq("abcdefghi", "") {
		many = append(many, "lock."+name)
	}
	for value, problem := range map[string]string{
		"":                                 "name at least one condition",
		"lock.a,":                          "none empty",
		"schema=7":                         `"schema=7" is no condition: write once.NAME=KEY, shards.job.NAME, lock.NAME`,
		"kube-scheduler":                   "is no condition",
		"next.lock.a":                      "is no condition",
		"semaphore.pool.0":                 "is no condition",
		"election.main":                    "is no condition",
		"once-revision.deployment.a":       "is no condition",
		"once.schema":                      `"once.schema" lacks a key`,
		"once.schema=":                     `the key of "once.schema=" is not valid`,
		"once.schema=7=8":                  "is not valid",
		"singleton.deploy.db":              "names a kind of workload that Kubernetes does not have: write one of deployment, statefulset",
		"singleton-a.deployments.db":       "names a kind of workload that Kubernetes does not have",
		"singleton.rollout.db":             "also names the kind's API group, with dashes for dots, as in singleton.rollout-argoproj-io.db",
		strings.Repeat(" ", 4100):          "at most 4096 characters",
		"lock.a=7":                         `"lock.a=7" has a key`,
		"singleton.deployment.a=7":         "has a key",
		strings.Join(many, ","):            "at most 8 conditions",
		"lock." + strings.Repeat("x", 300): "is no condition",
	} {
		_, err := Parse(map[string]string{AfterAnnotation: value})
		if assert.Error(t, err, value) {
			assert.Contains(t, err.Error(), problem)
			assert.Less(t, len(err.Error()), 500, "long values are cut")
		}
	}
}

func TestParseRefusesConditionsWithInjectSetToFalse(t *testing.T) {
	_, err := Parse(map[string]string{AfterAnnotation: "lock.a", InjectAnnotation: "false"})
	assert.ErrorContains(t, err, `metaparticle.io/inject is "false", but metaparticle.io/after needs an injected container`)
	_, err = Parse(map[string]string{AfterAnnotation: "lock.a", OnLossAnnotation: "standby"})
	assert.ErrorContains(t, err, "metaparticle.io/on-loss has no effect without a claim")
}

func TestConditionThatThePodFulfillsItselfIsDetected(t *testing.T) {
	r := Request{After: []Condition{{Lease: "lock.a"}, {Lease: "once.schema", Key: "7"}}}
	_, own := r.MetBySelf([]string{"once.schema"}, "8")
	assert.False(t, own, "the work of another key")
	c, own := r.MetBySelf([]string{"once.schema"}, "7")
	assert.True(t, own)
	assert.Equal(t, "once.schema=7", c.String())
	_, own = r.MetBySelf([]string{"lock.a"}, "")
	assert.True(t, own)
}

func TestConditionArgsSurviveARoundTrip(t *testing.T) {
	a := ConditionArgs{Conditions: []Condition{{Lease: "lock.a"}, {Lease: "once.schema", Key: "7"}}, Credentials: CredentialsPath}
	words := a.Args()
	assert.Equal(t, []string{AfterRole, "-conditions=lock.a,once.schema=7"}, words)
	parsed, err := ParseConditionArgs(words[1:])
	require.NoError(t, err)
	assert.Equal(t, a, parsed)
	assert.Equal(t, a.Conditions, RecallConditions(words))
	for _, wrong := range [][]string{nil, {"-conditions=x"}, {"-conditions=lock.a", "more"}, {"-other=1"}} {
		_, err := ParseConditionArgs(wrong)
		assert.Error(t, err, wrong)
	}
}
