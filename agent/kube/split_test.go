// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// FuzzSplitAgreesWithEncodingJSON checks that package encoding/json finds the same fields, strings
// and errors in each valid JSON text, at each level.
func FuzzSplitAgreesWithEncodingJSON(f *testing.F) {
	for _, text := range []string{
		foreign, `null`, `{}`, ` { } `, `[1]`, `7`, `{"a":{"b":[{"c":"}"},[]],"d":"\"\\"}}`, "{ \"a\" :\t-1.5e3 ,\r\n\"b\":true}",
		`{"a":1,"a":2}`, `{"\u0061":"ä","ö":"\ud83d\ude00"}`, "{\"a\":\"\xff\"}", `{"a":null,"b":["\\",{"c":[]}]}`,
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if json.Valid(text) {
			agree(t, bytes.TrimSpace(text))
		}
	})
}

func agree(t *testing.T, text json.RawMessage) {
	t.Helper()
	var expected map[string]json.RawMessage
	err := json.Unmarshal(text, &expected)
	fields, splitErr := split(text)
	require.Equal(t, err == nil, splitErr == nil, "%s: %v, %v", text, err, splitErr)
	var expectedText string
	err = json.Unmarshal(text, &expectedText)
	ownText, ownErr := unquote(text)
	require.Equal(t, err == nil, ownErr == nil, "%s: %v, %v", text, err, ownErr)
	if err == nil {
		require.Equal(t, expectedText, ownText)
	}
	var expectedTexts map[string]string
	err = json.Unmarshal(text, &expectedTexts)
	ownTexts, ownErr := unquoteAll(text)
	require.Equal(t, err == nil, ownErr == nil, "%s: %v, %v", text, err, ownErr)
	if err == nil {
		require.Equal(t, expectedTexts, ownTexts)
	}
	require.Len(t, fields, len(expected))
	for key, value := range expected {
		require.Equal(t, string(value), string(fields[key]), key)
		agree(t, value)
	}
}

// A process that writes another Lease must not change the Leases that it has read before.
func TestDecodedLeaseKeepsNoReferenceToItsText(t *testing.T) {
	text := []byte(foreign)
	lease, err := decodeLease(text)
	require.NoError(t, err)
	before, err := json.Marshal(lease)
	require.NoError(t, err)
	clear(text)
	after, err := json.Marshal(lease)
	require.NoError(t, err)
	assert.Equal(t, string(before), string(after))
}

// The size is that of an ordinary singleton's Lease.
func BenchmarkEventOfALease(b *testing.B) {
	frame := strings.Join(strings.Fields(`{"type":"MODIFIED","object":{"kind":"Lease","apiVersion":"coordination.k8s.io/v1","metadata":{
		"name":"singleton.deployment.web","namespace":"shop","uid":"6a4d6d43-a5a5-4c2b-8a0a-f3b8a1fb1b0d","resourceVersion":"123456",
		"creationTimestamp":"2026-11-26T20:00:00Z","labels":{"metaparticle.io/managed":"true"},"annotations":{
		"metaparticle.io/address":"10.244.1.17","metaparticle.io/boot-id":"9f1cdd6c-9e26-4c3f-9a39-0a2f6c1f1a0b","metaparticle.io/hold":"3a9cf1d2",
		"metaparticle.io/revision":"7","metaparticle.io/serving-since":"2026-11-26T20:00:00.123456Z","metaparticle.io/token":"42",
		"metaparticle.io/workload":"deployment/web"}},"spec":{"holderIdentity":"web-7c6d5b9f7c-x2x9z_0b3b7a0e-1111-2222-3333-444455556666",
		"leaseDurationSeconds":30,"acquireTime":"2026-11-26T20:00:00.000000Z","renewTime":"2026-11-26T20:01:00.000000Z","leaseTransitions":42}}}`), "") + "\n"
	b.ReportAllocs()
	events := 0
	take := leaseEvents("singleton.deployment.web", func(WatchEvent) { events++ })
	require.NoError(b, readWatch(strings.NewReader(strings.Repeat(frame, b.N)), take))
	require.Equal(b, b.N, events)
}
