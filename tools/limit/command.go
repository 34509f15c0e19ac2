// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package limit

import (
	"flag"
	"fmt"
	"io"
	"os"
)

// Command runs the main function of a command that measures the repository. The function "run"
// prints the figures that the arguments choose, or lowers the limits. If "run" returns an error,
// Command prints the error and ends the process with exit code 1.
func Command(name string, run func(w io.Writer, root string, lower bool, chosen []string) error) {
	root := flag.String("root", ".", "the repository")
	lower := flag.Bool("lower", false, "lower the limits to what is counted")
	flag.Parse()
	if err := run(os.Stdout, *root, *lower, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, name+":", err)
		os.Exit(1)
	}
}
