// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"sigs.k8s.io/yaml"

	"github.com/metaparticle-io/metaparticle/tools/gobuild"
	"github.com/metaparticle-io/metaparticle/tools/render"
)

// images builds the images, and writes the lists of their modules.
func (r *release) images(ctx context.Context) error {
	table, err := tool(ctx, "./tools/images", "-out", r.directory, "-version", r.version, "-platforms", strings.Join(r.platforms, ","))
	if err != nil {
		return err
	}
	r.digests = map[string]string{}
	for line := range strings.Lines(table) {
		if fields := strings.Fields(line); len(fields) == 3 && fields[1] == "all" {
			r.digests[fields[0]] = fields[2]
		}
	}
	for _, image := range slices.Sorted(maps.Keys(r.digests)) {
		folder := filepath.Join(r.directory, image)
		if err := r.listModules(image, folder); err != nil {
			return fmt.Errorf("%s: %w", image, err)
		}
		if err := os.RemoveAll(folder); err != nil { // the tarball has the same content
			return err
		}
	}
	return nil
}

// listModules writes a list of the modules of the image's binary, for each platform.
func (r *release) listModules(image, folder string) error {
	platforms, err := onlyIndex(folder)
	if err != nil {
		return err
	}
	manifest, err := platforms.IndexManifest()
	if err != nil {
		return err
	}
	for _, entry := range manifest.Manifests {
		of, err := platforms.Image(entry.Digest)
		if err != nil {
			return err
		}
		program, err := mainProgram(of)
		if err != nil {
			return err
		}
		if err := r.bill(image, entry.Platform.OS+"/"+entry.Platform.Architecture, program); err != nil {
			return err
		}
	}
	return nil
}

// mainProgram returns the program that an image starts: the content of the first file in the first
// layer. The shim's program, in another layer of the agent's image, links no module that the agent's
// program does not link.
func mainProgram(image v1.Image) ([]byte, error) {
	layers, err := image.Layers()
	if err != nil || len(layers) == 0 {
		return nil, errors.Join(err, errors.New("no layer in the image"))
	}
	content, err := layers[0].Uncompressed()
	if err != nil {
		return nil, err
	}
	defer content.Close()
	files := tar.NewReader(content)
	if _, err := files.Next(); err != nil {
		return nil, err
	}
	return io.ReadAll(files)
}

// image returns the reference of an image, by its digest.
func (r *release) image(of string) string { return r.registry + "/" + of + "@" + r.digests[of] }

// manifests writes the objects of an installation, in the order in which kubectl applies them.
func (r *release) manifests(context.Context) error {
	objects, err := render.Objects(render.Settings{Manifests: "manifests", WebhookImage: r.image("webhook"), AgentImage: r.image("agent")})
	if err != nil {
		return err
	}
	var text bytes.Buffer
	fmt.Fprintf(&text, "# Metaparticle %s: kubectl apply --server-side -f install.yaml\n", r.version)
	if err := render.Print(&text, objects); err != nil {
		return err
	}
	return r.write("install.yaml", text.Bytes())
}

// chart packs the Helm chart.
func (r *release) chart(ctx context.Context) error {
	directory, err := os.MkdirTemp("", "release-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(directory)
	if _, err := tool(ctx, "./tools/chart", "-out", directory, "-version", r.version, "-registry", r.registry,
		"-webhook-digest", r.digests["webhook"], "-agent-digest", r.digests["agent"]); err != nil {
		return err
	}
	var files []file
	err = filepath.WalkDir(directory, func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		relative, err := filepath.Rel(directory, path)
		files = append(files, file{filepath.ToSlash(relative), text, 0o644})
		return err
	})
	if err != nil {
		return err
	}
	packed, err := tarball(files)
	if err != nil {
		return err
	}
	if err := r.write(r.chartFile(), packed); err != nil {
		return err
	}
	artefact, err := r.packedChart()
	if err != nil {
		return err
	}
	digest, err := artefact.Digest()
	if err != nil {
		return err
	}
	r.digests[chartName] = digest.String()
	return nil
}

// chartName is the chart's name in the registry, and of its folder in the packed file.
const chartName = "metaparticle"

func (r *release) chartFile() string { return chartName + "-" + r.number() + ".tgz" }

func (r *release) write(name string, content []byte) error {
	return os.WriteFile(filepath.Join(r.directory, name), content, 0o644)
}

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
