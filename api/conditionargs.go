// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"fmt"
	"strings"
)

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
