// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sync/atomic"
	"time"

	"github.com/metaparticle-io/metaparticle/test/e2e/record"
)

// localAPI is the address of the local API in each pod.
const localAPI = "http://localhost:13131/v1/"

// lostCode is the exit code of a program that lost its hold.
const lostCode = 75

// line is one line of the stream about a hold.
type line struct {
	Claim        string  `json:"claim"`
	Hold         string  `json:"hold"`
	Slot         string  `json:"slot"`
	FencingToken string  `json:"fencingToken"`
	State        string  `json:"state"`
	GoodUntil    float64 `json:"goodUntil"`
}

// bidAndFollow bids for the claim. Further connections follow the state of the claim. The returned
// function gives the hold back. If a stop signal ends the wait, the error is nil.
func bidAndFollow(ctx context.Context, c config) (giveBack func() error, err error) {
	if c.socket != "" {
		callBy(c.socket)
	}
	for range c.follow {
		go follow(c.bid)
	}
	giveBack, err = bid(ctx, c.bid)
	if ctx.Err() != nil {
		err = nil
	}
	return giveBack, err
}

// callBy sends all later calls to the agent's socket instead of the agent's port.
func callBy(socket string) {
	http.DefaultTransport = &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}
}

// bid waits until the local API gives the program a hold of the claim. From then on, the end of the
// hold ends the program immediately. The returned function gives the hold back.
func bid(ctx context.Context, claim string) (giveBack func() error, err error) {
	waiting, cancel := context.WithCancel(context.Background())
	stop := context.AfterFunc(ctx, cancel) // a stop signal ends the wait for the answer
	// The stream stays open for as long as the program runs.
	answer, err := send(waiting, http.MethodPost, claim+"/holds?stream=true&wait=24h") //nolint:bodyclose // see above
	if err != nil {
		return nil, err
	}
	lines := json.NewDecoder(answer.Body)
	var first line
	if err := lines.Decode(&first); err != nil || first.State != "held" {
		return nil, fmt.Errorf("bid for %s: %s, %+v, %w", claim, answer.Status, first, err)
	}
	stop()
	os.Setenv("METAPARTICLE_SLOT", first.Slot)
	os.Setenv("METAPARTICLE_FENCING_TOKEN", first.FencingToken)
	if !disobeys {
		go obey(lines, first)
	}
	return func() error { return release(claim, first.Hold) }, nil
}

// send sends one call, and leaves the body of the answer open.
func send(ctx context.Context, method, path string) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, method, localAPI+path, http.NoBody)
	if err != nil {
		return nil, err
	}
	return http.DefaultClient.Do(request)
}

// returning reports that the program gives its hold back.
var returning atomic.Bool

// disobeys reports that the program ignores the end of its hold.
var disobeys bool

// obey ends the program when a line reports the end of the hold, or when no line has prolonged the
// hold in time.
func obey(lines *json.Decoder, first line) {
	until := make(chan time.Duration)
	go func() {
		for last := deadline(first); ; {
			select {
			case last = <-until:
			case <-time.After(max(last-record.Now(), 0)):
				os.Exit(lostCode)
			}
		}
	}()
	for {
		var next line
		err := lines.Decode(&next)
		if returning.Load() {
			return // the program ends by itself
		}
		if err != nil || next.State != "held" {
			fmt.Fprintf(os.Stderr, "app: the hold ends: %+v, %v\n", next, err)
			os.Exit(lostCode)
		}
		until <- deadline(next)
	}
}

// follow reads the state of the claim for as long as the program runs. Each call of follow needs a
// separate connection, because the stream never ends.
func follow(claim string) {
	answer, err := send(context.Background(), http.MethodGet, claim+"?watch=true")
	if err != nil {
		fmt.Fprintln(os.Stderr, "app: follow:", err)
		return
	}
	defer answer.Body.Close()
	_, _ = io.Copy(io.Discard, answer.Body)
}

// release gives a hold back.
func release(claim, hold string) error {
	returning.Store(true)
	answer, err := send(context.Background(), http.MethodDelete, claim+"/holds/"+hold)
	if err != nil {
		return err
	}
	return answer.Body.Close()
}

// deadline returns the instant by which the program needs the next line.
func deadline(of line) time.Duration {
	return time.Duration(of.GoodUntil * float64(time.Second))
}
