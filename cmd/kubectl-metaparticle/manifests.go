// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/cli-runtime/pkg/resource"

	"github.com/metaparticle-io/metaparticle/mutate/image/registry"
)

// manifestFile is a file to read. The field "found" reports that a person named only its directory, so it
// may be no manifest at all.
type manifestFile struct {
	path  string
	found bool
}

// manifestFiles returns the files that kubectl reads for its flag -f: of a directory those with the
// endings of manifests.
func manifestFiles(names []string, recursive bool) (files []manifestFile, err error) {
	for _, name := range names {
		if name == "-" {
			files = append(files, manifestFile{path: name})
			continue
		}
		visitors, err := resource.ExpandPathsToFileVisitors(nil, name, recursive, resource.FileExtensions, nil)
		if err != nil {
			return nil, err
		}
		if len(visitors) == 0 {
			return nil, fmt.Errorf("%s has no manifest: its files end with none of %s", name, strings.Join(resource.FileExtensions, ", "))
		}
		for _, visitor := range visitors {
			path := visitor.(*resource.FileVisitor).Path
			files = append(files, manifestFile{path: path, found: path != name})
		}
	}
	return files, nil
}

// read returns the documents of the file.
func (f manifestFile) read(in io.Reader) ([]document, error) {
	if f.path == "-" {
		return read(in)
	}
	opened, err := os.Open(f.path)
	if err != nil {
		return nil, err
	}
	defer opened.Close()
	return read(opened)
}

// run reads all files, and then shows each object of the files as the webhook would change it. A file that
// a directory has beside its manifests, and that is none itself, must not keep the command from the others.
func (i *injector) run(ctx context.Context, files []manifestFile, options registry.Options) (int, error) {
	manifests := make([][]document, len(files))
	var all manifest
	var err error
	for n, file := range files {
		manifests[n], err = file.read(i.std.in)
		switch {
		case err == nil:
		case !file.found:
			return exitError, fmt.Errorf("%s: %w", file.path, err)
		case !i.left.unreadable(file.path):
			i.broken = true
			say(i.std.err, "error: %s: %v", file.path, err)
		}
		all = append(all, manifests[n]...)
	}
	options.Secrets = all
	if !i.offline {
		i.images = registry.New(options)
	}
	i.several = len(files) > 1
	for n, documents := range manifests {
		i.file = files[n].path
		for _, d := range documents {
			if err := i.inject(ctx, d); err != nil {
				return exitError, fmt.Errorf("%s: %s: %w", i.file, d, err)
			}
		}
	}
	return i.end(), nil
}

func (i *injector) end() int {
	i.left.say(i.std.err)
	if i.unread && !i.offline {
		say(i.std.err, "note: images were asked for from here, with the Secrets of the manifest alone;"+
			" the webhook has the cluster's network and Secrets, and may have other registry flags (-h for help)")
	}
	switch {
	case i.broken:
		return exitError
	case i.refused:
		return exitNot
	case !i.changed:
		say(i.std.err, "note: nothing in the manifests claims a slot, so the webhook would change nothing")
	}
	return exitOK
}

// leftovers are the files of which the command can say nothing, because they are no objects of Kubernetes.
type leftovers struct {
	// objectless files have a document without apiVersion or kind, such as the values of a chart.
	objectless []string
	// instructions are for kustomize.
	instructions []string
	// templates are no YAML before a program has filled them in. The files "others" are no YAML, either.
	templates, others []string
}

// judge remembers the file of a document that is no object. Only the file is named, and only once.
func (l *leftovers) judge(file string, d document) {
	group, _ := schema.ParseGroupVersion(d.APIVersion)
	switch {
	case string(d.raw) == "null": // the document has only comments
	case group.Group == "kustomize.config.k8s.io", strings.EqualFold(strings.TrimSuffix(filepath.Base(file), filepath.Ext(file)), "kustomization") && d.objectless():
		l.instructions = addOnce(l.instructions, file)
	case d.mentions() && d.unrendered():
		l.templates = addOnce(l.templates, file)
	case d.objectless():
		l.objectless = addOnce(l.objectless, file)
	}
}

func addOnce(all []string, file string) []string {
	if n := len(all); n > 0 && all[n-1] == file {
		return all
	}
	return append(all, file)
}

// inManifest matches the line that each manifest has, as YAML or as JSON.
var inManifest = regexp.MustCompile(`(?m)^\s*(- )?["']?apiVersion["']?\s*:`)

// unreadable remembers a file that is no YAML. It reports false for what a person must have meant as a
// manifest.
func (l *leftovers) unreadable(file string) bool {
	text, err := os.ReadFile(file)
	switch {
	case err != nil:
		return false
	case !inManifest.Match(text):
		l.others = append(l.others, file)
	case isTemplate(text):
		l.templates = append(l.templates, file)
	default:
		return false
	}
	return true
}

// isTemplate reports whether the text has an instruction of Helm, Jinja or a similar program.
func isTemplate(text []byte) bool {
	return bytes.Contains(text, []byte("{{")) || bytes.Contains(text, []byte("{%"))
}

// mostLeft bounds the files that one message names.
const mostLeft = 5

func (l *leftovers) say(to io.Writer) {
	for _, kind := range []struct {
		files []string
		text  string
	}{
		{l.objectless, "no object of Kubernetes (no apiVersion or no kind), and stays as it is"},
		{l.instructions, "an instruction for kustomize, and stays as it is (kubectl kustomize DIR | kubectl metaparticle inject -f -)"},
		{l.templates, "a template, and not judged (render it first, as by helm template)"},
		{l.others, "no YAML and no manifest, and not judged"},
	} {
		if len(kind.files) == 0 {
			continue
		}
		names := strings.Join(kind.files[:min(len(kind.files), mostLeft)], ", ")
		if more := len(kind.files) - mostLeft; more > 0 {
			names += fmt.Sprintf(" and %d more", more)
		}
		say(to, "note: %s: %s", kind.text, names)
	}
}
