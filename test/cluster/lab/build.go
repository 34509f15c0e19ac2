// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"bytes"
	"context"
	"crypto/sha256"
	_ "embed" // certManagerValues
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

	"golang.org/x/sys/unix"
)

// program is a module below programs/, and what is built from it.
type program struct {
	name    string
	module  string   // the module that gives it its version; "" is this repository
	version string   // which version it must be; "" is any
	target  string   // "." or "tool": the module's own main package, or its tool lines
	flags   []string // of go build
	ldflags string
	inputs  []string                                                        // what else the result depends on
	after   func(c *Cluster, ctx context.Context, source, dir string) error // what to make beside the programs
}

//go:embed templates/certmanager-values.yaml
var certManagerValues []byte

// programs are in the order of their building: the long one is last, so that a
// mistake in a short one shows early. All but cert-manager's require the same
// versions of what they share, and what is built for one serves the next.
func programs() []program {
	major, minor, _ := strings.Cut(strings.TrimPrefix(KubernetesVersion, "v"), ".")
	minor, _, _ = strings.Cut(minor, ".")
	var versions strings.Builder
	for _, pkg := range []string{"k8s.io/component-base/version", "k8s.io/client-go/pkg/version"} {
		fmt.Fprintf(&versions, " -X %[1]s.gitVersion=%[2]s -X %[1]s.gitMajor=%[3]s -X %[1]s.gitMinor=%[4]s",
			pkg, KubernetesVersion, major, minor)
	}
	return []program{
		{name: "node", target: "."},
		{
			name: "containerd", module: "github.com/containerd/containerd/v2", target: "tool",
			flags: []string{"-tags=no_btrfs,no_devmapper,no_zfs,no_aufs"},
		},
		{name: "chart", module: "helm.sh/helm/v3", target: "."},
		{
			name: "certmanager", module: "github.com/cert-manager/cert-manager", version: CertManagerVersion, target: "tool",
			inputs: []string{RegistryInCluster, string(certManagerValues)}, after: (*Cluster).renderCertManager,
		},
		{name: "cainjector", module: "github.com/cert-manager/cert-manager", target: "."},
		{name: "coredns", module: "github.com/coredns/coredns", version: CoreDNSVersion, target: "."},
		{
			name: "kubernetes", module: "k8s.io/kubernetes", version: KubernetesVersion, target: ".",
			ldflags: versions.String(),
		},
	}
}

// metricsServer is built only for those who ask for metrics: a demo does not.
var metricsServer = program{name: "metricsserver", module: "sigs.k8s.io/metrics-server", target: "tool"}

// build makes sure that every program is in the cache, and links them all into
// the state directory's bin.
func (c *Cluster) build(ctx context.Context, list []program) error {
	cache, err := cacheDir()
	if err != nil {
		return err
	}
	stop := c.download(ctx, cache, list)
	defer stop()
	for i, p := range list {
		dir, err := c.cached(ctx, cache, p, fmt.Sprintf("%d of %d", i+1, len(list)))
		if err != nil {
			return fmt.Errorf("build %s: %w", p.name, err)
		}
		if err := c.link(dir); err != nil {
			return err
		}
	}
	return c.linkNames()
}

// download fetches the modules of the programs that are not built yet, beside
// the compilation of the first: the compiler waits for no network then. The
// returned function ends it. An error shows at the program's own build.
func (c *Cluster) download(ctx context.Context, cache string, list []program) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var over sync.WaitGroup
	over.Go(func() {
		for _, p := range list {
			source := filepath.Join(c.sources, p.name)
			if key, err := p.key(source); err != nil || exists(filepath.Join(cache, key)) {
				continue
			}
			_ = goCommand(ctx, source, append(append([]string{"list", "-deps", "-f="}, p.flags...), p.target)...).Run()
		}
	})
	return func() { cancel(); over.Wait() }
}

// cacheDir is shared by all checkouts.
func cacheDir() (string, error) {
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	dir = filepath.Join(dir, "metaparticle")
	return dir, os.MkdirAll(dir, 0o755)
}

// cached returns the directory of a program's files, and builds them first
// where no checkout has built just these.
func (c *Cluster) cached(ctx context.Context, cache string, p program, step string) (string, error) {
	source := filepath.Join(c.sources, p.name)
	key, err := p.key(source)
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, key)
	if exists(dir) {
		return dir, nil
	}
	// One builds, the others wait: two cold builds at once take twice as long.
	unlock, err := lock(ctx, dir+".lock", func() { c.say("%s is being built for another checkout, waiting", key) })
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
	if err := c.compile(ctx, p, source, temp, step); err != nil {
		return "", err
	}
	if p.after != nil {
		if err := p.after(c, ctx, source, temp); err != nil {
			return "", err
		}
	}
	return dir, os.Rename(temp, dir)
}

func exists(name string) bool {
	_, err := os.Stat(name)
	return err == nil
}

// key names a build after everything that decides its outcome.
func (p program) key(source string) (string, error) {
	gomod, err := os.ReadFile(filepath.Join(source, "go.mod"))
	if err != nil {
		return "", err
	}
	version := "local"
	if p.module != "" {
		found := regexp.MustCompile(`(?m)^\s*(?:require )?` + regexp.QuoteMeta(p.module) + ` (v\S+)`).FindSubmatch(gomod)
		if found == nil {
			return "", fmt.Errorf("%s/go.mod does not require %s", source, p.module)
		}
		version = string(found[1])
	}
	if p.version != "" && p.version != version {
		return "", fmt.Errorf("%s/go.mod requires %s %s, but this is for %s", source, p.module, version, p.version)
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

// goCommand is the go tool in a program's module, with an outcome that does not
// depend on the caller's settings.
func goCommand(ctx context.Context, dir string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=", "GOWORK=off", "GO111MODULE=on")
	// Killed, it would leave its compilers running.
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second
	return cmd
}

// compile builds a program's files into a directory.
func (c *Cluster) compile(ctx context.Context, p program, source, dir, step string) error {
	shared := append([]string{"-trimpath", "-buildvcs=false", "-ldflags=-s -w" + p.ldflags}, p.flags...)
	title := fmt.Sprintf("building %s (%s, once for this machine)", strings.TrimSpace(p.name+" "+p.version), step)
	bar := c.newProgress(title)
	defer bar.stop()

	// This is also where modules are downloaded.
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

// link makes the files of a cached build reachable in bin.
func (c *Cluster) link(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if err := relink(filepath.Join(dir, entry.Name()), c.path("bin", entry.Name())); err != nil {
			return err
		}
	}
	return nil
}

// linkNames adds the names by which one file is several programs, and runc.
func (c *Cluster) linkNames() error {
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
		if err := relink(file, c.path("bin", name)); err != nil {
			return err
		}
	}
	runc, err := exec.LookPath("runc")
	if err != nil {
		return err
	}
	return relink(runc, c.path("bin", "runc"))
}

func relink(to, name string) error {
	if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.Symlink(to, name)
}

// lock takes a file's lock for this process; waiting is called once if it is
// another's. The kernel frees the lock of a process that ends.
func lock(ctx context.Context, file string, waiting func()) (unlock func(), err error) {
	f, err := os.OpenFile(file, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	told := false
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) || ctx.Err() != nil {
			f.Close()
			return nil, errors.Join(ctx.Err(), err)
		}
		if !told {
			waiting()
			told = true
		}
		pause(ctx, pollInterval*10)
	}
}

// renderCertManager renders the chart that is in cert-manager's own module.
func (c *Cluster) renderCertManager(ctx context.Context, source, dir string) error {
	out, err := goCommand(ctx, source, "list", "-m", "-f={{.Dir}}", "github.com/cert-manager/cert-manager").Output()
	if err != nil {
		return fmt.Errorf("find cert-manager's module: %w", err)
	}
	module, chart := strings.TrimSpace(string(out)), filepath.Join(dir, "chart.tmp")
	if err := os.CopyFS(chart, os.DirFS(filepath.Join(module, "deploy", "charts", "cert-manager"))); err != nil {
		return err
	}
	defer os.RemoveAll(chart)
	// A release of the chart is made just so.
	if err := os.Rename(filepath.Join(chart, "Chart.template.yaml"), filepath.Join(chart, "Chart.yaml")); err != nil {
		return err
	}
	crds, err := filepath.Glob(filepath.Join(module, "deploy", "crds", "*.yaml"))
	if err != nil {
		return err
	}
	for _, crd := range crds {
		data, err := os.ReadFile(crd)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(chart, "templates", filepath.Base(crd)), data, 0o644); err != nil {
			return err
		}
	}
	settings := filepath.Join(chart, "settings.yaml")
	if err := c.renderTo(settings, "certmanager-values.yaml", c.values(node{})); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, c.path("bin", "chart"), chart, "cert-manager", "cert-manager",
		CertManagerVersion, KubernetesVersion, settings)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	manifests, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("render cert-manager's chart: %w: %s", err, errs.String())
	}
	return os.WriteFile(filepath.Join(dir, "certmanager.yaml"), manifests, 0o644)
}
