// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/metaparticle-io/metaparticle/test/bench/samples"
)

// figures are the measurements of one way to connect to the holder.
type figures struct {
	times samples.Times
	bytes int64
	// requesting and streaming are the forwarder's processor times in the methods
	// settings.requests and settings.stream.
	requesting, streaming time.Duration
}

// measure measures each way to connect to the holder, one after the other, and prints the
// table.
func measure(s settings) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	self, err := os.Executable()
	if err != nil {
		return err
	}
	p := &processes{ctx: ctx, self: self}
	defer p.stop()
	ways, err := p.open(s.haproxy)
	if err != nil {
		return err
	}
	results := make([]figures, len(ways))
	for range s.rounds {
		for i, w := range ways {
			if err := s.round(w, &results[i]); err != nil {
				return fmt.Errorf("%s: %w", w.name, err)
			}
		}
	}
	s.print(ctx, ways, results)
	return ctx.Err()
}

// round measures one way to connect to the holder, once.
func (s settings) round(w way, f *figures) error {
	before := processorTime(w.process)
	times, err := s.requests(w)
	if err != nil {
		return err
	}
	between := processorTime(w.process)
	bytes, err := s.stream(w)
	f.times, f.bytes = append(f.times, times...), f.bytes+bytes
	f.requesting += between - before
	f.streaming += processorTime(w.process) - between
	return err
}

// print prints the table. An added time is the difference to the time of the direct
// connection.
func (s settings) print(ctx context.Context, ways []way, results []figures) {
	load, _ := os.ReadFile("/proc/loadavg")
	haproxy, _ := exec.CommandContext(ctx, s.haproxy, "-v").Output()
	version, _, _ := strings.Cut(string(haproxy), "\n")
	fmt.Printf("%d CPUs, %s, %s, load at the end %s\n", runtime.NumCPU(), time.Now().UTC().Format(time.DateOnly), version, strings.Fields(string(load))[0])
	fmt.Printf("%d requests a second of %d bytes over %d connections, %v; %d streams, %v\n\n",
		s.rate, s.size, s.conns, time.Duration(s.rounds)*s.latency, s.streams, time.Duration(s.rounds)*s.throughput)
	fmt.Println("| connection through | requests | p50 µs | p99 µs | added p50 | added p99 | CPU µs per request | MB/s | CPU ms per GB |")
	fmt.Println("|---|---|---|---|---|---|---|---|---|")
	direct := results[0].times
	for i, w := range ways {
		f := results[i]
		p50, p99 := f.times.Quantile(.5), f.times.Quantile(.99)
		fmt.Printf("| %s | %d | %d | %d | %d | %d | %.1f | %.0f | %.0f |\n", w.name, len(f.times), p50.Microseconds(), p99.Microseconds(),
			(p50 - direct.Quantile(.5)).Microseconds(), (p99 - direct.Quantile(.99)).Microseconds(),
			float64(f.requesting.Microseconds())/float64(len(f.times)),
			float64(f.bytes)/1e6/(time.Duration(s.rounds)*s.throughput).Seconds(),
			float64(f.streaming.Milliseconds())/(float64(f.bytes)/1e9))
	}
}
