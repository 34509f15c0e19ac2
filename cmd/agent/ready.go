// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"strconv"
	"time"

	"github.com/metaparticle-io/metaparticle/api"
)

// readyWithin bounds the wait for the local API. The agent opens the port and the socket before
// it sends its first request to the API server. So a longer wait means that another process has
// the port, or that the socket cannot be created.
const readyWithin = 30 * time.Second

// readyAgain is the time between two attempts to connect. A process cannot wait for another
// process to listen on a port or a socket, so this process polls.
const readyAgain = 5 * time.Millisecond

// readyCommand runs as the postStart hook of the local API's sidecar. The kubelet starts no
// further container before the hook has ended, so the program always finds the local API.
func readyCommand(ctx context.Context, args []string) (int, error) {
	network, address := "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(api.LocalPort))
	if len(args) > 0 {
		own, err := strconv.ParseUint(args[0], 10, 16)
		switch {
		case len(args) == 1 && filepath.IsAbs(args[0]):
			network, address = "unix", args[0]
		case err != nil || len(args) > 1:
			return api.ExitUsage, fmt.Errorf("usage: agent %s [PORT | SOCKET]", api.ReadyRole)
		default:
			address = net.JoinHostPort("127.0.0.1", strconv.Itoa(int(own)))
		}
	}
	ctx, cancel := context.WithTimeout(ctx, readyWithin)
	defer cancel()
	again := time.NewTicker(readyAgain)
	defer again.Stop()
	for {
		connection, err := new(net.Dialer).DialContext(ctx, network, address)
		if err == nil {
			return 0, connection.Close()
		}
		select {
		case <-ctx.Done():
			return 1, fmt.Errorf("the local API does not listen: %w", err)
		case <-again.C:
		}
	}
}
