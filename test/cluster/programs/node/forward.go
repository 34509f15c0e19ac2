// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
)

// forward copies connections between a listener it inherits as file 3 and an
// address:
//
//	forward ADDRESS
//
// The listener belongs to the network namespace it was opened in (the host's),
// the outgoing connections to the one this process runs in (the cluster's).
// That makes the way in a process of the cluster, which ends with it.
func forward(args []string) error {
	if len(args) != 1 {
		return errors.New("usage: forward ADDRESS")
	}
	listener, err := net.FileListener(os.NewFile(3, "listener"))
	if err != nil {
		return fmt.Errorf("inherit listener: %w", err)
	}
	for {
		conn, err := listener.Accept()
		if err != nil {
			return fmt.Errorf("accept: %w", err)
		}
		go join(conn.(*net.TCPConn), args[0])
	}
}

// join copies both ways until both ends have finished.
func join(host *net.TCPConn, address string) {
	defer host.Close()
	dialed, err := new(net.Dialer).DialContext(context.Background(), "tcp", address)
	if err != nil {
		// The server is down: the caller sees a connection that ends, as with the server itself.
		return
	}
	inner := dialed.(*net.TCPConn)
	defer inner.Close()
	var both sync.WaitGroup
	both.Go(func() { pipe(inner, host) })
	both.Go(func() { pipe(host, inner) })
	both.Wait()
}

func pipe(to, from *net.TCPConn) {
	if _, err := io.Copy(to, from); err != nil {
		// A broken direction breaks the connection: end both at once.
		_ = to.Close()
		_ = from.Close()
		return
	}
	_ = to.CloseWrite()
}
