// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Command webhook injects the agent into pods that claim a slot, and carries workloads'
// annotations to their templates. The command also enrolls namespaces: enroll makes the
// Leases and Roles that the agents need.
//
// Every replica answers the API server. Only the elected replica enrolls. Two enrolling replicas
// would do no harm, but would send the API server more requests.
//
// If the first argument is "try", "begin-uninstall" or "end-uninstall", the command takes that one
// step of an installation and ends. The hooks of the Helm chart start the command in this way.
//
// If the first argument is "console", the command is the console: a server that shows all slots,
// and writes nothing.
package main

import (
	"context"
	"fmt"
	"io"
	"os"

	ctrl "sigs.k8s.io/controller-runtime"
)

func main() {
	if err := start(ctrl.SetupSignalHandler(), os.Args[1:], os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "webhook:", err)
		os.Exit(1)
	}
}

// start runs the webhook, or takes the step that the first argument names.
func start(ctx context.Context, args []string, output io.Writer) error {
	if len(args) > 0 && args[0] == "console" {
		return showSlots(ctx, args[1:], output)
	}
	if len(args) > 0 {
		if do, ok := steps[args[0]]; ok {
			return take(ctx, do, args[1:], output)
		}
	}
	return run(ctx, args, output)
}
