// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Command forward compares three ways to connect to the holder: directly, through a standby's
// forwarder, and through HAProxy in TCP mode. One execution of the command measures all these ways
// under the same offered load. Clients and forwarders share one network namespace, and the holder
// has another. The command needs root, Linux and Debian's haproxy, and no cluster.
package main

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"time"
)

// settings are the values of the flags.
type settings struct {
	rate, conns, size, streams, rounds int
	latency, throughput                time.Duration
	haproxy                            string
}

func main() {
	var err error
	switch role, rest := role(); role {
	case "holder":
		err = runHolder()
	case "forwarder":
		err = runForwarder()
	case "measure":
		err = measure(parse(rest))
	default:
		parse(os.Args[1:])
		err = enter()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "forward:", err)
		os.Exit(1)
	}
}

// role returns the role of this process in the benchmark, and the arguments of that role.
func role() (string, []string) {
	if len(os.Args) < 2 {
		return "", nil
	}
	return os.Args[1], os.Args[2:]
}

func parse(args []string) settings {
	var s settings
	flags := flag.NewFlagSet("forward", flag.ExitOnError)
	flags.IntVar(&s.rate, "rate", 4000, "requests a second, over all connections")
	flags.IntVar(&s.conns, "conns", 64, "connections of the requests")
	flags.IntVar(&s.size, "size", 1024, "bytes of a request, and of its answer")
	flags.IntVar(&s.streams, "streams", 8, "connections of a throughput's measurement")
	flags.IntVar(&s.rounds, "rounds", 2, "times that each way is measured, one after the other")
	flags.DurationVar(&s.latency, "latency", 8*time.Second, "how long requests are measured in a round")
	flags.DurationVar(&s.throughput, "throughput", 4*time.Second, "how long throughput is measured in a round")
	flags.StringVar(&s.haproxy, "haproxy", "/usr/sbin/haproxy", "HAProxy's program")
	_ = flags.Parse(args) // a wrong flag ends the process
	return s
}

// enter runs this program again, in a new network namespace that ends with the new
// process.
func enter() error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	// The terminal also interrupts the new process. So this process ignores the
	// interrupt, and waits until the new process has ended.
	signal.Ignore(os.Interrupt)
	cmd := exec.Command("unshare", append([]string{"--net", self, "measure"}, os.Args[1:]...)...) //nolint:noctx // it ends by itself
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	return cmd.Run()
}
