// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package client

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/test/cluster/lab"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/space"
)

const (
	// Role is the argument that makes the tests' program a client. The client runs on a
	// node, because a Service's address works only there.
	Role = "client-of-a-service"
	// Anew and Kept are the kinds of clients. A client of the kind Anew opens a
	// connection for each request. A client of the kind Kept sends all requests over one
	// connection. If an address has no port, both kinds use port 80.
	Anew, Kept = "anew", "kept"
	// Query is the kind of a client that sends a datagram from a port of its own for each request, and
	// waits for the answer, as a resolver does.
	Query = "query"
	// every is the time between two requests of the client.
	every = 10 * time.Millisecond
	// patience bounds one request. On a busy machine a request may take some seconds.
	patience = 20 * time.Second
)

// Summary has the results of a client.
type Summary struct {
	Answered int
	// Failed has an error for each failed request. A request fails if no whole answer arrives, or
	// if the answer is an error.
	Failed  []string
	Slowest time.Duration
	// Paused is the longest delay with which a client of the kind Anew sent a request. Such a client
	// waits for no answer, so only a machine without processor time delays the client.
	Paused time.Duration
}

// Refused returns the number of requests whose connection was refused. The other requests in Failed
// got no whole answer, or got an error as the answer.
func (s Summary) Refused() (count int) {
	for _, failed := range s.Failed {
		if strings.Contains(failed, "connection refused") {
			count++
		}
	}
	return count
}

// Run sends requests to the address until its input ends, and prints the summary. The
// kind is Anew, Kept or Query. At the first answer Run prints an empty line, so that
// [Client.Answered] reports true.
func Run(kind, address string, in io.Reader, out io.Writer) error {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = io.Copy(io.Discard, in)
	}()
	r := run{address: address, out: out}
	if _, _, err := net.SplitHostPort(address); err != nil {
		r.address = net.JoinHostPort(address, "80")
	}
	send := r.anew
	if kind == Query {
		send = r.query
	}
	if kind == Kept {
		conn, err := net.DialTimeout("tcp", r.address, patience) //nolint:noctx // the time is bounded
		if err != nil {
			return err
		}
		defer conn.Close()
		send = r.over(conn)
	}
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for last := time.Now(); ; {
		select {
		case <-ended:
			r.requests.Wait()
			return json.NewEncoder(out).Encode(r.sum)
		case <-ticker.C:
			now := time.Now()
			r.sends(now.Sub(last))
			last = now
			send()
		}
	}
}

// run is one call of [Run], with its results so far.
type run struct {
	address  string
	out      io.Writer
	requests sync.WaitGroup
	mu       sync.Mutex
	sum      Summary
}

// sends takes the time between two requests into the summary.
func (r *run) sends(between time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sum.Paused = max(r.sum.Paused, between-every)
}

// anew sends a request on a connection of its own, and does not wait for the answer.
func (r *run) anew() {
	r.requests.Go(func() {
		began := time.Now()
		conn, err := net.DialTimeout("tcp", r.address, patience) //nolint:noctx // the time is bounded
		if err == nil {
			defer conn.Close()
			err = request(conn, bufio.NewReader(conn))
		}
		r.note(began, err)
	})
}

// query sends a datagram, and does not wait for the answer.
func (r *run) query() {
	r.requests.Go(func() {
		began := time.Now()
		conn, err := net.Dial("udp", r.address) //nolint:noctx // nothing waits
		if err == nil {
			defer conn.Close()
			err = ask(conn)
		}
		r.note(began, err)
	})
}

// ask sends a datagram, and reads the answer. A lost datagram is a failure, so ask does not repeat it.
func ask(conn net.Conn) error {
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	if _, err := io.WriteString(conn, "query"); err != nil {
		return err
	}
	_, err := conn.Read(make([]byte, 16))
	return err
}

// over returns a function that sends a request on the connection, and waits for the
// answer. After a failed request the function does nothing.
func (r *run) over(conn net.Conn) func() {
	reader, broken := bufio.NewReader(conn), false
	return func() {
		if broken {
			return
		}
		began := time.Now()
		err := request(conn, reader)
		r.note(began, err)
		broken = err != nil
	}
}

func (r *run) note(began time.Time, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sum.Slowest = max(r.sum.Slowest, time.Since(began))
	if err != nil {
		r.sum.Failed = append(r.sum.Failed, began.Format(time.StampMilli)+": "+err.Error())
		return
	}
	if r.sum.Answered++; r.sum.Answered == 1 {
		fmt.Fprintln(r.out)
	}
}

// request sends a request, and reads the whole answer.
func request(conn net.Conn, reader *bufio.Reader) error {
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: service\r\n\r\n"); err != nil {
		return err
	}
	answer, err := http.ReadResponse(reader, nil)
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

// Client is a process that runs on a node, sends requests to a Service, and counts the answers.
type Client struct {
	s     *space.Space
	input *io.PipeWriter
	done  chan error

	mu  sync.Mutex
	out bytes.Buffer
}

// Write keeps the client's output.
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
func Start(s *space.Space, l *lab.Cluster, node, kind, address string) *Client {
	s.Helper()
	self, err := os.Executable()
	require.NoError(s, err)
	in, input := io.Pipe()
	c := &Client{s: s, input: input, done: make(chan error, 1)}
	go func() { c.done <- l.Exec(s.Context(), node, in, c, os.Stderr, self, Role, kind, address) }()
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
