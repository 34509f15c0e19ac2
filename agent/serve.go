// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
)

// Serve runs the agent's end of the gate and the agent's loop, and returns the error with which
// the agent's process ends. When the gate or the loop returns, Serve stops the other, and waits
// until both have returned. If the gate returns an error, Serve does not wait for the loop, which
// may be blocked. A wait would be unsafe: with the gate "pod", the kubelet stops the application
// only after the agent's process has ended.
func Serve(ctx context.Context, gate, loop func(ctx context.Context) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	gates, loops := make(chan error, 1), make(chan error, 1)
	go func() { gates <- gate(ctx) }()
	go func() { loops <- loop(ctx) }()
	var first, other error
	select {
	case first = <-gates:
		if first != nil {
			return first
		}
		cancel()
		other = <-loops
	case first = <-loops:
		cancel()
		other = <-gates
	}
	if first == nil && !errors.Is(other, context.Canceled) {
		return other
	}
	return first
}
