// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
)

func TestAgentReturnsTheErrorOfGateOrLoop(t *testing.T) {
	broken := errors.New("broken")
	ends := func(err error) func(context.Context) error { return func(context.Context) error { return err } }
	lasts := func(err error) func(context.Context) error {
		return func(ctx context.Context) error { <-ctx.Done(); return err }
	}
	for name, test := range map[string]struct {
		gate, loop func(context.Context) error
		want       error
	}{
		"gate ends":          {ends(nil), lasts(context.Canceled), nil},
		"gate fails":         {ends(broken), lasts(context.Canceled), broken},
		"loop ends":          {lasts(nil), ends(nil), nil},
		"loop fails":         {lasts(nil), ends(broken), broken},
		"gate fails on stop": {lasts(broken), ends(nil), broken},
		"loop fails on stop": {ends(nil), lasts(broken), broken},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				assert.Equal(t, test.want, Serve(t.Context(), test.gate, test.loop))
			})
		})
	}
}

// With the gate "pod" the kubelet stops the application only after the agent's process has
// ended. So the process must not wait for a blocked loop.
func TestAgentReturnsGateErrorDespiteABlockedLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broken, blocked := errors.New("broken"), make(chan struct{})
		defer close(blocked)
		loop := func(context.Context) error { <-blocked; return nil }
		assert.Equal(t, broken, Serve(t.Context(), func(context.Context) error { return broken }, loop))
	})
}
