// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package gated

import (
	"context"
	"fmt"
	"os"

	"github.com/metaparticle-io/metaparticle/api"
)

// Roles has the function of each role of a program. The function returns the exit code, and the
// error to print, if any.
type Roles map[string]func(ctx context.Context, args []string) (int, error)

// Run runs the role that the first argument names, and returns the exit code. If no role has that
// name, Run prints the usage.
func (r Roles) Run(ctx context.Context, args []string, usage string) int {
	if len(args) == 0 || r[args[0]] == nil {
		fmt.Fprintln(os.Stderr, "usage: "+usage)
		return api.ExitUsage
	}
	code, err := r[args[0]](ctx, args[1:])
	if err != nil {
		fmt.Fprintf(os.Stderr, "metaparticle: %v\n", err)
	}
	return code
}
