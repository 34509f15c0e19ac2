// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestYieldAnnotationSurvivesARoundTrip(t *testing.T) {
	for value, want := range map[string]Yield{
		"":                   {},
		"4711":               {Hold: "4711"},
		"4711 biller-1_u":    {Hold: "4711", Successor: "biller-1_u"},
		"4711 biller-1_u  x": {Hold: "4711", Successor: "biller-1_u  x"},
		" biller-1_u":        {Successor: "biller-1_u"},
	} {
		assert.Equal(t, want, ParseYield(value), "%q", value)
		assert.Equal(t, value, want.String())
	}
}

func TestUnknownPauseValueCountsAsAPause(t *testing.T) {
	for _, c := range []struct {
		annotations map[string]string
		want        Pause
		known       bool
	}{
		{nil, "", true},
		{map[string]string{PausedAnnotation: "hold"}, PauseHold, true},
		{map[string]string{PausedAnnotation: "stop"}, PauseStop, true},
		{map[string]string{PausedAnnotation: "recover"}, PauseRecover, true},
		{map[string]string{PausedAnnotation: ""}, PauseHold, true},
		{map[string]string{PausedAnnotation: "Stop"}, "Stop", false},
		{map[string]string{PausedAnnotation: "false"}, "false", false},
	} {
		p := PauseOf(c.annotations)
		assert.Equal(t, c.want, p)
		assert.Equal(t, c.known, p.Known(), "%v", c.annotations)
	}
}
