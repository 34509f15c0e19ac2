// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Command release makes all files of a release, and pushes the images and the chart:
//
//	go run ./tools/release -version v1.2.3 -registry HOST/PREFIX [-push|-publish|-push-to HOST/PREFIX] [-insecure] [-out out/release]
//
// The directory out/release/v1.2.3 then has:
//
//	webhook.tar, agent.tar              the images for each platform, as OCI layouts
//	install.yaml                        the manifests, with the images by digest
//	metaparticle-1.2.3.tgz              the Helm chart, which a push also pushes as an OCI artefact
//	kubectl-metaparticle_OS_ARCH.…      the kubectl plugin for each platform
//	metaparticle.yaml                   the plugin's manifest for krew, only if -address is given
//	rules.yaml, prometheusrule.yaml     the alerts, for Prometheus and for its operator
//	dashboard.json                      the dashboard for Grafana
//	*.cdx.json                          the modules in each binary (CycloneDX)
//	references.txt                      the images and the chart in the registry, by digest
//	checksums.txt                       the SHA-256 of each file
//
// Equal sources, version, registry and Go release make equal files, on any machine and at any time.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"

	"github.com/metaparticle-io/metaparticle/tools/gobuild"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "release:", err)
		os.Exit(1)
	}
}

// release has the settings of one release, and the directory that its files are written to.
type release struct {
	version, registry string
	// pushTo is the HOST/PREFIX to which the command pushes; empty if the command pushes nothing.
	pushTo    string
	insecure  bool
	platforms []string
	plugins   []string
	directory string
	// address is the place from which people download the plugin's archives; empty if the release
	// has no manifest for krew.
	address string
	// digests are the digests of the images and the chart, by their names in the registry.
	digests map[string]string
}

// number returns the version without its first letter, as Helm writes versions.
func (r release) number() string { return strings.TrimPrefix(r.version, "v") }

var isVersion = regexp.MustCompile(`^v(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(-[0-9A-Za-z.-]+)?$`)

func run(ctx context.Context, args []string, out io.Writer) error {
	var r release
	flags := flag.NewFlagSet("release", flag.ContinueOnError)
	flags.StringVar(&r.version, "version", "", "version of the release, as v1.2.3")
	flags.StringVar(&r.registry, "registry", "", "HOST/PREFIX from which nodes pull the images")
	push := flags.Bool("push", false, "push the images and the chart to the registry")
	publish := flags.Bool("publish", false, "make nothing, and push the images and the chart that an earlier run has written")
	flags.StringVar(&r.pushTo, "push-to", "", "push to this `HOST/PREFIX`, which nodes call by -registry")
	flags.BoolVar(&r.insecure, "insecure", false, "push over plain HTTP")
	flags.StringVar(&r.address, "address", "", "`URL` below which people find the folder of the release; without it there is no manifest for krew")
	directory := flags.String("out", "out/release", "directory to write the release's folder to")
	platforms := flags.String("platforms", "linux/amd64,linux/arm64", "platforms of the images")
	plugins := flags.String("plugins", "linux/amd64,linux/arm64,darwin/amd64,darwin/arm64,windows/amd64,windows/arm64", "platforms of the plugin")
	if err := flags.Parse(args); err != nil {
		return err
	}
	switch {
	case flags.NArg() > 0:
		return fmt.Errorf("unexpected argument %q", flags.Arg(0))
	case !isVersion.MatchString(r.version):
		return fmt.Errorf("-version is %q: write a semantic version, as v1.2.3", r.version)
	case r.registry == "" || strings.HasSuffix(r.registry, "/"):
		return fmt.Errorf("-registry is %q: write the registry and the folder of the images, as registry.example/metaparticle", r.registry)
	}
	if *push {
		if err := committed(ctx); err != nil {
			return err
		}
	}
	if (*push || *publish) && r.pushTo == "" {
		r.pushTo = r.registry
	}
	r.platforms, r.plugins = strings.Split(*platforms, ","), strings.Split(*plugins, ",")
	r.directory = filepath.Join(*directory, r.version)
	if *publish {
		return r.push(ctx)
	}
	if err := os.RemoveAll(r.directory); err != nil {
		return err
	}
	if err := os.MkdirAll(r.directory, 0o755); err != nil {
		return err
	}
	for _, step := range []struct {
		name string
		do   func(context.Context) error
	}{
		{"images", r.images}, {"install.yaml", r.manifests}, {"chart", r.chart}, {"plugin", r.plugin},
		{"monitoring", r.monitoring}, {"references", r.references}, {"checksums", r.checksums},
	} {
		if err := step.do(ctx); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
	}
	if r.pushTo != "" {
		if err := r.push(ctx); err != nil {
			return fmt.Errorf("push: %w", err)
		}
	}
	text, err := os.ReadFile(filepath.Join(r.directory, sums))
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "%s\n%s", r.directory, text)
	return nil
}

// committed returns an error if the checkout has changes that are in no commit. Nobody could build
// a release of such a checkout again.
func committed(ctx context.Context) error {
	changes, err := exec.CommandContext(ctx, "git", "status", "--porcelain").Output()
	if err != nil {
		return fmt.Errorf("git status: %w", err)
	}
	if len(changes) > 0 {
		return fmt.Errorf("the checkout has changes that are in no commit: commit or remove them before -push\n%s", changes)
	}
	return nil
}

// tool runs another tool of this repository, and returns its standard output.
func tool(ctx context.Context, args ...string) (string, error) {
	environment, err := gobuild.Environment(ctx)
	if err != nil {
		return "", err
	}
	command := exec.CommandContext(ctx, "go", append([]string{"run", "-trimpath", "-buildvcs=false"}, args...)...)
	command.Env = environment
	var out bytes.Buffer
	command.Stdout, command.Stderr = &out, os.Stderr
	if err := command.Run(); err != nil {
		return "", fmt.Errorf("go run %s: %w", args[0], err)
	}
	return out.String(), nil
}
