// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"

	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/console"
	"github.com/metaparticle-io/metaparticle/pages"
)

// showSlots runs the console until ctx ends.
func showSlots(ctx context.Context, args []string, output io.Writer) error {
	var o console.Options
	flags := flag.NewFlagSet("webhook console", flag.ContinueOnError)
	flags.SetOutput(output)
	flags.StringVar(&o.Address, "address", net.JoinHostPort("127.0.0.1", strconv.Itoa(api.ConsolePort)), "address of the page, on the loopback")
	flags.StringVar(&o.Health, "health-address", ":8081", "address of /healthz and /readyz")
	verbose := flags.Bool("verbose", false, "log more")
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		return nil
	} else if err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	o.Log = logTo(output, *verbose)
	if _, err := limitMemory(os.Getenv); err != nil {
		return err
	}
	config, err := ctrl.GetConfig()
	if err != nil {
		return fmt.Errorf("find the cluster: %w", err)
	}
	o.Docs = http.StripPrefix("/docs", pages.Handler())
	return console.Run(ctx, config, o)
}
