// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"encoding/json"
	"io"
	"math"
	"net/http"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// counter is a Variable with fields that this package does not know.
const counter = `{"apiVersion":"metaparticle.io/v1alpha1","kind":"Variable","future":1,
  "metadata":{"name":"hits","namespace":"shop","uid":"u-1","resourceVersion":"41","labels":{"a":"b"},"managedFields":[{"manager":"m","operation":"Apply"}]},
  "spec":{"integer":9223372036854775807,"fence":{"lock":"lock.a","epoch":1,"token":9007199254740993},"write":"p.1","keyed":1,
    "keys":[{"key":"k","add":-1,"result":2,"pod":"p","at":1}],"other":[1]}}`

func TestUnknownFieldsOfVariablesSurviveARoundTrip(t *testing.T) {
	v, err := decodeVariable([]byte(counter), "hits")
	require.NoError(t, err)
	assert.EqualValues(t, math.MaxInt64, *v.Integer)
	assert.Nil(t, v.Value)
	assert.Equal(t, &Fence{Lock: "lock.a", Epoch: 1, Token: 9007199254740993}, v.Fence)
	assert.Equal(t, []Key{{Key: "k", Add: -1, Result: 2, Pod: "p", At: 1}}, v.Keys)
	text, err := json.Marshal(v)
	require.NoError(t, err)
	assert.JSONEq(t, counter, string(text))
	next := v.Clone()
	*next.Integer, next.Fence.Token, next.Keys[0].Key = 1, 1, "x"
	assert.EqualValues(t, math.MaxInt64, *v.Integer)
	assert.EqualValues(t, 9007199254740993, v.Fence.Token)
	assert.Equal(t, "k", v.Keys[0].Key)
}

func TestVariableUpdateRequiresTheVersionThatWasRead(t *testing.T) {
	var path, sent string
	client := newServer(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		path, sent = r.Method+" "+r.URL.Path, string(body)
		_, _ = io.WriteString(w, `{"metadata":{"name":"hits","uid":"u-1","resourceVersion":"42"},"spec":{"value":"x"}}`)
	}).client(t)
	v, err := decodeVariable([]byte(counter), "hits")
	require.NoError(t, err)
	stored, err := client.UpdateVariable(t.Context(), v)
	require.NoError(t, err)
	assert.Equal(t, "PUT /apis/metaparticle.io/v1alpha1/namespaces/shop/variables/hits", path)
	assert.JSONEq(t, counter, sent)
	assert.Equal(t, "42", stored.ResourceVersion)
	assert.Equal(t, "x", *stored.Value)
	v.UID = ""
	_, err = client.UpdateVariable(t.Context(), v)
	require.ErrorIs(t, err, ErrNoUID)
	assert.True(t, Refused(err))
}

func TestMalformedVariableIsAnError(t *testing.T) {
	for name, body := range map[string]string{
		"no uid":       `{"metadata":{"name":"hits","resourceVersion":"1"}}`,
		"no version":   `{"metadata":{"name":"hits","uid":"u"}}`,
		"another name": `{"metadata":{"name":"other","uid":"u","resourceVersion":"1"}}`,
		"a fraction":   `{"metadata":{"name":"hits","uid":"u","resourceVersion":"1"},"spec":{"integer":1.5}}`,
		"too large":    `{"metadata":{"name":"hits","uid":"u","resourceVersion":"1"},"spec":{"integer":9223372036854775808}}`,
		"no object":    `[]`,
	} {
		_, err := serve(t, http.StatusOK, body).GetVariable(t.Context(), "hits")
		assert.ErrorIs(t, err, ErrMalformed, name)
		assert.False(t, Refused(err), name)
	}
	_, err := serve(t, http.StatusNotFound, `{"reason":"NotFound"}`).GetVariable(t.Context(), "hits")
	assert.ErrorIs(t, err, ErrNotFound)
}

func TestWatchDeliversVariables(t *testing.T) {
	event := func(kind, version string) string {
		return `{"type":"` + kind + `","object":{"metadata":{"name":"hits","uid":"u","resourceVersion":"` + version + `"},"spec":{}}}` + "\n"
	}
	var seen []string
	watch := func(body string) error {
		seen = nil
		return serve(t, http.StatusOK, body).WatchVariable(t.Context(), "hits", "41", func(v *Variable, gone bool) {
			text := v.ResourceVersion
			if gone {
				text += " gone"
			}
			seen = append(seen, text)
		})
	}
	require.NoError(t, watch(event("ADDED", "42")+`{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"50"}}}`+event("MODIFIED", "51")+event("DELETED", "52")))
	assert.Equal(t, []string{"42", "51", "52 gone"}, seen)
	require.ErrorIs(t, watch(`{"type":"ERROR","object":{"code":410}}`), ErrGone)
	assert.ErrorIs(t, watch(`{"type":"MODIFIED","object":{"metadata":{"name":"other","uid":"u","resourceVersion":"1"}}}`), ErrMalformed)
}

func FuzzVariableSurvivesARoundTrip(f *testing.F) {
	f.Add([]byte(counter))
	f.Add([]byte(`{"metadata":{"name":"hits","uid":"u","resourceVersion":"1"},"spec":{"value":""}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		v, err := decodeVariable(data, "hits")
		if err != nil {
			return
		}
		text, err := json.Marshal(v)
		require.NoError(t, err)
		again, err := decodeVariable(text, "hits")
		require.NoError(t, err)
		require.Equal(t, v.Value, again.Value)
		require.Equal(t, v.Integer, again.Integer)
		require.Equal(t, v.Fence, again.Fence)
		require.Equal(t, len(v.Keys), len(again.Keys))
		require.Equal(t, v.ResourceVersion, again.ResourceVersion)
	})
}
