// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package client

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/test/cluster/lab"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/space"
)

const (
	// Role is the argument that makes the tests' program a client. The client runs
	// on a node, because the addresses of Services mean something there alone.
	Role = "client-of-a-service"
	// every is the time between two connections of the client.
	every = 10 * time.Millisecond
	// patience bounds one request. Some seconds are the cost of a busy machine.
	patience = 20 * time.Second
)

// Summary has the results of a client.
type Summary struct {
	Answered int
	// Failed has an error for each connection without a whole answer.
	Failed  []string
	Slowest time.Duration
}

// Run sends requests to the address until its input ends, each on a connection of its
// own, and prints the summary. Run tells of the first answer by an empty line.
func Run(address string, in io.Reader, out io.Writer) error {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = io.Copy(io.Discard, in)
	}()
	var sum Summary
	var mu sync.Mutex
	var requests sync.WaitGroup
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		select {
		case <-ended:
			requests.Wait()
			return json.NewEncoder(out).Encode(sum)
		case <-ticker.C:
		}
		requests.Go(func() {
			began := time.Now()
			err := request(address)
			mu.Lock()
			defer mu.Unlock()
			sum.Slowest = max(sum.Slowest, time.Since(began))
			if err != nil {
				sum.Failed = append(sum.Failed, began.Format(time.StampMilli)+": "+err.Error())
				return
			}
			if sum.Answered++; sum.Answered == 1 {
				fmt.Fprintln(out)
			}
		})
	}
}

// request sends one request on a connection of its own.
func request(address string) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	ask, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+net.JoinHostPort(address, "80"), nil)
	if err != nil {
		return err
	}
	answer, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(ask)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if _, err := io.Copy(io.Discard, answer.Body); err != nil {
		return err
	}
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("status %s", answer.Status)
	}
	return nil
}

// Client is a client on a node.
type Client struct {
	s     *space.Space
	input *io.PipeWriter
	done  chan error

	mu  sync.Mutex
	out bytes.Buffer
}

// Write takes the client's output.
func (c *Client) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.out.Write(p)
}

// Answered reports whether the client has had an answer.
func (c *Client) Answered() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.out.Len() > 0
}

// Start starts a client on the node.
func Start(s *space.Space, l *lab.Cluster, node, address string) *Client {
	s.Helper()
	self, err := os.Executable()
	require.NoError(s, err)
	in, input := io.Pipe()
	c := &Client{s: s, input: input, done: make(chan error, 1)}
	go func() { c.done <- l.Exec(s.Context(), node, in, c, os.Stderr, self, Role, address) }()
	s.Cleanup(func() { assert.NoError(s, input.Close()) })
	return c
}

// Stop stops the client and returns its results.
func (c *Client) Stop() (sum Summary) {
	c.s.Helper()
	require.NoError(c.s, c.input.Close())
	require.NoError(c.s, <-c.done)
	require.NoError(c.s, json.Unmarshal(c.out.Bytes(), &sum))
	return sum
}
