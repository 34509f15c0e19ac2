// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/metaparticle-io/metaparticle/api"
)

func TestStatusCommandPrintsNoControlCharacters(t *testing.T) {
	evil := "\x1b[2J\x1b[Hfree\nlock.other: lock, nobody holds\x1b[8m"
	for _, key := range []string{api.DoneAnnotation, api.TokenAnnotation, api.SuccessorAnnotation} {
		l := slotLease("once.schema", "a", map[string]string{key: evil})
		l.Annotations[key] = evil
		b := newByHand(l)
		b.status(t, screen{}, "shop")
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
