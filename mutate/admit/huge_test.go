// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package admit

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/metaparticle-io/metaparticle/mutate/mutatetest"
)

// The API server calls the webhook before the validation of an object, so the object may be huge.
func TestWebhookKeepsAnswersToHugeObjectsShort(t *testing.T) {
	huge := strings.Repeat("x", 1<<20)
	claim := `"annotations":{"metaparticle.io/singleton":"true"}`
	many := func(format string) string {
		var all []string
		for i := range 5000 {
			all = append(all, fmt.Sprintf(format, i))
		}
		return strings.Join(all, ",")
	}
	pod := func(metadata, spec string) string { return `{"metadata":{` + metadata + `},"spec":{` + spec + `}}` }
	const app = `"containers":[{"name":"app","image":"app:1"}]`
	tests := map[string]struct{ pods, workloads string }{
		"an image's name":     {pods: pod(`"name":"a",`+claim, `"containers":[{"name":"app","image":"`+huge+`"}]`)},
		"a container's name":  {pods: pod(`"name":"a",`+claim, `"containers":[{"name":"`+huge+`"}]`)},
		"a pod's name":        {pods: pod(`"name":"`+huge+`","annotations":{"metaparticle.io/lock":"A"}`, app)},
		"an owner's name":     {pods: pod(claim+`,"ownerReferences":[{"apiVersion":"apps/v1","kind":"ReplicaSet","uid":"1","controller":true,"name":"`+huge+`"}]`, app)},
		"an owner's kind":     {pods: pod(claim+`,"ownerReferences":[{"apiVersion":"apps/v1","uid":"1","controller":true,"kind":"`+huge+`"}]`, app)},
		"unknown annotations": {pods: pod(`"name":"a","annotations":{`+many(`"metaparticle.io/x%d":""`)+`}`, app)},
		"many containers":     {pods: pod(`"name":"a",`+claim, `"containers":[`+many(`{"name":"c%d"}`)+`]`)},
		"an unknown container, of many": {pods: pod(
			`"name":"a","annotations":{"metaparticle.io/lock":"a","metaparticle.io/containers":"x,y,z"}`, `"containers":[`+many(`{"name":"c%d"}`)+`]`)},
		"a malformed pod": {pods: `{"spec":{"containers":` + strings.Repeat("1", 1<<20) + `}}`},
		"a workload's annotations": {workloads: `{"metadata":{"annotations":{` + many(`"metaparticle.io/x%d":"1"`) + `}},
			"spec":{"template":{"metadata":{"annotations":{` + many(`"metaparticle.io/x%d":"2"`) + `}}}}}`},
		"a workload's containers": {workloads: `{"metadata":{` + claim + `},"spec":{"template":{"spec":{"containers":[` + many(`{"name":"c%d","ports":[{"containerPort":13132}]}`) + `]}}}}`},
		"a malformed workload":    {workloads: `{"metadata":` + strings.Repeat("1", 1<<20) + `}`},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			var log bytes.Buffer
			f := mutatetest.Facts{}
			observed := func(o Outcome) { assert.Less(t, len(fmt.Sprint(o.Owner)), 1000, "an Event's reader looks it up") }
			o := Options{AgentImage: mutatetest.AgentImage, Images: f, Owners: f, Observe: observed, Log: slog.New(slog.NewTextHandler(&log, nil))}
			handler, r := NewPodHandler(o), mutatetest.Request(test.pods)
			if test.workloads != "" {
				handler, r = NewWorkloadHandler(o), mutatetest.Request(test.workloads)
			}
			response := handler.Handle(t.Context(), r)
			said := strings.Join(response.Warnings, "\n")
			assert.Equal(t, test.pods == "" && response.Warnings != nil, response.Allowed)
			if !response.Allowed {
				said = response.Result.Message
			}
			assert.NotEmpty(t, said)
			assert.Less(t, len(said), 16<<10)
			assert.Less(t, log.Len(), 32<<10)
		})
	}
}

// The resource of a request becomes the value of a metric's label, and the webhook keeps each
// value for ever. So an unknown resource counts as "other".
func TestMetricLabelOfUnknownResourcesIsConstant(t *testing.T) {
	for resource, want := range map[string]string{
		"deployments": "deployments", "statefulsets": "statefulsets", "daemonsets": "daemonsets", "replicasets": "replicasets",
		"jobs": "jobs", "cronjobs": "cronjobs", "": "other", "pods": "other", "Deployments": "other", "x": "other",
	} {
		var seen []Outcome
		r := mutatetest.Request(`{"metadata":{"annotations":{"metaparticle.io/lock":"a"}}}`)
		r.Resource = metav1.GroupVersionResource{Resource: resource}
		NewWorkloadHandler(Options{Observe: func(o Outcome) { seen = append(seen, o) }}).Handle(t.Context(), r)
		if assert.Len(t, seen, 1) {
			assert.Equal(t, want, seen[0].Resource, resource)
		}
	}
}
