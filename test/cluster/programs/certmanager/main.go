// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Command certmanager contains cert-manager's controller, webhook and cainjector in one file. The
// name of the command selects the program.
//
// cert-manager's own commands are in nested modules, which no Go module proxy serves. What they call
// is in the main module, and this command calls it, too. It leaves out what no certificate of a test
// needs: ACME, Vault, Venafi, gateways and the election among replicas. So only cert-manager's own
// packages remain to be compiled, and not the libraries of a dozen cloud providers.
//
// The go.mod file's name for this module lets it import cert-manager's internal packages. The same
// source compiles with the oldest version that Metaparticle supports (oldest.mod and oldest.go).
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"

	logf "github.com/cert-manager/cert-manager/pkg/logs"
)

func main() {
	logf.InitLogs()
	ctrl.SetLogger(klog.Background())
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	ctx = logf.NewContext(ctx, logf.Log)
	err := run(ctx, filepath.Base(os.Args[0]), os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, program string, args []string) error {
	switch program {
	case "controller":
		return controllers(ctx, args)
	case "webhook":
		return webhook(ctx, args)
	case "cainjector":
		return cainjectors(ctx)
	}
	return fmt.Errorf("unknown program %q: call this file by the name of a program of cert-manager", program)
}
