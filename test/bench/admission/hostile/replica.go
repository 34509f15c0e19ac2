// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/go-logr/logr"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/yaml"

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

// kind has the calls of one attack on the webhook, and the attack's name in the printed table.
type kind struct {
	name  string
	calls [][]byte
}

// kinds returns all attacks on the webhook, each with the given number of calls.
func (r *registries) kinds(calls int) []kind {
	each := func(of func(i int) []byte) [][]byte {
		all := make([][]byte, calls)
		for i := range all {
			all[i] = of(i)
		}
		return all
	}
	same := func(call []byte) [][]byte { return each(func(int) []byte { return call }) }
	var names []string
	for i := range 20 {
		names = append(names, strings.Repeat("n", 100<<10)+fmt.Sprint(".example/app:", i))
	}
	images := func(containers int, image func(n int) string) string {
		all := make([]string, containers)
		for n := range all {
			all[n] = fmt.Sprintf(`{"name":"c%d","image":%q}`, n, image(n))
		}
		return strings.Join(all, ",")
	}
	return []kind{
		{"20 images with names of 100 KB", same(review("evil", "", images(20, func(n int) string { return names[n] })))},
		{"an annotation's key of 2.9 MB", same(review("evil", `,"metaparticle.io/`+strings.Repeat("a", 2900<<10)+`":"x"`, images(1, r.small)))},
		{"6,000 containers", same(review("evil", "", images(6000, func(n int) string { return fmt.Sprint("app:", n) })))},
		{"2 MB of empty containers", same(review("evil", "", strings.Repeat("{},", 700_000)+"{}"))},
		{"8 images with 600,000 words", each(func(i int) []byte {
			return review("evil", "", images(8, func(n int) string { return fmt.Sprintf("%s/words/%d-%d:1", r.host, i, n) }))
		})},
		{"8 images of 32 platforms of 1.9 MB", each(func(i int) []byte {
			return review("evil", "", images(8, func(n int) string { return fmt.Sprintf("%s/index/%d-%d:1", r.host, i, n) }))
		})},
		{"an image with a command of 60 KB", each(func(i int) []byte {
			return review("evil", "", images(1, func(int) string { return fmt.Sprintf("%s/unique/%d:1", r.host, i) }))
		})},
		{"8 images of registries that hang", each(func(i int) []byte {
			return review("evil", "", images(8, func(n int) string { return fmt.Sprintf("%s/app/%d:1", r.slowHost[(i+n)%slowHosts], i) }))
		})},
		{"8 images of registries that hang, from four namespaces", each(func(i int) []byte {
			return review(fmt.Sprint("evil-", i%4), "", images(8, func(n int) string { return fmt.Sprintf("%s/four/%d:1", r.slowHost[(i+n)%slowHosts], i) }))
		})},
	}
}

func (r *registries) small(n int) string { return fmt.Sprintf("%s/good/app%d:1", r.host, n) }

// ordinary returns the call for a pod whose image is named by tag. So the webhook sends a request
// to the registry for each call.
func (r *registries) ordinary(n int) []byte {
	return review("shop", "", fmt.Sprintf(`{"name":"app","image":%q}`, r.small(n)))
}

// review returns the AdmissionReview that the API server would send about a pod.
func review(namespace, annotations, containers string) []byte {
	pod := `{"apiVersion":"v1","kind":"Pod","metadata":{"generateName":"biller-5b8c9d7f4d-","namespace":"` + namespace +
		`","annotations":{"metaparticle.io/singleton":"true"` + annotations + `},"ownerReferences":[{"apiVersion":"apps/v1","kind":"ReplicaSet",` +
		`"name":"biller-5b8c9d7f4d","uid":"4c1d5c0e","controller":true}]},"spec":{"containers":[` + containers + `]}}`
	text, err := json.Marshal(map[string]any{
		"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
		"request": map[string]any{
			"uid": "705ab4f5", "kind": map[string]any{"version": "v1", "kind": "Pod"},
			"resource":  map[string]any{"version": "v1", "resource": "pods"},
			"namespace": namespace, "operation": "CREATE", "object": json.RawMessage(pod),
		},
	})
	if err != nil {
		panic(err) // this program wrote the texts, so they are valid JSON
	}
	return text
}

const (
	manifestType = "application/vnd.oci.image.manifest.v1+json"
	indexType    = "application/vnd.oci.image.index.v1+json"
	// slowHosts is the number of registries that never answer.
	slowHosts = 32
)

// registries has one registry with all images, and several registries that never answer. All of
// them listen on loopback.
type registries struct {
	server, slow *httptest.Server
	host         string
	slowHost     []string

	mu    sync.Mutex
	blobs map[string][]byte
}

func startRegistries(ctx context.Context) (*registries, error) {
	r := &registries{blobs: map[string][]byte{}}
	r.server = httptest.NewServer(r)
	r.host = strings.TrimPrefix(r.server.URL, "http://")
	r.slow = httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, q *http.Request) { <-q.Context().Done() }))
	var config net.ListenConfig
	all, err := config.Listen(ctx, "tcp", "0.0.0.0:0")
	if err != nil {
		return nil, err
	}
	_ = r.slow.Listener.Close()
	r.slow.Listener = all
	r.slow.Start()
	_, port, err := net.SplitHostPort(all.Addr().String())
	if err != nil {
		return nil, err
	}
	for n := range slowHosts {
		r.slowHost = append(r.slowHost, fmt.Sprintf("127.0.1.%d:%s", n+1, port))
	}
	return r, nil
}

func (r *registries) stop() {
	r.slow.CloseClientConnections()
	r.slow.Close()
	r.server.Close()
}

func (r *registries) hosts() []string { return append([]string{r.host}, r.slowHost...) }

// keep stores a blob, and returns its digest.
func (r *registries) keep(blob []byte) string {
	sum := sha256.Sum256(blob)
	digest := "sha256:" + hex.EncodeToString(sum[:])
	r.mu.Lock()
	defer r.mu.Unlock()
	r.blobs[digest] = blob
	return digest
}

func (r *registries) image(config any) []byte {
	text, _ := json.Marshal(map[string]any{"config": config})
	manifest, _ := json.Marshal(map[string]any{"mediaType": manifestType, "config": map[string]any{"digest": r.keep(text)}})
	return manifest
}

// manifest returns the manifest of a repository. The first part of the repository's
// name decides the content.
func (r *registries) manifest(repository string) (text []byte, mediaType string) {
	kind, _, _ := strings.Cut(repository, "/")
	switch kind {
	case "words": // 1.9 MB of configuration that would become 20 MB of words
		return r.image(map[string]any{"Entrypoint": make([]string, 600_000)}), manifestType
	case "unique": // a command just below the maximum length
		return r.image(map[string]any{"Entrypoint": []string{repository, strings.Repeat("x", 60<<10)}}), manifestType
	case "index": // 32 platforms with 1.9 MB each
		var all []map[string]any
		for n := range 32 {
			manifest := r.image(map[string]any{"Entrypoint": []string{fmt.Sprint(n)}, "Env": []string{strings.Repeat(string(rune('A'+n)), 1900<<10)}})
			all = append(all, map[string]any{"mediaType": manifestType, "digest": r.keep(manifest),
				"platform": map[string]any{"os": "linux", "architecture": fmt.Sprint("arch", n)}})
		}
		text, _ := json.Marshal(map[string]any{"mediaType": indexType, "manifests": all})
		return text, indexType
	}
	return r.image(map[string]any{"Entrypoint": []string{"/usr/bin/tini", "--", repository}}), manifestType
}

var made sync.Map

// ServeHTTP implements [http.Handler].
func (r *registries) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	path := strings.TrimPrefix(q.URL.Path, "/v2/")
	if path == "" {
		return
	}
	if _, digest, ok := strings.Cut(path, "/blobs/"); ok {
		r.mu.Lock()
		blob := r.blobs[digest]
		r.mu.Unlock()
		_, _ = w.Write(blob)
		return
	}
	repository, reference, _ := strings.Cut(path, "/manifests/")
	w.Header().Set("Content-Type", manifestType)
	r.mu.Lock()
	text := r.blobs[reference]
	r.mu.Unlock()
	if text == nil {
		kind, _, _ := strings.Cut(repository, "/")
		key := repository
		if kind == "words" || kind == "index" {
			key = kind // all repositories of this kind have the same manifest
		}
		once, _ := made.LoadOrStore(key, sync.OnceValues(func() ([]byte, string) { return r.manifest(repository) }))
		var mediaType string
		text, mediaType = once.(func() ([]byte, string))()
		r.keep(text)
		w.Header().Set("Content-Type", mediaType)
	} else if strings.Contains(string(text[:min(len(text), 200)]), indexType) || strings.HasPrefix(string(text), `{"manifests"`) {
		w.Header().Set("Content-Type", indexType)
	}
	sum := sha256.Sum256(text)
	w.Header().Set("Docker-Content-Digest", "sha256:"+hex.EncodeToString(sum[:]))
	if q.Method == http.MethodGet {
		_, _ = w.Write(text)
	}
}
