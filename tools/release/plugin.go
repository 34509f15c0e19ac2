// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"sigs.k8s.io/yaml"

	"github.com/metaparticle-io/metaparticle/tools/gobuild"
)

// plugin compiles the kubectl plugin for each platform. If the release has an address, plugin also
// writes the plugin's manifest for krew.
func (r *release) plugin(ctx context.Context) error {
	licence, err := os.ReadFile("LICENSE")
	if err != nil {
		return err
	}
	var all []platform
	for _, of := range r.plugins {
		p, err := r.pluginFor(ctx, of, licence)
		if err != nil {
			return fmt.Errorf("%s: %w", of, err)
		}
		all = append(all, p)
	}
	if r.address == "" {
		return nil
	}
	text, err := yaml.Marshal(krew(r.version, all))
	if err != nil {
		return err
	}
	return r.write("metaparticle.yaml", text)
}

// pluginFor compiles and packs the plugin for one platform.
func (r *release) pluginFor(ctx context.Context, of string, licence []byte) (platform, error) {
	system, architecture, ok := strings.Cut(of, "/")
	if !ok {
		return platform{}, fmt.Errorf("a platform is of the form linux/amd64")
	}
	binary, pack, end := "kubectl-metaparticle", tarball, ".tar.gz"
	if system == "windows" {
		binary, pack, end = binary+".exe", zipped, ".zip"
	}
	program, err := compile(ctx, r.version, system, architecture)
	if err != nil {
		return platform{}, err
	}
	if err := r.bill("kubectl-metaparticle", of, program); err != nil {
		return platform{}, err
	}
	packed, err := pack([]file{{binary, program, 0o755}, {"LICENSE", licence, 0o644}})
	if err != nil {
		return platform{}, err
	}
	name := fmt.Sprintf("kubectl-metaparticle_%s_%s%s", system, architecture, end)
	return platform{
		Selector: selector{map[string]string{"os": system, "arch": architecture}},
		URI:      r.address + "/" + r.version + "/" + name,
		SHA256:   fmt.Sprintf("%x", sha256.Sum256(packed)),
		Bin:      binary,
	}, r.write(name, packed)
}

// compile compiles the plugin. The binary contains nothing of the building machine.
func compile(ctx context.Context, version, system, architecture string) ([]byte, error) {
	directory, err := os.MkdirTemp("", "release-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(directory)
	binary := filepath.Join(directory, "kubectl-metaparticle")
	fmt.Fprintf(os.Stderr, "compiling the kubectl plugin for %s/%s\n", system, architecture)
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w -buildid= -X main.release="+version,
		"-o", binary, "./cmd/kubectl-metaparticle")
	build.Env, err = gobuild.Environment(ctx, "GOOS="+system, "GOARCH="+architecture)
	if err != nil {
		return nil, err
	}
	if output, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("go build: %w\n%s", err, output)
	}
	return os.ReadFile(binary)
}

// platform is one platform of a krew manifest: https://krew.sigs.k8s.io/docs/developer-guide/plugin-manifest/.
type platform struct {
	Selector selector `json:"selector"`
	URI      string   `json:"uri"`
	SHA256   string   `json:"sha256"`
	Bin      string   `json:"bin"`
}

type selector struct {
	MatchLabels map[string]string `json:"matchLabels"`
}

// krew returns the plugin's manifest.
func krew(version string, platforms []platform) map[string]any {
	return map[string]any{
		"apiVersion": "krew.googlecontainertools.github.com/v1alpha2",
		"kind":       "Plugin",
		"metadata":   map[string]any{"name": "metaparticle"},
		"spec": map[string]any{
			"version":          version,
			"homepage":         "https://github.com/metaparticle-io/metaparticle",
			"shortDescription": "Show and steer the slots of Metaparticle",
			"description": "Shows which pods hold, and which stand by and why. Hands slots over, pauses them,\n" +
				"shows what the webhook changes in a manifest, and judges an installation.\n",
			"platforms": platforms,
		},
	}
}
