// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"runtime/debug"
)

// release is the version of this build, if the build belongs to a release. The linker then writes
// the version into this variable.
var release string

// versionOfBuild returns the version of this build. If the build belongs to no release, the
// function returns the version that Go makes from the commit of the checkout.
func versionOfBuild() string {
	built, ok := debug.ReadBuildInfo()
	if release == "" && ok {
		return built.Main.Version
	}
	return cmp.Or(release, "unknown")
}

const versionUsage = `Prints the version of this plugin. Without a cluster, the command cannot tell the
version of the installation: see kubectl metaparticle check.

  kubectl metaparticle version
`

func versionCommand(_ context.Context, args []string, std stdio) (int, error) {
	flags := flag.NewFlagSet("version", flag.ContinueOnError)
	flags.SetOutput(std.out)
	flags.Usage = func() { fmt.Fprint(std.out, versionUsage) }
	rest, err := parse(flags, args)
	switch {
	case err != nil:
		return exitError, err
	case len(rest) > 0:
		return exitError, fmt.Errorf("version takes no argument: leave out %q", rest[0])
	}
	say(std.out, "%s", versionOfBuild())
	return exitOK, nil
}
