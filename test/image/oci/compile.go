// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"context"
	"fmt"
	"os"
	"os/exec"
)

// TestApp is the application of the tests and benchmarks, for [Compile].
const TestApp = "github.com/metaparticle-io/metaparticle/test/app"

// Compile builds a command of this module as one static executable file, for [Static].
func Compile(ctx context.Context, command, out string) error {
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", out, command)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if said, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w\n%s", command, err, said)
	}
	return nil
}
