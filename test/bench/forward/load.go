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
	"os/exec"
	"os/signal"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/metaparticle-io/metaparticle/test/bench/samples"
)

// The first byte of a connection selects what the holder does.
const (
	echoes  = 'e'
	streams = 's'
)

// runHolder runs the holder's application, which echoes requests, or sends without end.
func runHolder() error {
	listener, err := net.Listen("tcp", fmt.Sprintf(":%d", holderPort)) //nolint:noctx // it listens until the end
	if err != nil {
		return err
	}
	fmt.Println("open")
	for {
		conn, err := listener.Accept()
		if err != nil {
			return err
		}
		go serve(conn)
	}
}

func serve(conn net.Conn) {
	defer conn.Close()
	buffer := make([]byte, 64<<10)
	if _, err := io.ReadFull(conn, buffer[:1]); err != nil {
		return
	}
	if buffer[0] == streams {
		for {
			if _, err := conn.Write(buffer); err != nil {
				return
			}
		}
	}
	_, _ = io.CopyBuffer(struct{ io.Writer }{conn}, struct{ io.Reader }{conn}, buffer)
}

// dial opens a connection, and sends the byte that selects what the holder does.
func dial(w way, purpose byte) (net.Conn, error) {
	conn, err := net.Dial("tcp", w.address) //nolint:noctx // the kernel gives up by itself
	if err != nil {
		return nil, err
	}
	if _, err := conn.Write([]byte{purpose}); err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

// requests sends requests at a fixed rate, without waiting for the answers. The result
// has the time of each request, from its sending until its whole answer has come.
func (s settings) requests(w way) (samples.Times, error) {
	var mu sync.Mutex
	var all samples.Times
	var failed error
	var clients sync.WaitGroup
	period := time.Second * time.Duration(s.conns) / time.Duration(s.rate)
	for i := range s.conns {
		conn, err := dial(w, echoes)
		if err != nil {
			return nil, err
		}
		clients.Go(func() {
			<-time.After(period * time.Duration(i) / time.Duration(s.conns))
			own, err := s.client(conn, period)
			mu.Lock()
			defer mu.Unlock()
			all, failed = append(all, own...), errors.Join(failed, err)
		})
	}
	clients.Wait()
	return all, failed
}

// client sends a request in each period, and reads the answers in their order.
func (s settings) client(conn net.Conn, period time.Duration) (samples.Times, error) {
	defer conn.Close()
	count := int(s.latency / period)
	sent := make(chan time.Time, count)
	failed := make(chan error, 1)
	go func() {
		defer close(sent)
		ticker := time.NewTicker(period)
		defer ticker.Stop()
		request := make([]byte, s.size)
		for range count {
			<-ticker.C
			sent <- time.Now()
			if _, err := conn.Write(request); err != nil {
				failed <- err
				return
			}
		}
		failed <- nil
	}()
	var times samples.Times
	answer := make([]byte, s.size)
	for at := range sent {
		if _, err := io.ReadFull(conn, answer); err != nil {
			return times, err
		}
		times = append(times, time.Since(at))
	}
	return times, <-failed
}

// stream receives as many bytes as possible in the time s.throughput, and returns their number.
func (s settings) stream(w way) (received int64, err error) {
	var sum atomic.Int64
	var clients sync.WaitGroup
	end := time.Now().Add(s.throughput)
	for range s.streams {
		conn, err := dial(w, streams)
		if err != nil {
			return 0, err
		}
		clients.Go(func() {
			defer conn.Close()
			_ = conn.SetReadDeadline(end)
			n, _ := io.CopyBuffer(io.Discard, struct{ io.Reader }{conn}, make([]byte, 256<<10))
			sum.Add(n)
		})
	}
	clients.Wait()
	return sum.Load(), nil
}

// processorTime returns the processor time that a process has used.
func processorTime(p *os.Process) time.Duration {
	if p == nil {
		return 0
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.Pid))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(text), ") ")
	var skip string
	var user, system int64
	// The variable "rest" begins with the third field of /proc/PID/stat. The times are the 14th and
	// the 15th field, in ticks of 10 ms.
	_, _ = fmt.Sscan(rest, &skip, &skip, &skip, &skip, &skip, &skip, &skip, &skip, &skip, &skip, &skip, &user, &system)
	return time.Duration(user+system) * 10 * time.Millisecond
}

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
