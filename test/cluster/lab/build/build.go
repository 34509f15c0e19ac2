// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package build compiles the programs of the cluster from Go modules, and keeps the
// results in a cache that all checkouts share.
//
// The name of a result in the cache changes with everything that changes the result. Debian
// packages provide the few programs that are not built.
package build

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/metaparticle-io/metaparticle/test/cluster/lab/config"
	"github.com/metaparticle-io/metaparticle/test/cluster/lab/state"
	"github.com/metaparticle-io/metaparticle/test/cluster/lab/wait"
)

// Program is a module below programs/ or versions/, with the way to build this module.
type Program struct {
	name    string
	module  string   // the module whose version is in the name of the build; "" for a program of this repository
	version string   // the version that the module must have; "" for any version
	dir     string   // the directory of the sources; "" for the directory programs/NAME
	target  string   // "." for the main package of the program's module, "tool" for the tool lines in the module's go.mod
	gomod   string   // the file that go.mod's requirements are in; "" for go.mod
	flags   []string // arguments for go build
	ldflags string
	inputs  []string                                                             // other facts that change the result
	after   func(ctx context.Context, l *state.Lab, p Program, dir string) error // makes further files beside the built programs
}

// Programs returns the programs in the order of their builds. The long build of Kubernetes is
// last, so that a mistake in a short build shows early. All modules require the same versions of
// shared packages, so that each package is compiled once.
func Programs(l *state.Lab) []Program {
	older := ""
	if l.Kubernetes != state.KubernetesVersion {
		older = filepath.Join(l.Versions, l.Kubernetes)
	}
	major, minor, _ := strings.Cut(strings.TrimPrefix(l.Kubernetes, "v"), ".")
	minor, _, _ = strings.Cut(minor, ".")
	var versions strings.Builder
	for _, pkg := range []string{"k8s.io/component-base/version", "k8s.io/client-go/pkg/version"} {
		fmt.Fprintf(&versions, " -X %[1]s.gitVersion=%[2]s -X %[1]s.gitMajor=%[3]s -X %[1]s.gitMinor=%[4]s",
			pkg, l.Kubernetes, major, minor)
	}
	certManager := Program{
		name: "certmanager", module: "github.com/cert-manager/cert-manager", version: l.CertManager, target: ".",
		inputs: []string{state.RegistryInCluster, config.CertManagerValues()}, after: renderCertManager,
	}
	if l.CertManager == state.OldestCertManager {
		certManager.gomod, certManager.flags = "oldest.mod", []string{"-modfile=oldest.mod", "-tags=oldest"}
	}
	return []Program{
		{name: "node", target: "."},
		{
			name: "containerd", module: "github.com/containerd/containerd/v2", target: "tool",
			flags: []string{"-tags=no_btrfs,no_devmapper,no_zfs,no_aufs"},
		},
		{name: "chart", module: "helm.sh/helm/v3", target: "."},
		certManager,
		{name: "coredns", module: "github.com/coredns/coredns", version: state.CoreDNSVersion, target: "."},
		{
			name: "kubernetes", module: "k8s.io/kubernetes", version: l.Kubernetes, dir: older, target: ".",
			ldflags: versions.String(),
		},
	}
}

// MetricsServer is the program metrics-server. The function Programs does not return this program,
// because a demo needs no metrics.
var MetricsServer = Program{name: "metricsserver", module: "sigs.k8s.io/metrics-server", target: "tool"}

// Make builds each program that the cache lacks, and links all programs into
// the state directory's bin.
func Make(ctx context.Context, l *state.Lab, list []Program) error {
	cache, err := cacheDir()
	if err != nil {
		return err
	}
	stop := download(ctx, l, cache, list)
	defer stop()
	for i, p := range list {
		dir, err := cached(ctx, l, cache, p, fmt.Sprintf("%d of %d", i+1, len(list)))
		if err != nil {
			return fmt.Errorf("build %s: %w", p.name, err)
		}
		if err := link(l, dir); err != nil {
			return err
		}
	}
	return linkNames(l)
}

// download fetches the modules of every program whose build the cache lacks, while the first
// program compiles. So the compiler need not wait for the network. The returned
// function ends the download. The function "download" ignores errors, because the build of
// the program reports them again.
func download(ctx context.Context, l *state.Lab, cache string, list []Program) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var over sync.WaitGroup
	over.Go(func() {
		for _, p := range list {
			source := p.source(l)
			if key, err := p.key(source); err != nil || exists(filepath.Join(cache, key)) {
				continue
			}
			_ = goCommand(ctx, source, append(append([]string{"list", "-deps", "-f="}, p.flags...), p.target)...).Run()
		}
	})
	return func() { cancel(); over.Wait() }
}

// cacheDir returns the cache that all checkouts share.
func cacheDir() (string, error) {
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	dir = filepath.Join(dir, "metaparticle")
	return dir, os.MkdirAll(dir, 0o755)
}

// cached returns the directory of a program's files. If no checkout has built the files
// yet, the function builds them.
func cached(ctx context.Context, l *state.Lab, cache string, p Program, step string) (string, error) {
	source := p.source(l)
	key, err := p.key(source)
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, key)
	if exists(dir) {
		return dir, nil
	}
	// One checkout builds and the others wait, because two cold builds at once take twice as
	// long.
	unlock, err := wait.Lock(ctx, dir+".lock", func() { l.Say("%s is being built for another checkout, waiting", key) })
	if err != nil {
		return "", err
	}
	defer unlock()
	if exists(dir) {
		return dir, nil
	}
	temp, err := os.MkdirTemp(cache, key+".new-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(temp)
	if err := os.Chmod(temp, 0o755); err != nil {
		return "", err
	}
	if err := compile(ctx, l, p, temp, step); err != nil {
		return "", err
	}
	if p.after != nil {
		if err := p.after(ctx, l, p, temp); err != nil {
			return "", err
		}
	}
	return dir, os.Rename(temp, dir)
}

func exists(name string) bool {
	_, err := os.Stat(name)
	return err == nil
}

// source returns the directory of a program's sources.
func (p Program) source(l *state.Lab) string {
	if p.dir != "" {
		return p.dir
	}
	return filepath.Join(l.Sources, p.name)
}

// key returns the name of a build. The name depends on everything that decides the build's outcome.
func (p Program) key(source string) (string, error) {
	name := cmp.Or(p.gomod, "go.mod")
	gomod, err := os.ReadFile(filepath.Join(source, name))
	if err != nil {
		return "", err
	}
	version := "local"
	if p.module != "" {
		found := regexp.MustCompile(`(?m)^\s*(?:require )?` + regexp.QuoteMeta(p.module) + ` (v\S+)`).FindSubmatch(gomod)
		if found == nil {
			return "", fmt.Errorf("%s/%s does not require %s", source, name, p.module)
		}
		version = string(found[1])
	}
	if p.version != "" && p.version != version {
		return "", fmt.Errorf("%s/%s requires %s %s, but this is for %s", source, name, p.module, version, p.version)
	}
	files, err := filepath.Glob(filepath.Join(source, "*"))
	if err != nil {
		return "", err
	}
	slices.Sort(files)
	sum := sha256.New()
	fmt.Fprintln(sum, p.target, p.flags, p.ldflags, p.inputs, runtime.GOARCH)
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			return "", err
		}
		fmt.Fprintln(sum, filepath.Base(file), len(data))
		sum.Write(data)
	}
	return fmt.Sprintf("%s-%s-%.6x", p.name, version, sum.Sum(nil)), nil
}

// goCommand returns a command of the go tool in a program's module. The caller's settings of
// the go tool do not change the outcome of the command.
func goCommand(ctx context.Context, dir string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=", "GOWORK=off", "GO111MODULE=on")
	// The command is interrupted and not killed, because a killed go command would leave
	// its compilers running.
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second
	return cmd
}

// compile builds a program's files into a directory.
func compile(ctx context.Context, l *state.Lab, p Program, dir, step string) error {
	source := p.source(l)
	shared := append([]string{"-trimpath", "-buildvcs=false", "-ldflags=-s -w" + p.ldflags}, p.flags...)
	title := fmt.Sprintf("building %s (%s, once for this machine)", strings.TrimSpace(p.name+" "+p.version), step)
	bar := newProgress(l, title)
	defer bar.stop()

	// This command downloads the modules, and lists the packages that are not compiled yet.
	list := goCommand(ctx, source, append(append([]string{"list", "-deps", "-f={{if .Stale}}{{.ImportPath}}{{end}}"}, shared...), p.target)...)
	stale, err := bar.run(list, "downloading modules")
	if err != nil {
		return err
	}
	bar.total = len(strings.Fields(string(stale)))
	build := goCommand(ctx, source, append(append([]string{"build", "-v", "-o", dir + "/"}, shared...), p.target)...)
	_, err = bar.run(build, "packages compiled")
	return err
}

// link makes links in bin to the files of a cached build.
func link(l *state.Lab, dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if err := relink(filepath.Join(dir, entry.Name()), l.Path("bin", entry.Name())); err != nil {
			return err
		}
	}
	return nil
}

// linkNames adds a link to runc, and a link for each program of a file that contains
// several programs.
func linkNames(l *state.Lab) error {
	names := map[string]string{}
	for _, name := range []string{
		"etcd", "kubeadm", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy", "kubelet", "kubectl",
	} {
		names[name] = "kubernetes"
	}
	for _, name := range []string{"holder", "pause", "registry", "forward"} {
		names[name] = "node"
	}
	for name, file := range names {
		if err := relink(file, l.Path("bin", name)); err != nil {
			return err
		}
	}
	runc, err := exec.LookPath("runc")
	if err != nil {
		return err
	}
	return relink(runc, l.Path("bin", "runc"))
}

func relink(to, name string) error {
	if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.Symlink(to, name)
}

// renderCertManager renders the chart that is in cert-manager's own module.
func renderCertManager(ctx context.Context, l *state.Lab, p Program, dir string) error {
	out, err := goCommand(ctx, p.source(l), slices.Concat([]string{"list", "-m", "-f={{.Dir}}"}, p.flags, []string{p.module})...).Output()
	if err != nil {
		return fmt.Errorf("find cert-manager's module: %w", err)
	}
	module, chart := strings.TrimSpace(string(out)), filepath.Join(dir, "chart.tmp")
	if err := os.CopyFS(chart, os.DirFS(filepath.Join(module, "deploy", "charts", "cert-manager"))); err != nil {
		return err
	}
	defer os.RemoveAll(chart)
	if p.version == state.OldestCertManager {
		if err := publish(module, chart); err != nil {
			return err
		}
	}
	settings := filepath.Join(chart, "settings.yaml")
	if err := config.RenderTo(l, settings, "certmanager-values.yaml", config.Values(l, state.Node{})); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, l.Path("bin", "chart"), chart, "cert-manager", "cert-manager",
		p.version, state.KubernetesVersion, settings)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	manifests, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("render cert-manager's chart: %w: %s", err, errs.String())
	}
	return os.WriteFile(filepath.Join(dir, "certmanager.yaml"), manifests, 0o644)
}

// publish makes a chart of an old module's sources, as its release did: it gets its CRDs, and Chart.yaml
// its name. Newer modules have the chart as it is published.
func publish(module, chart string) error {
	if err := os.Rename(filepath.Join(chart, "Chart.template.yaml"), filepath.Join(chart, "Chart.yaml")); err != nil {
		return err
	}
	crds := filepath.Join(chart, "templates", "crds")
	if err := os.CopyFS(crds, os.DirFS(filepath.Join(module, "deploy", "crds"))); err != nil {
		return err
	}
	return os.Remove(filepath.Join(crds, "README.md")) // it would be a template, too
}
