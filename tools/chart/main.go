// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Command chart writes the Helm chart, with a version and images, into a directory. The manifests
// are the only source of the chart's objects. Each Kustomize component of the manifests becomes an
// {{ if }} block of the chart's templates. The table in places.go lists the places at which a
// template refers to a value. The alerts come from monitoring/rules.yaml.
//
// The directory charts/metaparticle has the same chart without a version. Its values, their schema,
// the hooks and the text of README.md are written by hand there. The tests of this package keep the
// other templates, and the table of values in README.md, as this command makes them (make golden).
//
//	go run ./tools/chart -out out/chart [-version V] [-registry HOST/PREFIX -webhook-digest sha256:… -agent-digest sha256:…]
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "chart:", err)
		os.Exit(1)
	}
}

// settings are the values of the flags.
type settings struct {
	manifests     string
	chart         string
	out           string
	version       string
	registry      string
	webhookDigest string
	agentDigest   string
}

func run(args []string, out io.Writer) error {
	var s settings
	flags := flag.NewFlagSet("chart", flag.ContinueOnError)
	flags.StringVar(&s.manifests, "manifests", "manifests", "directory of the manifests")
	flags.StringVar(&s.chart, "chart", "charts/metaparticle", "directory of the chart in the repository")
	flags.StringVar(&s.out, "out", "out/chart", "directory to write the chart's folder to")
	flags.StringVar(&s.version, "version", "dev", "version of the images")
	flags.StringVar(&s.registry, "registry", "", "HOST/PREFIX from which nodes pull the images; the chart's default")
	flags.StringVar(&s.webhookDigest, "webhook-digest", "", "digest of the webhook's image; the chart's default")
	flags.StringVar(&s.agentDigest, "agent-digest", "", "digest of the agent's image; the chart's default")
	if err := flags.Parse(args); err != nil {
		return err
	}
	files, err := s.files()
	if err != nil {
		return err
	}
	directory := filepath.Join(s.out, "metaparticle")
	// Files of an earlier chart must not stay in the directory.
	if err := os.RemoveAll(directory); err != nil {
		return fmt.Errorf("clear chart: %w", err)
	}
	for path, text := range files {
		path = filepath.Join(directory, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return fmt.Errorf("write chart: %w", err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			return fmt.Errorf("write chart: %w", err)
		}
	}
	install := "helm install metaparticle " + directory + " -n metaparticle-system --create-namespace --wait"
	if s.registry == "" { // without one, the chart refuses the installation
		install += " --set image.registry=HOST/PREFIX\nmake chart REGISTRY=HOST/PREFIX pushes the images to the registry"
	}
	fmt.Fprintf(out, "wrote %d files: %s\n", len(files), install)
	return nil
}

// files returns all files of the chart, by their paths in the chart.
func (s settings) files() (map[string]string, error) {
	files, err := templates(s.manifests)
	if err != nil {
		return nil, err
	}
	if files[rulesFile], err = rules(); err != nil {
		return nil, err
	}
	written, err := inRepository(s.chart)
	if err != nil {
		return nil, err
	}
	for name, text := range written {
		if strings.HasPrefix(text, madeFrom) {
			continue
		}
		if _, ok := files[name]; ok {
			return nil, fmt.Errorf("%s is written by hand, and made from a manifest, too", name)
		}
		if files[name], err = s.stamp(name, text); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	if files[readmeFile], err = withTable(files[readmeFile], written["values.yaml"], written["values.schema.json"]); err != nil {
		return nil, fmt.Errorf("%s: %w", readmeFile, err)
	}
	return files, nil
}

// madeFrom begins each template that this command makes.
const madeFrom = "# Made from "

// inRepository returns the files of the chart in the repository, by their paths in the chart.
func inRepository(chart string) (map[string]string, error) {
	files := map[string]string{}
	err := filepath.WalkDir(chart, func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		name, err := filepath.Rel(chart, path)
		files[filepath.ToSlash(name)] = string(text)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read chart: %w", err)
	}
	return files, nil
}

// stamp writes the version into Chart.yaml, and the images into values.yaml. Other texts stay as
// they are.
func (s settings) stamp(name, text string) (string, error) {
	switch name {
	case "Chart.yaml":
		return replaceOnce(text,
			"version: 0.0.0\n", "version: "+semantic(s.version)+"\n",
			"appVersion: dev\n", fmt.Sprintf("appVersion: %q\n", s.version))
	case "values.yaml":
		return replaceOnce(text,
			"registry: \"\"\n", fmt.Sprintf("registry: %q\n", s.registry),
			"    # A digest (sha256:…) is used instead of the tag.\n    digest: \"\"\n",
			fmt.Sprintf("    # A digest (sha256:…) is used instead of the tag.\n    digest: %q\n", s.webhookDigest),
			"    repository: agent\n    tag: \"\"\n    digest: \"\"\n",
			fmt.Sprintf("    repository: agent\n    tag: \"\"\n    digest: %q\n", s.agentDigest))
	}
	return text, nil
}

// replaceOnce replaces the first text of each pair by the second text. The first text must occur
// exactly once.
func replaceOnce(text string, pairs ...string) (string, error) {
	for i := 0; i < len(pairs); i += 2 {
		if n := strings.Count(text, pairs[i]); n != 1 {
			return "", fmt.Errorf("%q occurs %d times", pairs[i], n)
		}
		text = strings.Replace(text, pairs[i], pairs[i+1], 1)
	}
	return text, nil
}

var semver = regexp.MustCompile(`^v?((0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(-[0-9A-Za-z.-]+)?)$`)

// semantic returns a semantic version, which Helm requires. The version of a checkout without a tag
// is only the name of its commit, so semantic writes "0.0.0-g" in front.
func semantic(version string) string {
	if match := semver.FindStringSubmatch(version); match != nil {
		return match[1]
	}
	return "0.0.0-g" + regexp.MustCompile(`[^0-9A-Za-z-]`).ReplaceAllString(version, "-")
}

// change replaces the lines [from, to) of a text. Helm makes the change if the condition is true.
type change struct {
	from, to  int
	lines     []string
	condition string
}

// compare returns the changes between two texts, by their longest common subsequence of lines.
func compare(before, after []string, condition string) (changes []change) {
	// common[i][j] is the length of the longest common subsequence of before[i:] and after[j:].
	common := make([][]int, len(before)+1)
	for i := range common {
		common[i] = make([]int, len(after)+1)
	}
	for i, a := range slices.Backward(before) {
		for j, b := range slices.Backward(after) {
			if common[i][j] = max(common[i+1][j], common[i][j+1]); a == b {
				common[i][j] = common[i+1][j+1] + 1
			}
		}
	}
	for i, j := 0, 0; i < len(before) || j < len(after); {
		if i < len(before) && j < len(after) && before[i] == after[j] {
			i, j = i+1, j+1
			continue
		}
		from, first := i, j
		for (i < len(before) || j < len(after)) && (i == len(before) || j == len(after) || before[i] != after[j]) {
			if j == len(after) || i < len(before) && common[i+1][j] >= common[i][j+1] {
				i++
			} else {
				j++
			}
		}
		changes = append(changes, change{from, i, after[first:j], condition})
	}
	return changes
}

// merge writes all changes into the text. Each change stands between the lines of its Helm
// condition. Several changes may add lines at one place, in the order of the argument "changes".
// Two changes that replace the same lines are an error.
func merge(text []string, changes []change) (merged []string, err error) {
	slices.SortStableFunc(changes, func(a, b change) int { return a.from - b.from })
	at := 0
	for _, c := range changes {
		if c.from < at {
			return nil, fmt.Errorf("line %d: two components replace the same lines", c.from+1)
		}
		merged = append(merged, text[at:c.from]...)
		if len(c.lines) > 0 {
			merged = append(merged, "{{- if "+c.condition+" }}\n")
			merged = append(merged, c.lines...)
			if c.to > c.from {
				merged = append(merged, "{{- else }}\n")
			}
		} else {
			merged = append(merged, "{{- if not ("+c.condition+") }}\n")
		}
		merged = append(merged, text[c.from:c.to]...)
		merged = append(merged, "{{- end }}\n")
		at = c.to
	}
	return append(merged, text[at:]...), nil
}
