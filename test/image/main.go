// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Command image makes a container image of Debian packages, or of one static executable file,
// without a container engine. The result is a tarball for `cluster push`.
//
//	go run ./image -packages redis-server -entrypoint redis-server \
//		-cmd "--protected-mode no" -user redis -workdir /var/lib/redis -port 6379/tcp -o redis.tar
//	go run ./image -app postgresql -o postgresql.tar
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/metaparticle-io/metaparticle/test/image/apps"
	"github.com/metaparticle-io/metaparticle/test/image/oci"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "image:", err)
		os.Exit(1)
	}
}

// words are arguments that are separated by blanks. The word "" means an empty
// argument.
type words []string

func (w *words) String() string { return strings.Join(*w, " ") }

func (w *words) Set(value string) error {
	for word := range strings.FieldsSeq(value) {
		if word == `""` {
			word = ""
		}
		*w = append(*w, word)
	}
	return nil
}

func run(ctx context.Context, args []string) error {
	var config oci.Config
	flags := flag.NewFlagSet("image", flag.ContinueOnError)
	packages := flags.String("packages", "", "Debian packages, separated by commas")
	app := flags.String("app", "", "or instead one of the apps: "+strings.Join(apps.Names(), ", "))
	static := flags.String("static", "", "or instead one static program")
	flags.Var((*words)(&config.Entrypoint), "entrypoint", "words of the entrypoint")
	flags.Var((*words)(&config.Cmd), "cmd", `words of the default arguments; "" is an empty one`)
	flags.Var((*words)(&config.Env), "env", "NAME=value words")
	flags.Var((*words)(&config.Ports), "port", "ports, such as 6379/tcp")
	flags.StringVar(&config.User, "user", "", "user; a name of the packages' is stored as numbers")
	flags.StringVar(&config.StopSignal, "stopsignal", "", "signal that asks it to stop; default is SIGTERM")
	flags.Func("files", "directory of files to lay over the rest", func(dir string) error {
		config.Files = os.DirFS(dir)
		return nil
	})
	flags.StringVar(&config.WorkingDir, "workdir", "", "working directory")
	reference := flags.String("reference", "", "name in the tarball; default is the first package's")
	out := flags.String("o", "", "tarball to write")
	if err := flags.Parse(args); err != nil {
		return err
	}
	what := slices.DeleteFunc([]string{*packages, *static, *app}, func(s string) bool { return s == "" })
	if *out == "" || len(what) != 1 {
		return errors.New("needs -o, and one of -packages, -static and -app")
	}
	var img v1.Image
	var err error
	name := filepath.Base(what[0])
	switch {
	case *static != "":
		img, err = oci.Static(*static, name, config, oci.Compressed)
	case *app != "":
		img, err = apps.Image(ctx, name, oci.Compressed)
	default:
		list := strings.Split(*packages, ",")
		name = list[0]
		img, err = oci.Debian(ctx, list, config, oci.Compressed)
	}
	if err != nil {
		return err
	}
	if *reference == "" {
		*reference = name + ":latest"
	}
	return oci.Write(*out, *reference, img)
}
