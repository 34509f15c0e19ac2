// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package check

import (
	"testing"

	"github.com/stretchr/testify/assert"
	flowcontrolv1 "k8s.io/api/flowcontrol/v1"

	"github.com/metaparticle-io/metaparticle/api"
)

func TestCheckCommandWarnsOfRenewalsWithoutPriority(t *testing.T) {
	// first adds a FlowSchema that comes before those of Metaparticle, unless the subject is another one.
	first := func(s *scene, subject flowcontrolv1.Subject) *flowcontrolv1.FlowSchema {
		other := everything("tenants", 200, "tenants")
		other.Spec.Rules[0].Subjects = []flowcontrolv1.Subject{subject}
		s.schemas = append(s.schemas, other)
		return &s.schemas[len(s.schemas)-1]
	}
	account := func(namespace, name string) flowcontrolv1.Subject {
		return flowcontrolv1.Subject{ServiceAccount: &flowcontrolv1.ServiceAccountSubject{Namespace: namespace, Name: name}}
	}
	dangle := []flowcontrolv1.FlowSchemaCondition{{Type: flowcontrolv1.FlowSchemaConditionDangling, Status: flowcontrolv1.ConditionTrue}}
	for name, c := range map[string]struct {
		fault    func(s *scene)
		says, do string
	}{
		"no level":          {func(s *scene) { s.level.Name = "" }, "prioritylevelconfiguration/metaparticle is missing", "flowControl.enabled=true"},
		"no FlowSchema":     {func(s *scene) { s.schemas = s.schemas[1:] }, "flowschema/metaparticle-agents is missing", "flowControl.enabled=true"},
		"none for webhooks": {func(s *scene) { s.schemas[1].Name = "other" }, "flowschema/metaparticle-webhook is missing", "install again"},
		"no seats":          {func(s *scene) { s.level.Spec.Limited.NominalConcurrencyShares = new(int32) }, "has fewer seats", "install again"},
		"all seats lent":    {func(s *scene) { s.level.Spec.Limited.LendablePercent = new(int32(100)) }, "has fewer seats", "install again"},
		"no queues":         {func(s *scene) { s.level.Spec.Limited.LimitResponse.Type = "Reject" }, "or no queues", "install again"},
		"switched off":      {func(s *scene) { s.unfair = true }, "API Priority and Fairness is off", "--enable-priority-and-fairness"},
		"a lost level":      {func(s *scene) { s.schemas[0].Status.Conditions = dangle }, "names a priority level that does not exist", "install again"},
		"fewer verbs":       {func(s *scene) { s.schemas[0].Spec.Rules[0].ResourceRules[0].Verbs = []string{"get", "watch"} }, "flowschema/service-accounts sends the requests of shop/default for leases to the priority level workload-low", "install again"},
		"other subjects":    {func(s *scene) { s.schemas[0].Spec.Rules[0].Subjects[0].Group.Name = "system:nodes" }, "flowschema/service-accounts sends", "install again"},
		"no FlowSchema left": {func(s *scene) {
			s.schemas[0].Spec.Rules, s.schemas = nil, s.schemas[:2]
		}, "no FlowSchema has the requests of shop/default", "install again"},
		"another first": {func(s *scene) {
			first(s, account("shop", "*"))
		}, "flowschema/tenants sends the requests of shop/default for leases to the priority level tenants", "a matchingPrecedence above 300"},
		"another first for an account": {func(s *scene) {
			biller := s.pod(api.Gated, "agent@sha256:1")
			biller.Spec.ServiceAccountName = "biller"
			s.pods = append(s.pods, biller)
			first(s, account("shop", "biller"))
		}, "the requests of shop/biller", "exempt these requests from flowschema/tenants"},
		"another first for the webhook": {func(s *scene) {
			first(s, flowcontrolv1.Subject{User: &flowcontrolv1.UserSubject{Name: "system:serviceaccount:metaparticle-system:metaparticle-webhook"}})
		}, "the requests of metaparticle-system/metaparticle-webhook", "exempt these requests"},
		"another account first": {func(s *scene) { first(s, account("shop", "other")) }, "", ""},
		"another that is exempt": {func(s *scene) {
			first(s, account("shop", "*")).Spec.PriorityLevelConfiguration.Name = "exempt"
		}, "", ""},
		"another without a level": {func(s *scene) {
			first(s, account("shop", "*")).Status.Conditions = dangle
		}, "", ""},
		"more seats":        {func(s *scene) { s.level.Spec.Limited.NominalConcurrencyShares = new(int32(50)) }, "", ""},
		"no right on pods":  {func(s *scene) { s.forbidden = "pods" }, "", ""},
		"no limit of seats": {func(s *scene) { s.level.Spec = flowcontrolv1.PriorityLevelConfigurationSpec{Type: "Exempt"} }, "", ""},
	} {
		s := healthy(t)
		c.fault(s)
		f := named(t, s, "priority")
		if c.says == "" {
			assert.Equal(t, OK, f.Result, "%s: %+v", name, f)
			continue
		}
		assert.Equal(t, Warning, f.Result, "%s: %+v", name, f)
		assert.Contains(t, f.Says, "renewals can wait behind the requests of other programs: ", name)
		assert.Contains(t, f.Says, c.says, name)
		assert.Contains(t, f.Do, c.do, name)
	}
	s := healthy(t)
	s.forbidden = "flowschemas"
	assert.Equal(t, Unknown, named(t, s, "priority").Result)
}
