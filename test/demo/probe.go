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
	// every is how often a new client comes.
	every = 10 * time.Millisecond
	// patience is how long one waits: a standby holds connections during a
	// handover, and a client that gives up early would not be served at all.
	patience = 2 * time.Second
)

// probe is a stream of redis clients, run on a node of the cluster: each
// connects through the Service's address, says PING, and prints when it began
// and when it was answered. Those without an answer print nothing.
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
