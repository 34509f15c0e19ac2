// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/go-logr/logr"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/mutate/admit"
	"github.com/metaparticle-io/metaparticle/mutate/feature"
	"github.com/metaparticle-io/metaparticle/mutate/image/registry"
	"github.com/metaparticle-io/metaparticle/mutate/load"
)

// owner names the same Deployment for every pod. The template of the Deployment is the pod's spec.
type owner struct{}

// JobUID implements [mutate.Owners].
func (owner) JobUID(context.Context, string, string) (string, error) { return "", nil }

// Origin implements [mutate.Owners].
func (owner) Origin(_ context.Context, _ string, pod *corev1.Pod) (feature.Origin, error) {
	return feature.Origin{Workload: api.Workload{Group: "apps", Kind: "Deployment", Name: "biller"}, Template: &pod.Spec}, nil
}

// timeout is cmd/webhook's default time for a call.
const timeout = 8 * time.Second

// serve runs a replica, which prints its address and answers until the context ends.
func serve(ctx context.Context, plainHTTP []string) error {
	ctrl.SetLogger(logr.Discard())
	options := admit.Options{
		AgentImage: "registry.example.com/metaparticle/agent:v1", Owners: owner{}, Timeout: timeout,
		Images: registry.New(registry.Options{PlainHTTP: plainHTTP}),
	}
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(listener.Addr())
	server := &http.Server{
		Handler:           admit.Serve(admit.NewPodHandler(options), new(load.Limit)),
		ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 10 * time.Second,
	}
	context.AfterFunc(ctx, func() { _ = server.Close() })
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// memoryLimit returns the memory limit of the webhook's container, in bytes.
func memoryLimit(manifest string) (int64, error) {
	text, err := os.ReadFile(manifest)
	if err != nil {
		return 0, err
	}
	var deployment appsv1.Deployment
	if err := yaml.Unmarshal(text, &deployment); err != nil {
		return 0, err
	}
	return deployment.Spec.Template.Spec.Containers[0].Resources.Limits.Memory().Value(), nil
}

// process is a started replica, with its address and its memory cgroup.
type process struct {
	command  *exec.Cmd
	address  string
	group    string
	enforced string
}

// start runs this program as a replica, in a memory cgroup if the machine allows that.
func start(ctx context.Context, n int, limit int64, hosts []string) (*process, error) {
	p := &process{enforced: "the collector's alone"}
	p.command = exec.CommandContext(ctx, "/proc/self/exe", "-replica", strings.Join(hosts, ","))
	p.command.Stderr = os.Stderr
	p.command.Cancel = func() error { return p.command.Process.Signal(syscall.SIGTERM) }
	// As in the webhook, the garbage collector gets four fifths of the container's memory
	// limit.
	p.command.Env = append(os.Environ(), fmt.Sprintf("GOMEMLIMIT=%d", limit/100*80))
	out, err := p.command.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := p.command.Start(); err != nil {
		return nil, err
	}
	if group, err := confine(fmt.Sprintf("metaparticle-bench-%d-%d", os.Getpid(), n), p.command.Process.Pid, limit); err == nil {
		p.group, p.enforced = group, "a memory cgroup, and the collector's at four fifths of it"
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	p.address = "http://" + strings.TrimSpace(line) + "/"
	return p, err
}

func (p *process) end() {
	_ = p.command.Process.Kill()
	_ = p.command.Wait()
	if p.group != "" {
		_ = os.Remove(p.group)
	}
}

// confine moves a process into a separate memory cgroup, of version 1 or 2, and returns the
// directory of the cgroup.
func confine(name string, pid int, limit int64) (string, error) {
	for _, of := range []struct{ root, limit string }{
		{"/sys/fs/cgroup/memory", "memory.limit_in_bytes"}, {"/sys/fs/cgroup", "memory.max"},
	} {
		group := filepath.Join(of.root, name)
		if err := os.Mkdir(group, 0o755); err != nil {
			continue
		}
		if os.WriteFile(filepath.Join(group, of.limit), strconv.AppendInt(nil, limit, 10), 0o600) == nil &&
			os.WriteFile(filepath.Join(group, "cgroup.procs"), strconv.AppendInt(nil, int64(pid), 10), 0o600) == nil {
			return group, nil
		}
		_ = os.Remove(group)
	}
	return "", errors.New("no memory cgroup")
}

// peak returns the replica's highest resident memory so far, in bytes.
func (p *process) peak() (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.command.Process.Pid))
	if err != nil {
		return 0, fmt.Errorf("a replica has ended: %w", err)
	}
	_, after, _ := bytes.Cut(text, []byte("VmHWM:"))
	words := bytes.Fields(after)
	if len(words) == 0 {
		return 0, errors.New("a replica has ended")
	}
	kilobytes, err := strconv.ParseInt(string(words[0]), 10, 64)
	return kilobytes << 10, err
}

// charged returns a text with the highest memory that the replica's cgroup counted, including the
// kernel's buffers. Without a cgroup the text says so.
func (p *process) charged() string {
	for _, file := range []string{"memory.max_usage_in_bytes", "memory.peak"} {
		if text, err := os.ReadFile(filepath.Join(p.group, file)); p.group != "" && err == nil {
			n, _ := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
			return fmt.Sprintf("%d MiB charged", n>>20)
		}
	}
	return "not charged to a cgroup"
}
