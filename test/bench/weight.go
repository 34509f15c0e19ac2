// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/v1/layout"
)

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
