// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package policies

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/metaparticle-io/metaparticle/api"
)

// reported returns the messages of the policies that refuse an Event of the agent of the pod web-0.
// Without the function, the Event is as agents write it.
func reported(t *testing.T, change func(*corev1.Event)) []string {
	t.Helper()
	at := metav1.NewTime(time.Date(2026, 11, 27, 8, 0, 0, 0, time.UTC))
	event := &corev1.Event{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: shop, Name: "web-0.1", GenerateName: "web-0.",
			// The API server makes this list.
			ManagedFields: []metav1.ManagedFieldsEntry{{
				Manager: "agent", Operation: metav1.ManagedFieldsOperationUpdate, APIVersion: "v1", FieldsType: "FieldsV1", Time: &at,
				FieldsV1: metav1.NewFieldsV1(`{"f:count":{},"f:firstTimestamp":{},"f:involvedObject":{},"f:lastTimestamp":{},"f:message":{},` +
					`"f:reason":{},"f:reportingComponent":{},"f:reportingInstance":{},"f:source":{"f:component":{}},"f:type":{}}`),
			}},
		},
		InvolvedObject: corev1.ObjectReference{
			APIVersion: "v1", Kind: "Pod", Namespace: shop, Name: "web-0", UID: "1", FieldPath: "spec.containers{" + strings.Repeat("c", 63) + "}",
		},
		Type: corev1.EventTypeWarning, Reason: "Acquired", Message: strings.Repeat("m", 1024),
		FirstTimestamp: at, LastTimestamp: at, Count: 1,
		Source:              corev1.EventSource{Component: api.AgentReporter},
		ReportingController: api.AgentReporter, ReportingInstance: strings.Repeat("p", 253),
	}
	if change != nil {
		change(event)
	}
	return refusals(t, request{
		by:  pod("web-0", "1"),
		may: isAgent, resource: corev1.SchemeGroupVersion.WithResource("events"), in: namespace(shop, true), object: event,
	})
}

// fields returns the names of n fields, as managedFields has them.
func fields(n int) string {
	all := make([]string, n)
	for i := range all {
		all[i] = fmt.Sprintf(`"f:%d":{}`, i)
	}
	return strings.Join(all, ",")
}

// An Event without bounds would fill etcd, and the memory of each program that watches Events.
func TestEventPolicyBoundsEachFieldOfAnEvent(t *testing.T) {
	require.Empty(t, reported(t, nil))
	long := strings.Repeat("x", 257)
	listed := func(raw string) func(*corev1.Event) {
		return func(e *corev1.Event) { e.ManagedFields[0].FieldsV1.SetRawString(raw) }
	}
	for what, change := range map[string]func(*corev1.Event){
		"name":               func(e *corev1.Event) { e.Name = long },
		"generateName":       func(e *corev1.Event) { e.GenerateName = long },
		"message":            func(e *corev1.Event) { e.Message += "m" },
		"reason":             func(e *corev1.Event) { e.Reason = long },
		"type":               func(e *corev1.Event) { e.Type = "Other" },
		"no type":            func(e *corev1.Event) { e.Type = "" },
		"source.component":   func(e *corev1.Event) { e.Source.Component = long },
		"source.host":        func(e *corev1.Event) { e.Source.Host = long },
		"reportingComponent": func(e *corev1.Event) { e.ReportingController = long },
		"reportingInstance":  func(e *corev1.Event) { e.ReportingInstance = long },
		"action":             func(e *corev1.Event) { e.Action = long },
		"fieldPath":          func(e *corev1.Event) { e.InvolvedObject.FieldPath = long },
		"apiVersion":         func(e *corev1.Event) { e.InvolvedObject.APIVersion = long },
		"resourceVersion":    func(e *corev1.Event) { e.InvolvedObject.ResourceVersion = long },
		"related":            func(e *corev1.Event) { e.Related = &corev1.ObjectReference{Kind: "Deployment", Name: "victim"} },
		"labels":             func(e *corev1.Event) { e.Labels = map[string]string{"a": "b"} },
		"annotations":        func(e *corev1.Event) { e.Annotations = map[string]string{"a": "b"} },
		"owners": func(e *corev1.Event) {
			e.OwnerReferences = []metav1.OwnerReference{{Kind: "Pod", Name: "web-0", UID: "1"}}
		},
		"finalizers":          func(e *corev1.Event) { e.Finalizers = []string{"example.com/forever"} },
		"two lists of fields": func(e *corev1.Event) { e.ManagedFields = append(e.ManagedFields, e.ManagedFields[0]) },
		"a long field":        listed(`{"f:` + long + `":{}}`),
		"a long inner field":  listed(`{"f:source":{"f:` + long + `":{}}}`),
		"a deep field":        listed(`{"f:source":{"f:host":{"f:a":{}}}}`),
		"a huge field":        listed(`{"f:` + strings.Repeat("x", 1_400_000) + `":{}}`),
		"many fields":         listed(`{` + fields(33) + `}`),
		"many inner fields":   listed(`{"f:source":{` + fields(17) + `}}`),
		"a name of symbols":   func(e *corev1.Event) { e.Name = "web-0.\x1b[2J" },
		"a reason of symbols": func(e *corev1.Event) { e.Reason = "\x1b[2J" },
		"a line in a name":    func(e *corev1.Event) { e.GenerateName = "web-0\n" },
		"a hidden component":  func(e *corev1.Event) { e.Source.Component = "\u202eagent" },
		"an escape sequence":  func(e *corev1.Event) { e.ReportingInstance = "\x1b[2J" },
		"a hidden field":      func(e *corev1.Event) { e.InvolvedObject.FieldPath = "spec.containers{\u2028}" },
		"a huge text":         func(e *corev1.Event) { e.Source.Host = strings.Repeat("x", 1_400_000) },
	} {
		assert.NotEmpty(t, reported(t, change), what)
	}
}

// An agent of version 0.1.0 does not replace the control characters of another program's text.
func TestEventPolicyAdmitsWhatAllAgentVersionsWrite(t *testing.T) {
	for what, change := range map[string]func(*corev1.Event){
		"a message of lines": func(e *corev1.Event) { e.Message = "probe failed:\n\x1b[31mno" },
		"a long name":        func(e *corev1.Event) { e.Name = strings.Repeat("a.b-9", 50) + ".x7k2p" },
		"no container":       func(e *corev1.Event) { e.InvolvedObject.FieldPath = "" },
	} {
		assert.Empty(t, reported(t, change), what)
	}
}
