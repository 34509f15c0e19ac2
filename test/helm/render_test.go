// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package helm

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
	"helm.sh/helm/v3/pkg/release"
	"helm.sh/helm/v3/pkg/releaseutil"
	"sigs.k8s.io/yaml"
)

// namespace is the only namespace in which the chart permits a release.
const namespace = "metaparticle-system"

// These are the defaults of the chart that [complete] makes.
const (
	registry     = "registry.example/metaparticle"
	webhookImage = registry + "/webhook:1.2.3"
	agentImage   = registry + "/agent:1.2.3"
)

type object = map[string]any

// program returns a function. The first call of this function compiles the tool with the given
// name. Each call returns the path of the executable file.
func program(name string) func() (string, error) {
	return sync.OnceValues(func() (string, error) {
		directory, err := os.MkdirTemp("", "metaparticle-helm-")
		if err != nil {
			return "", err
		}
		binary := filepath.Join(directory, name)
		_, err = output(exec.Command("go", "build", "-o", binary, "./tools/"+name))
		return binary, err
	})
}

var chartProgram, installProgram = program("chart"), program("install")

func TestMain(m *testing.M) {
	code := m.Run()
	for _, built := range []func() (string, error){chartProgram, installProgram} {
		if binary, err := built(); err == nil {
			_ = os.RemoveAll(filepath.Dir(binary))
		}
	}
	os.Exit(code)
}

// output runs a command in the repository's root, and returns the command's standard output.
func output(cmd *exec.Cmd) (string, error) {
	var errors strings.Builder
	cmd.Dir, cmd.Stderr = "../..", &errors
	out, err := cmd.Output()
	if err != nil {
		return "", &failure{err, errors.String()}
	}
	return string(out), nil
}

// failure is an error of a command, with the text that the command wrote to its standard error.
type failure struct {
	error
	output string
}

func (f *failure) Error() string { return f.error.Error() + ": " + f.output }

// made writes the chart, and returns its directory.
func made(t *testing.T) string {
	t.Helper()
	binary, err := chartProgram()
	require.NoError(t, err)
	directory := t.TempDir()
	_, err = output(exec.Command(binary, "-out", directory, "-version", "1.2.3"))
	require.NoError(t, err)
	return filepath.Join(directory, "metaparticle")
}

// complete returns the directory of a chart whose default registry is set. All tests share this
// chart, and no test changes it.
func complete(t *testing.T) string {
	t.Helper()
	written.Do(func() {
		binary, err := chartProgram()
		require.NoError(t, err)
		directory := filepath.Join(filepath.Dir(binary), "complete")
		_, err = output(exec.Command(binary, "-out", directory, "-version", "1.2.3", "-registry", registry))
		require.NoError(t, err)
	})
	binary, err := chartProgram()
	require.NoError(t, err)
	return filepath.Join(filepath.Dir(binary), "complete", "metaparticle")
}

var written sync.Once

// rendered is what Helm renders from a chart with values.
type rendered struct {
	objects []object
	hooks   []object
	notes   string
}

// attempt has the arguments of one "helm template".
type attempt struct {
	chart, release, namespace string
	values                    string
	cluster                   engine.ClientProvider
}

func (a attempt) render() (r rendered, err error) {
	chart, err := loader.Load(a.chart)
	if err != nil {
		return r, err
	}
	set, err := chartutil.ReadValues([]byte(a.values))
	if err != nil {
		return r, err
	}
	values, err := chartutil.ToRenderValues(chart, set,
		chartutil.ReleaseOptions{Name: a.release, Namespace: a.namespace, Revision: 1, IsInstall: true}, chartutil.DefaultCapabilities)
	if err != nil {
		return r, err
	}
	var files map[string]string
	if a.cluster == nil {
		files, err = engine.Render(chart, values)
	} else {
		files, err = engine.RenderWithClientProvider(chart, values, a.cluster)
	}
	if err != nil {
		return r, err
	}
	for path, text := range files {
		if strings.HasSuffix(path, "NOTES.txt") {
			r.notes = text
			delete(files, path)
		}
	}
	hooks, manifests, err := releaseutil.SortManifests(files, nil, releaseutil.InstallOrder)
	if err != nil {
		return r, err
	}
	for _, m := range manifests {
		r.objects = append(r.objects, parse(m.Content)...)
	}
	for _, h := range hooks {
		if !slices.Contains(h.Events, release.HookTest) && !slices.Contains(h.Events, release.HookPreDelete) && !slices.Contains(h.Events, release.HookPostDelete) {
			continue
		}
		r.hooks = append(r.hooks, parse(h.Manifest)...)
	}
	return r, nil
}

// render renders the chart of the function [complete] with values.
func render(t *testing.T, values string) rendered {
	t.Helper()
	r, err := attempt{chart: complete(t), release: "metaparticle", namespace: namespace, values: values}.render()
	require.NoError(t, err)
	return r
}

// parse returns the Kubernetes objects in a YAML text.
func parse(text string) (objects []object) {
	for document := range strings.SplitSeq("\n"+text, "\n---\n") {
		var o object
		if err := yaml.Unmarshal([]byte(document), &o); err != nil {
			panic(err)
		}
		if len(o) > 0 {
			objects = append(objects, o)
		}
	}
	return objects
}

// kustomized returns the objects of the kustomization with the given components.
func kustomized(t *testing.T, components ...string) []object {
	t.Helper()
	binary, err := installProgram()
	require.NoError(t, err)
	arguments := []string{"-render", "-webhook-image", webhookImage, "-agent-image", agentImage}
	for _, component := range components {
		arguments = append(arguments, "-component", component)
	}
	out, err := output(exec.Command(binary, arguments...))
	require.NoError(t, err)
	return parse(out)
}

// name returns the kind and the name of an object.
func name(o object) string {
	metadata := o["metadata"].(object)
	return o["kind"].(string) + "/" + metadata["name"].(string)
}

// byName indexes objects by [name]. If two objects have the same name, byName fails the test.
func byName(t *testing.T, objects []object) map[string]object {
	t.Helper()
	index := map[string]object{}
	for _, o := range objects {
		require.NotContains(t, index, name(o))
		index[name(o)] = o
	}
	return index
}

// field returns the field at a path. A step of the path is a key of a map, or an index of a list.
func field(t *testing.T, in any, path ...any) any {
	t.Helper()
	for _, step := range path {
		switch step := step.(type) {
		case string:
			in = in.(object)[step]
		case int:
			list, ok := in.([]any)
			require.True(t, ok && step < len(list), "%v of %v", step, path)
			in = list[step]
		}
	}
	return in
}
