// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Command local prints how many calls of the local API an agent answers, and how long the calls
// take. The command also prints the agent's memory while a hundred connections are open. The agent
// is the real binary, as in its image. The command needs no cluster: a minimal API server is in the
// command's own process.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/metaparticle-io/metaparticle/tools/gobuild"
)

// port is the port of the local API in this benchmark. The usual port may be in use on this
// machine.
const port = "13931"

// base is the address of the claim in the local API.
const base = "http://127.0.0.1:" + port + "/v1/lock/a"

func main() {
	ctx, cancel := context.WithCancel(context.Background())
	err := run(ctx)
	cancel()
	if err != nil {
		fmt.Fprintln(os.Stderr, "local:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	lasts := flag.Duration("for", 3*time.Second, "the time of each row")
	flag.Parse()
	dir, err := os.MkdirTemp("", "local")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	binary := filepath.Join(dir, "agent")
	build := exec.CommandContext(ctx, "go", gobuild.Agent.Arguments("./cmd/agent", binary, "dev")...)
	build.Dir = ".."
	if build.Env, err = gobuild.Environment(ctx); err != nil {
		return err
	}
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build the agent: %w: %s", err, out)
	}
	environment, err := serve(dir)
	if err != nil {
		return err
	}
	agent := exec.CommandContext(ctx, binary, "api", "-claims=lock/a", "-lease-duration=30s", "-port="+port, "-credentials="+dir)
	agent.Env, agent.Stderr = environment, io.Discard
	if err := agent.Start(); err != nil {
		return err
	}
	defer func() { _ = agent.Wait() }()
	defer func() { _ = agent.Process.Kill() }()
	if out, err := exec.CommandContext(ctx, binary, "ready", port).CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	fmt.Println("Calls of the local API, over loopback, each client with one connection.")
	fmt.Println("\n| call | clients | per second | p50 ms | p99 ms |\n|---|---|---|---|---|")
	state := call{"the state of a lock that no pod holds", http.MethodGet, base}
	weights := []string{weight(agent.Process.Pid, "agent just after its start")}
	if err := state.rows(ctx, *lasts); err != nil {
		return err
	}
	hold, err := acquire(ctx)
	if err != nil {
		return err
	}
	for _, c := range []call{
		{"the state of a lock that the pod holds", http.MethodGet, base},
		{"a heartbeat", http.MethodPut, base + "/holds/" + hold},
		{"a bid that finds the lock held", http.MethodPost, base + "/holds"},
	} {
		if err := c.rows(ctx, *lasts); err != nil {
			return err
		}
	}
	if err := follow(ctx); err != nil {
		return err
	}
	weights = append(weights, weight(agent.Process.Pid, "agent with 100 connections that follow the lock, after the calls above"))
	fmt.Println("\n| memory of the agent in kB | resident | anonymous part |\n|---|---|---|\n" + strings.Join(weights, "\n"))
	return nil
}

// acquire bids for the lock, and returns the number of the hold.
func acquire(ctx context.Context) (string, error) {
	answer, err := send(ctx, http.DefaultClient, http.MethodPost, base+"/holds?heartbeat=5m")
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	var of struct{ Hold string }
	if err := json.NewDecoder(answer.Body).Decode(&of); err != nil || of.Hold == "" {
		return "", fmt.Errorf("bid: %s: %w", answer.Status, err)
	}
	return of.Hold, nil
}

// call is one kind of call to the local API.
type call struct{ name, method, url string }

func (c call) rows(ctx context.Context, lasts time.Duration) error {
	for _, clients := range []int{1, 10, 100} {
		times, err := c.repeat(ctx, clients, lasts)
		if err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
		slices.Sort(times)
		at := func(part float64) float64 {
			return float64(times[int(part*float64(len(times)-1))]) / float64(time.Millisecond)
		}
		fmt.Printf("| %s | %d | %.0f | %.2f | %.2f |\n", c.name, clients, float64(len(times))/lasts.Seconds(), at(.5), at(.99))
	}
	return nil
}

// repeat sends the call again and again from several clients at once, and returns how long each
// call took.
func (c call) repeat(ctx context.Context, clients int, lasts time.Duration) (times []time.Duration, err error) {
	var mu sync.Mutex
	var group sync.WaitGroup
	end := time.Now().Add(lasts)
	for range clients {
		group.Go(func() {
			var own []time.Duration
			client := &http.Client{Transport: &http.Transport{}}
			defer client.CloseIdleConnections()
			for time.Now().Before(end) {
				began := time.Now()
				if failed := c.once(ctx, client); failed != nil {
					mu.Lock()
					err = failed
					mu.Unlock()
					return
				}
				own = append(own, time.Since(began))
			}
			mu.Lock()
			times = append(times, own...)
			mu.Unlock()
		})
	}
	group.Wait()
	return times, err
}

// once sends the call, and reads its answer.
func (c call) once(ctx context.Context, client *http.Client) error {
	answer, err := send(ctx, client, c.method, c.url)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode >= http.StatusInternalServerError {
		return fmt.Errorf("status %s", answer.Status)
	}
	_, err = io.Copy(io.Discard, answer.Body)
	return err
}

// send sends one call, and leaves the body of the answer open.
func send(ctx context.Context, client *http.Client, method, url string) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, method, url, http.NoBody)
	if err != nil {
		return nil, err
	}
	return client.Do(request)
}

// follow opens a hundred connections that follow the lock, until the command ends.
func follow(ctx context.Context) error {
	for range 100 {
		answer, err := send(ctx, &http.Client{Transport: &http.Transport{}}, http.MethodGet, base+"?watch=true")
		if err != nil {
			return err
		}
		context.AfterFunc(ctx, func() { answer.Body.Close() })
		if _, err := bufio.NewReader(answer.Body).ReadString('\n'); err != nil {
			return err
		}
	}
	<-time.After(10 * time.Second) // two renewals come in 10 s, and every connection sees both
	return nil
}

// weight returns a row of the benchmark's table: the resident and the anonymous memory of a
// process, in kB.
func weight(pid int, when string) string {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return err.Error()
	}
	var resident, anonymous int
	for line := range strings.Lines(string(status)) {
		_, _ = fmt.Sscanf(line, "VmRSS: %d kB", &resident)
		_, _ = fmt.Sscanf(line, "RssAnon: %d kB", &anonymous)
	}
	return fmt.Sprintf("| %s | %d | %d |", when, resident, anonymous)
}
