// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Command forward compares three ways to connect to the holder: directly, through a standby's
// forwarder, and through HAProxy in TCP mode. One execution of the command measures all these ways
// under the same offered load. Clients and forwarders share one network namespace, and the holder
// has another. The command needs root, Linux and Debian's haproxy, and no cluster.
package main

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/proxy"
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

// These are the addresses of the two network namespaces, and the ports. The holder and
// the forwarder listen on holderPort. HAProxy has one port for each of its two ways to
// move data.
const (
	standbyIP, holderIP                  = "10.99.0.1", "10.99.0.2"
	holderPort, copyingPort, splicedPort = 7000, 7001, 7002
)

// way is one way for a client to connect to the holder.
type way struct {
	name    string
	address string
	// process is the forwarder; nil for the direct connection.
	process *os.Process
}

// processes are the processes that the benchmark has started.
type processes struct {
	ctx  context.Context
	self string
	// ends are the functions that remove processes and directories. The method "stop" calls
	// these functions in reverse order.
	ends []func()
}

// start starts a process. If the argument "says" is true, the method waits for the first
// line of the process's output.
func (p *processes) start(says bool, words ...string) (*os.Process, error) {
	cmd := exec.CommandContext(p.ctx, words[0], words[1:]...)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p.ends = append(p.ends, func() {
		in.Close()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	if says {
		if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
			return nil, fmt.Errorf("%s: %w", words, err)
		}
	}
	return cmd.Process, nil
}

// stop ends all processes.
func (p *processes) stop() {
	for _, end := range slices.Backward(p.ends) {
		end()
	}
}

// connect connects the two network namespaces.
func (p *processes) connect(holder int) error {
	pid := strconv.Itoa(holder)
	for _, line := range []string{
		"ip link set lo up",
		"ip link add standby type veth peer name holder netns " + pid,
		"ip addr add " + standbyIP + "/24 dev standby",
		"ip link set standby up",
		"nsenter -t " + pid + " -n ip addr add " + holderIP + "/24 dev holder",
		"nsenter -t " + pid + " -n ip link set holder up",
	} {
		words := strings.Fields(line)
		if out, err := exec.CommandContext(p.ctx, words[0], words[1:]...).CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", line, err, out)
		}
	}
	return nil
}

// open starts the holder and all forwarders, and returns the ways to connect to the holder.
func (p *processes) open(haproxy string) ([]way, error) {
	holder, err := p.start(true, "unshare", "--net", p.self, "holder")
	if err != nil {
		return nil, err
	}
	if err := p.connect(holder.Pid); err != nil {
		return nil, err
	}
	ours, err := p.start(true, p.self, "forwarder")
	if err != nil {
		return nil, err
	}
	ways := []way{
		{"no forwarder (direct connection)", address(holderIP, holderPort), nil},
		{"this project's forwarder", address(standbyIP, holderPort), ours},
	}
	for _, c := range []struct {
		name   string
		port   int
		option string
	}{{"HAProxy, TCP mode", copyingPort, ""}, {"HAProxy, TCP mode, splice", splicedPort, "option splice-auto"}} {
		process, err := p.startHAProxy(haproxy, c.port, c.option)
		if err != nil {
			return nil, err
		}
		ways = append(ways, way{c.name, address(standbyIP, c.port), process})
	}
	return ways, p.await(ways)
}

func address(ip string, port int) string { return net.JoinHostPort(ip, strconv.Itoa(port)) }

// startHAProxy starts HAProxy with one thread, because the forwarder uses only one CPU,
// too.
func (p *processes) startHAProxy(program string, port int, option string) (*os.Process, error) {
	dir, err := os.MkdirTemp("", "bench-forward")
	if err != nil {
		return nil, err
	}
	p.ends = append(p.ends, func() { os.RemoveAll(dir) })
	config := filepath.Join(dir, "haproxy.cfg")
	text := fmt.Sprintf(`global
  nbthread 1
  maxconn 4096
defaults
  mode tcp
  timeout connect 5s
  timeout client 1h
  timeout server 1h
  %s
listen holder
  bind %s
  server holder %s
`, option, address(standbyIP, port), address(holderIP, holderPort))
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return nil, err
	}
	return p.start(false, program, "-db", "-f", config)
}

// await waits until every way accepts connections.
func (p *processes) await(ways []way) error {
	for _, w := range ways {
		for began := time.Now(); ; {
			conn, err := (&net.Dialer{Timeout: time.Second}).DialContext(p.ctx, "tcp", w.address)
			if err == nil {
				conn.Close()
				break
			}
			if time.Since(began) > 10*time.Second {
				return fmt.Errorf("%s: %w", w.name, err)
			}
			<-time.After(50 * time.Millisecond)
		}
	}
	return nil
}

// runForwarder forwards as an agent does, until its standard input ends.
func runForwarder() error {
	debug.SetGCPercent(20)
	runtime.GOMAXPROCS(1)
	f := proxy.New(proxy.Config{Ports: []int{holderPort}})
	if err := f.Open(); err != nil {
		return err
	}
	defer f.Close()
	f.SetTarget(holderIP)
	fmt.Println("open")
	_, err := io.Copy(io.Discard, os.Stdin)
	return err
}
