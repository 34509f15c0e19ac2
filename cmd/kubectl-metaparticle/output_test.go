// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/cmd/kubectl-metaparticle/check"
)

// A CI job prints the output of a command, and a tenant has written texts in that output.
func TestStructuredOutputHoldsNoCommandToCISystems(t *testing.T) {
	const command = "##[add-mask]a ##vso[task.setvariable variable=PATH]b ###[error]c"
	harmless := func(t *testing.T, text string) {
		t.Helper()
		assert.Contains(t, text, "task.setvariable")
		assert.NotRegexp(t, `##(vso)?\[|(?m)^\s*::`, text)
	}
	for _, output := range []string{"json", "yaml"} {
		t.Run(output, func(t *testing.T) {
			l := slotLease("lock.x", "a", map[string]string{api.SuccessorAnnotation: command})
			b := newByHand(l, edited(waiting("b", "lock.x"), func(p *corev1.Pod) { p.Status.Conditions[0].Message = command }))
			b.status(t, screen{output: output}, "shop")
			harmless(t, b.out.String())

			var out bytes.Buffer
			_, err := tell(&out, []check.Finding{{Check: "pods", Result: check.Failed, Says: command + "\n::error::forged", Do: command}}, output)
			require.NoError(t, err)
			harmless(t, out.String())
			var read struct {
				Checks []check.Finding `json:"checks"`
			}
			require.NoError(t, yaml.Unmarshal(out.Bytes(), &read))
			require.Len(t, read.Checks, 1)
			if output == "json" {
				require.NoError(t, json.Unmarshal(out.Bytes(), &read))
				assert.Equal(t, command, read.Checks[0].Do, "a program reads the text unchanged")
			}
		})
	}
}

func TestStatusCommandPrintsNoControlCharacters(t *testing.T) {
	evil := "\x1b[2J\x1b[Hfree\nlock.other: lock, nobody holds\x1b[8m"
	for _, key := range []string{api.DoneAnnotation, api.TokenAnnotation, api.SuccessorAnnotation} {
		l := slotLease("once.schema", "a", map[string]string{key: evil})
		l.Annotations[key] = evil
		b := newByHand(l)
		b.status(t, screen{words: true}, "shop")
		b.status(t, screen{output: "wide"}, "shop")
		assert.NotContains(t, b.out.String(), "\x1b", key)
		assert.False(t, strings.Contains(b.out.String(), "\nlock.other:"), key)
	}
}

func TestStatusCommandPrintsSlotsDespiteUnencodableTimes(t *testing.T) {
	for _, output := range []string{"", "json", "yaml"} {
		l := slotLease("lock.x", "a", nil)
		l.Annotations[api.ServingAnnotation] = "2026-11-23T00:00:00+24:00"
		b := newByHand(l)
		b.status(t, screen{output: output}, "shop")
		assert.Contains(t, b.out.String(), "lock.x", output)
	}
}

func TestExplainCommandPrintsForeignTextsOnSingleLines(t *testing.T) {
	evil := "x\nverdict: free\tnow\u202e"
	l := slotLease("lock.x", "a", nil)
	l.Annotations[api.TokenAnnotation], l.Annotations[api.PausedAnnotation] = evil, evil
	l.Spec.HolderIdentity = new(evil + "_uid")
	pod := corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "a", Labels: map[string]string{api.GatedLabel: api.Gated}, Annotations: map[string]string{api.LockAnnotation: evil}}}
	pod.Status.Conditions = []corev1.PodCondition{{Type: api.ReadyCondition, Reason: evil, Message: evil}}
	e := &explainer{
		namespace: "shop", asked: &pod, pods: []corev1.Pod{pod}, slots: []string{"lock.x"}, leases: map[string]*coordinationv1.Lease{"lock.x": l},
		events: []corev1.Event{{Reason: evil, Message: evil, InvolvedObject: corev1.ObjectReference{Kind: "Pod", Name: evil}}},
		unread: []string{evil},
	}
	text := e.report()
	assert.NotContains(t, text, "\u202e")
	assert.NotContains(t, text, "\nverdict")
	assert.Contains(t, text, "events:")
}

func TestCommandsWriteNoControlCharacters(t *testing.T) {
	var out bytes.Buffer
	n, err := stdio{nil, &out, &out}.harmless().out.Write([]byte("a\x1b[2J\tb\r\n"))
	require.NoError(t, err)
	assert.Equal(t, 9, n)
	assert.Equal(t, "a?[2J\tb?\n", out.String())
}

// A tenant can write Events and conditions of megabytes.
func TestExplainCommandShortensHugeTextsOfTenants(t *testing.T) {
	huge := strings.Repeat("é", 1<<19)
	shown := answer(t, true, "Deployment/biller", together(deployment(claim, claim), leaseOf("a"),
		gatedPod("a", corev1.ConditionTrue, "Holding", huge), event("Pod", "a", "FailedCreate", "metaparticle- "+huge))...)
	for line := range strings.Lines(shown) {
		assert.Less(t, len(line), 20<<10)
	}
	assert.Contains(t, shown, "a  holds singleton.deployment.biller")
}

// A tenant makes many Leases whose holder never yields. These Leases must not push the Leases of other
// namespaces out of the output.
func TestRecoverCommandNamesStubbornHoldersOfEachNamespace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		honest := slotLease("lock.a", "b", nil)
		all := []client.Object{honest}
		for n := range 30 {
			forged := slotLease(fmt.Sprintf("lock.f%02d", n), "a", nil)
			forged.Namespace = "attacker"
			all = append(all, forged)
		}
		w := newRestored(t, 5000, all...)
		code, err := recovering{cluster: cluster{WithWatch: w.WithWatch}, std: stdio{out: &w.out, err: &w.err}, timeout: time.Second}.await(t.Context(), 6000, nil)
		require.NoError(t, err)
		assert.Equal(t, exitNot, code)
		assert.Contains(t, w.err.String(), "lock.a in shop: b still holds")
		assert.Equal(t, 10, strings.Count(w.err.String(), "in attacker: a still holds"))
		assert.Contains(t, w.err.String(), "20 more holders in attacker")
	})
}
