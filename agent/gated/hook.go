// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package gated

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/metaparticle-io/metaparticle/api"
)

// HTTPHook carries out a hook that sends an HTTP request. The argument "podIP" is the address of the
// pod.
type HTTPHook func(ctx context.Context, get api.HTTPGetAction, podIP string) error

// Handle carries out one lifecycle hook that is no command, as the kubelet does in other pods. The
// hook runs in a separate process, so that the shim neither waits for the hook nor needs more memory.
func Handle(ctx context.Context, args []string, get HTTPHook) (int, error) {
	var h api.Handler
	if len(args) != 1 {
		return api.ExitUsage, errors.New("usage: agent handle JSON")
	}
	if err := json.Unmarshal([]byte(args[0]), &h); err != nil {
		return api.ExitUsage, fmt.Errorf("agent handle: %w", err)
	}
	if err := handle(ctx, h, get); err != nil {
		fmt.Println(err)
		return 1, nil
	}
	return 0, nil
}

func handle(ctx context.Context, h api.Handler, get HTTPHook) error {
	switch {
	case h.HTTPGet != nil:
		return get(ctx, *h.HTTPGet, os.Getenv(api.PodIPEnv))
	case h.Sleep != nil:
		select {
		case <-time.After(time.Duration(h.Sleep.Seconds) * time.Second):
		case <-ctx.Done():
		}
		return ctx.Err()
	case h.TCPSocket != nil:
		// Kubernetes accepts a tcpSocket hook, but the kubelet has never carried one out. So
		// the hook fails here, as it does in the kubelet.
		return errors.New("invalid handler: tcpSocket")
	}
	return errors.New("invalid handler")
}
