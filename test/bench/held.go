// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/layout"
	"golang.org/x/sys/unix"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/metaparticle-io/metaparticle/test/bench/samples"
	"github.com/metaparticle-io/metaparticle/test/cluster/lab"
)

// starts and stops are the times that the application takes to start and to stop. A connection that
// waits for a handover waits at least for both.
const starts, stops = time.Second, 500 * time.Millisecond

// calm is the wait between two handovers. In that time the old holder becomes Ready again, so that
// enough standbys forward during the next handover.
const calm = 6 * time.Second

//go:embed held.yaml
var heldManifest string

// connection is one connection through the Service. The instant "At" is a reading of
// CLOCK_MONOTONIC.
type connection struct {
	At, Took time.Duration
	Err      string `json:",omitempty"`
}

// held measures how long a new connection waits during a handover, beyond the application's own
// stop and start.
func (b *bench) held(ctx context.Context, rounds int) error {
	yaml := []byte(strings.NewReplacer("IMAGE", lab.RegistryInCluster+"/bench/app:latest", "STARTS", starts.String(),
		"STOPS", stops.String(), "REPLICAS", strconv.Itoa(1+b.standbys)).Replace(heldManifest))
	if err := b.run(ctx, yaml, "rollout", "status", "deployment/app", "--timeout=900s"); err != nil {
		return err
	}
	service, err := b.client.CoreV1().Services(namespace).Get(ctx, "app", metav1.GetOptions{})
	if err != nil {
		return err
	}
	begin, err := b.auditEnd()
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	stdin, stop := io.Pipe()
	var out bytes.Buffer
	ended := make(chan error, 1)
	go func() {
		ended <- b.cluster.Exec(ctx, b.cluster.Nodes()[0], stdin, &out, os.Stderr, self, "connect", b.dir, namespace, service.Spec.ClusterIP)
	}()
	rounded, err := b.handover(ctx, rounds, calm)
	stop.Close()
	if failed := <-ended; err == nil {
		err = failed
	}
	if err != nil {
		return err
	}
	var connections []connection
	if err := json.Unmarshal(out.Bytes(), &connections); err != nil {
		return err
	}
	writes, err := b.writes(begin)
	if err != nil {
		return err
	}
	return printHeld(rounded, connections, writes)
}

// heldSteps describes each part of the longest wait of a connection.
var heldSteps = []string{
	"the longest wait, without the application's own stop and start",
	"from the storing of the holder's announcement to the application's stop signal",
	"from the old application's exit to the exec of the new application",
	"from the start of the new application's service until the holder's Lease says so",
	"from then to the answer of the connection that waited longest",
}

func printHeld(rounds []handed, connections []connection, writes []write) error {
	times := make([]samples.Times, len(heldSteps))
	failed := 0
	for _, c := range connections {
		if c.Err != "" {
			failed++
			fmt.Printf("%v after the first connection, %s: %s\n", (c.At - connections[0].At).Round(time.Millisecond), beside(c, rounds), c.Err)
		}
	}
	for _, r := range rounds {
		serves := r.exec + starts
		longest := connection{}
		for _, c := range connections {
			if c.At > r.exit-2*stops && c.At < serves && c.Took > longest.Took {
				longest = c
			}
		}
		announced, told := time.Duration(0), time.Duration(0)
		for _, w := range writes {
			switch {
			case w.pod == r.old && w.stored < r.exit:
				announced = w.stored
			case w.pod == r.next && w.received > serves && told == 0:
				told = w.stored
			}
		}
		if announced == 0 || told == 0 {
			return errors.New("the audit log lacks writes of a handover")
		}
		for i, d := range []time.Duration{
			longest.Took - starts - stops, r.exit - stops - announced, r.exec - r.exit, told - serves, longest.At + longest.Took - told,
		} {
			times[i] = append(times[i], d)
		}
	}
	fmt.Printf("%d connections during %d handovers; %d of them failed. The application takes %v to stop and %v to start.\n",
		len(connections), len(rounds), failed, stops, starts)
	fmt.Printf("Pods wrote Leases %.1f times for each handover, regular renewals included.\n", float64(len(writes))/float64(len(rounds)))
	fmt.Println("\n| | rounds | p50 | p99 | max |\n|---|---|---|---|---|")
	for i, step := range heldSteps {
		times[i].Print(step)
	}
	return nil
}

// beside describes the time of a connection by the handover whose exec is nearest.
func beside(c connection, rounds []handed) string {
	nearest := slices.MinFunc(rounds, func(a, b handed) int { return int((a.exec - c.At).Abs() - (b.exec - c.At).Abs()) })
	return fmt.Sprintf("%v after the old application's exit, %v after the new application's exec",
		(c.At - nearest.exit).Round(time.Millisecond), (c.At - nearest.exec).Round(time.Millisecond))
}

// connect opens a connection to the address every ten milliseconds, sends a request over each, and
// waits for the answer. When its input ends, connect prints all connections, except those before the
// first answer. Until then the node's kube-proxy may not know the new Service.
func connect(ctx context.Context, address string, in io.Reader, out io.Writer) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	go func() {
		_, _ = io.Copy(io.Discard, in)
		stop()
	}()
	var mu sync.Mutex
	var open sync.WaitGroup
	connections := []connection{}
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for answered := false; !answered && ctx.Err() == nil; <-ticker.C {
		answered = connectOnce(net.JoinHostPort(address, "80")).Err == ""
	}
	for {
		select {
		case <-ticker.C:
			open.Go(func() {
				c := connectOnce(net.JoinHostPort(address, "80"))
				mu.Lock()
				defer mu.Unlock()
				connections = append(connections, c)
			})
		case <-ctx.Done():
			open.Wait()
			slices.SortFunc(connections, func(a, b connection) int { return int(a.At - b.At) })
			return json.NewEncoder(out).Encode(connections)
		}
	}
}

func connectOnce(address string) connection {
	var now unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &now)
	began := time.Now()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 20 * time.Second}
	answer, err := client.Get("http://" + address + "/") //nolint:noctx // the client has a timeout
	if err == nil {
		_, err = io.Copy(io.Discard, answer.Body)
		answer.Body.Close()
	}
	c := connection{At: time.Duration(now.Nano()), Took: time.Since(began)}
	if err != nil {
		c.Err = err.Error()
	}
	return c
}

// weights prints the memory of a pod's agent and shim, and the sizes of programs and
// images.
func (b *bench) weights(images string) error {
	agents, err := b.agents(context.Background())
	if err != nil {
		return err
	}
	fmt.Println("\nResident memory in megabytes (VmRSS; of which anonymous), the largest of", len(agents), "pods, after the handovers and the quiet minute above.")
	fmt.Println("\n| | resident | anonymous |\n|---|---|---|")
	for _, part := range []struct {
		name string
		pid  func(processes) int
	}{
		{"agent run", func(p processes) int { return p.agent }},
		{"agent exec (the shim)", func(p processes) int { return p.shim }},
	} {
		var all, anonymous []float64
		for _, p := range agents {
			status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", part.pid(p)))
			if err != nil {
				return err
			}
			all = append(all, megabytes(string(status), "VmRSS:"))
			anonymous = append(anonymous, megabytes(string(status), "RssAnon:"))
		}
		fmt.Printf("| %s | %.1f | %.1f |\n", part.name, slices.Max(all), slices.Max(anonymous))
	}
	fmt.Println("\nImages in megabytes (10⁶ bytes), compressed, as a node pulls them; the programs in it, uncompressed.")
	fmt.Println("\n| image | platform | compressed | programs |\n|---|---|---|---|")
	for _, name := range []string{"agent", "webhook"} {
		if err := printImage(images + "/" + name); err != nil {
			return err
		}
	}
	return nil
}

func megabytes(status, key string) float64 {
	for line := range strings.Lines(status) {
		rest, ok := strings.CutPrefix(line, key)
		if !ok {
			continue
		}
		var kilobytes float64
		if _, err := fmt.Sscanf(strings.TrimSpace(rest), "%f kB", &kilobytes); err == nil {
			return kilobytes * 1024 / 1e6
		}
	}
	return 0
}

// printImage prints a row for each platform of an OCI layout.
func printImage(dir string) error {
	index, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		return fmt.Errorf("read the image (make images): %w", err)
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		return err
	}
	for _, entry := range manifest.Manifests {
		if entry.MediaType.IsIndex() {
			if index, err = index.ImageIndex(entry.Digest); err != nil {
				return err
			}
			if manifest, err = index.IndexManifest(); err != nil {
				return err
			}
			break
		}
	}
	for _, entry := range manifest.Manifests {
		image, err := index.Image(entry.Digest)
		if err != nil {
			return err
		}
		layers, err := image.Layers()
		if err != nil {
			return err
		}
		var compressed int64
		var programs []string
		for _, layer := range layers {
			size, err := layer.Size()
			if err != nil {
				return err
			}
			compressed += size
			plain, err := layer.Uncompressed()
			if err != nil {
				return err
			}
			n, err := discard(plain)
			if err != nil {
				return err
			}
			programs = append(programs, fmt.Sprintf("%.1f", float64(n)/1e6))
		}
		fmt.Printf("| %s | %s | %.1f | %s |\n", dir[strings.LastIndex(dir, "/")+1:], entry.Platform, float64(compressed)/1e6, strings.Join(programs, " + "))
	}
	return nil
}
