// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Command enroll prints the cost of enroll in a namespace of many slots. The figures are
// the time, the allocations and the requests of one reconciliation, and of a cold start.
// The command needs no cluster. A minimal API server (serve) and the replica that enrolls
// (replica) are separate processes, so that the measured memory is the replica's. The
// replica has the same manager, caches and clients as the webhook, but over HTTP and
// JSON. The webhook itself uses protobuf, which is cheaper.
//
// A real API server would add to the time of each request.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
)

func main() {
	var err error
	ctx := context.Background()
	switch args := os.Args[1:]; {
	case len(args) == 2 && args[0] == "serve":
		err = serve(args[1])
	case len(args) == 3 && args[0] == "replica":
		err = replica(ctx, args[1], args[2])
	default:
		err = run(ctx)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "enroll:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	sizes := flag.String("slots", "10,100,1000,10000", "slots of the namespace, each of a pod of its own, all of one service account")
	flag.Parse()
	fmt.Println("enroll in a namespace of n gated pods of one service account, each with a slot of its own.")
	var starts, events []string
	for size := range strings.SplitSeq(*sizes, ",") {
		first, again, err := measure(ctx, size)
		if err != nil {
			return fmt.Errorf("%s slots: %w", size, err)
		}
		starts = append(starts,
			fmt.Sprintf("| %s | first installation: no Lease or Role exists | %s |", size, first.Start.cells()),
			fmt.Sprintf("| %s | restart: all Leases and Roles exist | %s |", size, again.Start.cells()))
		events = append(events,
			fmt.Sprintf("| %s | an event that requires no change | %s |", size, again.Idle.cells()),
			fmt.Sprintf("| %s | a pod with a new slot is created | %s |", size, again.Pod.cells()))
	}
	fmt.Println("\nOne event:\n\n| slots | event | ms | ms of CPU | MB allocated | requests | writes among these |\n|---|---|---|---|---|---|---|")
	fmt.Println(strings.Join(events, "\n"))
	fmt.Println("\nA cold start, from the process's start until all rights are given:\n\n" +
		"| slots | start | ms | ms of CPU | MB allocated | requests | writes among these | peak MB resident |\n|---|---|---|---|---|---|---|---|")
	fmt.Println(strings.Join(starts, "\n"))
	return nil
}

// measure starts an API server with pods. Then measure runs two replicas, one after the other, and
// returns the figures of each. The second replica must find nothing left to write.
func measure(ctx context.Context, slots string) (first, again figures, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	server := exec.CommandContext(ctx, os.Args[0], "serve", slots)
	server.Stderr = os.Stderr
	out, err := server.StdoutPipe()
	if err != nil {
		return first, again, err
	}
	if err := server.Start(); err != nil {
		return first, again, err
	}
	defer func() {
		cancel()
		_ = server.Wait()
	}()
	address, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		return first, again, fmt.Errorf("start the API server: %w", err)
	}
	for _, into := range []*figures{&first, &again} {
		command := exec.CommandContext(ctx, os.Args[0], "replica", strings.TrimSpace(address), slots)
		command.Stderr = os.Stderr
		printed, err := command.Output()
		if err != nil {
			return first, again, fmt.Errorf("replica: %w", err)
		}
		if err := json.Unmarshal(printed, into); err != nil {
			return first, again, fmt.Errorf("read what a replica printed: %w", err)
		}
	}
	if again.Start.Writes != 0 || again.Idle.Requests != 0 {
		return first, again, errors.New("the first replica left something to be done")
	}
	return first, again, nil
}

// figures are the measurements of a replica.
type figures struct {
	Start, Idle, Pod cost
}

type cost struct {
	// Milliseconds is the elapsed time, and CPU the used processor time in milliseconds.
	// Megabytes is the size of all allocations.
	Milliseconds, CPU, Megabytes float64
	Requests, Writes             int
	// Resident is the peak of the process's memory in megabytes; zero without a
	// measurement.
	Resident float64 `json:",omitempty"`
}

func (c cost) cells() string {
	cells := fmt.Sprintf("%s | %s | %s | %d | %d", short(c.Milliseconds), short(c.CPU), short(c.Megabytes), c.Requests, c.Writes)
	if c.Resident > 0 {
		cells += " | " + short(c.Resident)
	}
	return cells
}

// short formats a number below ten with two decimals, and a greater number with none.
func short(f float64) string {
	switch {
	case f == 0:
		return "0"
	case f < 10:
		return strconv.FormatFloat(f, 'f', 2, 64)
	default:
		return strconv.FormatFloat(f, 'f', 0, 64)
	}
}
