// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestRestIsWhatTheAnnotationsAskForApartFromMistakes(t *testing.T) {
	for name, c := range map[string]struct {
		annotations map[string]string
		// rest are annotations with the same request; nil if the rest is unknown.
		rest map[string]string
	}{
		"setting": {
			map[string]string{SingletonAnnotation: "true", LeaseDurationAnnotation: "30", OnLossAnnotation: "restart"},
			map[string]string{SingletonAnnotation: "true", OnLossAnnotation: "restart"},
		},
		"misspelt claim": {
			map[string]string{Prefix + "singelton": "writer"}, map[string]string{SingletonAnnotation: "writer"},
		},
		"misspelt claim with a wrong value": {
			map[string]string{Prefix + "singelton": "yes"}, map[string]string{SingletonAnnotation: "true"},
		},
		"misspelt setting": {
			map[string]string{LockAnnotation: "a", Prefix + "gatee": "pod"}, map[string]string{LockAnnotation: "a", GateAnnotation: "pod"},
		},
		"unknown key": {map[string]string{LockAnnotation: "a", Prefix + "colour": "red"}, map[string]string{LockAnnotation: "a"}},
		"wrong claim": {
			map[string]string{SemaphoreAnnotation: "pool"}, map[string]string{SemaphoreAnnotation: "pool=3"},
		},
		"wrong gate":           {map[string]string{LockAnnotation: "a", GateAnnotation: "pdo"}, nil},
		"misspelt, wrong gate": {map[string]string{LockAnnotation: "a", Prefix + "gat": "pdo"}, nil},
		"wrong containers":     {map[string]string{LockAnnotation: "a", ContainersAnnotation: "A b"}, nil},
		"wrong work":           {map[string]string{OnceAnnotation: "maybe"}, nil},
		"contradiction":        {map[string]string{LockAnnotation: "a", SemaphoreAnnotation: "pool=3"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Parse(c.annotations)
			mistakes, ok := errors.AsType[Mistakes](err)
			require.True(t, ok)
			got, known := mistakes.Rest(c.annotations)
			assert.Equal(t, c.rest != nil, known)
			if c.rest == nil {
				assert.False(t, got.Injects())
				return
			}
			want, err := Parse(c.rest)
			require.NoError(t, err)
			assert.Equal(t, want, got)
		})
	}
}
