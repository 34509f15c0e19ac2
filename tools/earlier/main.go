// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Command earlier collects files of an earlier version of Metaparticle, for tests that compare that
// version with this version:
//
//	go run ./tools/earlier -from v1.0.0-rc.1 -version v1.0.0-rc.1
//
// The promise of compatibility begins with the first release candidate, so testdata has no earlier
// version yet. The directory tools/earlier/testdata/v1.0.0-rc.1 then has:
//
//	pods.txtar      the gated pods of that version's golden pairs, with each pair's facts.yaml
//	frames.txtar    one frame of each kind between the server and the shims of that version
//	leases.txtar    the Lease of a slot at each step of two holds, and the objects of enroll
//	manifests.yaml  the manifests of that version, in the order in which they are applied
//
// The earlier version's own code makes the frames and the Leases. The command copies the tests in
// tools/earlier/testdata/VERSION/tests into a copy of the earlier version, and runs them there.
// Each version needs tests of its own, because these tests name private types. The tests
// also read tools/earlier/testdata/today, with Leases that agents of this version write (make
// golden). Equal revisions make equal files.
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
	"strings"

	"github.com/rogpeppe/go-internal/txtar"
	"sigs.k8s.io/yaml"

	"github.com/metaparticle-io/metaparticle/tools/render"
)

// versions is the directory that has a folder for each earlier version.
const versions = "tools/earlier/testdata"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "earlier:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("earlier", flag.ContinueOnError)
	from := flags.String("from", "", "`revision` of the earlier version")
	version := flags.String("version", "", "name of the earlier version, and of its folders")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *from == "" || *version == "" {
		return errors.New("name the revision and the version: -from REVISION -version v1.0.0-rc.1")
	}
	temporary, err := os.MkdirTemp("", "metaparticle-earlier-")
	if err != nil {
		return fmt.Errorf("make a directory: %w", err)
	}
	defer func() { _ = os.RemoveAll(temporary) }()
	v := earlier{tree: filepath.Join(temporary, "tree"), made: filepath.Join(temporary, "made"), into: filepath.Join(versions, *version)}
	for _, folder := range []string{v.tree, v.made, v.into} {
		if err := os.MkdirAll(folder, 0o755); err != nil {
			return fmt.Errorf("make a directory: %w", err)
		}
	}
	if err := checkOut(ctx, *from, v.tree); err != nil {
		return err
	}
	if err := v.ask(ctx, filepath.Join(v.into, "tests"), filepath.Join(versions, "today")); err != nil {
		return err
	}
	for _, write := range []func() error{v.pods, v.frames, v.leases, v.manifests} {
		if err := write(); err != nil {
			return err
		}
	}
	fmt.Fprintln(out, "wrote", v.into)
	return nil
}

// checkOut writes the files of a Git revision into the directory.
func checkOut(ctx context.Context, revision, directory string) error {
	archive := filepath.Join(filepath.Dir(directory), "tree.tar")
	if err := command(ctx, "", nil, "git", "archive", "-o", archive, revision); err != nil {
		return err
	}
	return command(ctx, "", nil, "tar", "-xf", archive, "-C", directory)
}

// command runs a command. If the command fails, the error contains the command's output.
func command(ctx context.Context, directory string, environment []string, words ...string) error {
	c := exec.CommandContext(ctx, words[0], words[1:]...)
	c.Dir, c.Env = directory, append(os.Environ(), environment...)
	if output, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", strings.Join(words, " "), err, output)
	}
	return nil
}

// earlier is an earlier version of Metaparticle.
type earlier struct {
	// tree is the directory with the files of the earlier version. The field "made" is the
	// directory into which the tests in the tree write.
	tree, made string
	// into is the folder in tools/earlier/testdata that gets the collected files.
	into string
}

// ask copies the given tests into the tree, and runs these tests there.
func (v earlier) ask(ctx context.Context, tests, today string) error {
	packages := map[string]bool{}
	err := filepath.WalkDir(tests, func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		relative, err := filepath.Rel(tests, path)
		if err != nil {
			return err
		}
		packages["./"+filepath.Dir(relative)] = true
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(v.tree, relative), text, 0o644)
	})
	if err != nil {
		return fmt.Errorf("copy the tests: %w", err)
	}
	if today, err = filepath.Abs(today); err != nil {
		return err
	}
	words := []string{"go", "test", "-count=1", "-timeout=120s", "-run=^TestEarlier"}
	for name := range packages {
		words = append(words, name)
	}
	return command(ctx, v.tree, []string{"EARLIER=" + v.made, "TODAY=" + today}, words...)
}

// pods collects the gated pods of the earlier version's files in mutate/testdata.
func (v earlier) pods() error {
	files, err := filepath.Glob(filepath.Join(v.tree, "mutate/testdata/*.txtar"))
	if err != nil {
		return err
	}
	all := &txtar.Archive{Comment: []byte("Made by go run ./tools/earlier. Do not edit.\n")}
	for _, file := range files {
		pair, err := txtar.ParseFile(file)
		if err != nil {
			return err
		}
		name := strings.TrimSuffix(filepath.Base(file), ".txtar")
		parts := map[string][]byte{}
		for _, part := range pair.Files {
			parts[part.Name] = part.Data
		}
		if !gated(parts["patched.yaml"]) {
			continue
		}
		for _, part := range []string{"facts.yaml", "patched.yaml"} {
			all.Files = append(all.Files, txtar.File{Name: name + "/" + part, Data: parts[part]})
		}
	}
	return v.write("pods.txtar", txtar.Format(all))
}

// gated reports whether the object is a pod with the label of a gated pod.
func gated(text []byte) bool {
	var object struct {
		Kind     string
		Metadata struct{ Labels map[string]string }
	}
	return yaml.Unmarshal(text, &object) == nil && object.Kind == "Pod" && object.Metadata.Labels["metaparticle.io/gated"] != ""
}

func (v earlier) frames() error { return v.collect("frames.txtar", "message-*", "order-*") }

func (v earlier) leases() error { return v.collect("leases.txtar", "lease-*", "enrolled-*") }

// collect writes the files that the tests made into one archive.
func (v earlier) collect(archive string, patterns ...string) error {
	all := &txtar.Archive{Comment: []byte("Made by go run ./tools/earlier. Do not edit.\n")}
	for _, pattern := range patterns {
		files, err := filepath.Glob(filepath.Join(v.made, pattern))
		if err != nil {
			return err
		}
		if len(files) == 0 {
			return fmt.Errorf("the tests made no file %s", pattern)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				return err
			}
			all.Files = append(all.Files, txtar.File{Name: filepath.Base(file), Data: text})
		}
	}
	return v.write(archive, txtar.Format(all))
}

func (v earlier) manifests() error {
	objects, err := render.Objects(render.Settings{Manifests: filepath.Join(v.tree, "manifests")})
	if err != nil {
		return err
	}
	var text bytes.Buffer
	if err := render.Print(&text, objects); err != nil {
		return err
	}
	return v.write("manifests.yaml", text.Bytes())
}

func (v earlier) write(name string, text []byte) error {
	return os.WriteFile(filepath.Join(v.into, name), text, 0o644)
}
