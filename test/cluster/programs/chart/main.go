// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Command chart prints the manifests of a Helm chart, as `helm template` does:
//
//	chart DIR RELEASE NAMESPACE VERSION KUBERNETES-VERSION VALUES.yaml
package main

import (
	"fmt"
	"io"
	"log"
	"os"
	"slices"
	"strings"

	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
)

func main() {
	log.SetFlags(0)
	if len(os.Args) != 7 {
		log.Fatal("usage: chart DIR RELEASE NAMESPACE VERSION KUBERNETES-VERSION VALUES.yaml")
	}
	if err := run(os.Stdout, os.Args[1:]); err != nil {
		log.Fatal(err)
	}
}

func run(out io.Writer, args []string) error {
	dir, release, namespace, version, kubernetes, values := args[0], args[1], args[2], args[3], args[4], args[5]
	chart, err := loader.Load(dir)
	if err != nil {
		return fmt.Errorf("load chart %s: %w", dir, err)
	}
	// In the source code of a Go module, a chart has placeholders instead of its versions.
	chart.Metadata.Version, chart.Metadata.AppVersion = version, version
	set, err := chartutil.ReadValuesFile(values)
	if err != nil {
		return fmt.Errorf("read values: %w", err)
	}
	kube, err := chartutil.ParseKubeVersion(kubernetes)
	if err != nil {
		return fmt.Errorf("parse Kubernetes version: %w", err)
	}
	vals, err := chartutil.ToRenderValues(chart, set,
		chartutil.ReleaseOptions{Name: release, Namespace: namespace, Revision: 1, IsInstall: true},
		&chartutil.Capabilities{KubeVersion: *kube, APIVersions: chartutil.DefaultVersionSet})
	if err != nil {
		return fmt.Errorf("compute values: %w", err)
	}
	files, err := engine.Render(chart, vals)
	if err != nil {
		return fmt.Errorf("render: %w", err)
	}
	names := make([]string, 0, len(files))
	for name := range files {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		if strings.HasSuffix(name, ".txt") || strings.TrimSpace(files[name]) == "" {
			continue
		}
		if _, err := fmt.Fprintf(out, "---\n# %s\n%s\n", name, files[name]); err != nil {
			return err
		}
	}
	return nil
}
