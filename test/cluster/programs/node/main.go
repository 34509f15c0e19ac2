// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Command node has the programs that the test cluster needs besides Kubernetes. These are the image
// registry, the pause container and the forwarder for clients on the host. Two more programs are
// the first process of a node's namespaces, and the launcher of the node's daemons. The name by
// which the command is called, or the first argument, selects the program.
package main

import (
	"fmt"
	"os"
	"path/filepath"
)

func main() {
	program, args := filepath.Base(os.Args[0]), os.Args[1:]
	if program == "node" && len(args) > 0 {
		program, args = args[0], args[1:]
	}
	if err := run(program, args); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", program, err)
		os.Exit(1)
	}
}

func run(program string, args []string) error {
	switch program {
	case "launch":
		return launch(args)
	case "daemon":
		return daemon(args)
	case "holder":
		return holder(args)
	case "pause":
		pause()
		return nil
	case "registry":
		return serveRegistry(args)
	case "forward":
		return forward(args)
	}
	return fmt.Errorf("unknown program")
}
