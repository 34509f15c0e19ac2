// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"github.com/metaparticle-io/metaparticle/test/witness"
)

const (
	// every is the interval between the starts of two clients.
	every = 10 * time.Millisecond
	// patience is the longest time that a client waits for its connection, and then for the
	// answer. During a handover a standby lets new connections wait, so a client must not give
	// up early.
	patience = 2 * time.Second
)

// probe runs a stream of redis clients on a node of the cluster. Each client connects
// through the Service's address, sends PING, and prints the instants of its start and of
// the answer. A client without an answer prints nothing.
func probe(ctx context.Context, address string) error {
	var clients sync.WaitGroup
	defer clients.Wait()
	var mu sync.Mutex
	out := bufio.NewWriter(os.Stdout)
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		clients.Go(func() {
			began := witness.Now()
			if ping(ctx, address) != nil {
				return
			}
			mu.Lock()
			defer mu.Unlock()
			fmt.Fprintln(out, int64(began), int64(witness.Now()))
			out.Flush()
		})
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

func ping(ctx context.Context, address string) error {
	dialer := net.Dialer{Timeout: patience}
	conn, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	if _, err := conn.Write([]byte("PING\r\n")); err != nil {
		return err
	}
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err == nil && line != "+PONG\r\n" {
		err = fmt.Errorf("answered %q", line)
	}
	return err
}
