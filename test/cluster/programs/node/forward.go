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

// forward accepts connections from a listener, and forwards them to an address. The process
// inherits the listener as file 3:
//
//	forward ADDRESS
//
// The listener belongs to the host's network namespace, in which another process opened it. The
// process itself runs in the cluster's network namespace, so its outgoing connections belong to
// the cluster. The process ends with the cluster.
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

// join copies bytes in both directions until both ends have finished.
func join(host *net.TCPConn, address string) {
	defer host.Close()
	dialed, err := new(net.Dialer).DialContext(context.Background(), "tcp", address)
	if err != nil {
		// The server is down, so join only closes the caller's connection.
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
		// If one direction fails, pipe closes both connections immediately.
		_ = to.Close()
		_ = from.Close()
		return
	}
	_ = to.CloseWrite()
}
