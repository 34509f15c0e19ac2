// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Command alerts prints the alerts of monitoring/rules.yaml, with shorter durations for a test
// of a person's own installation.
//
//	go run ./tools/alerts -faster 20
package main

import (
	"flag"
	"fmt"
	"os"

	"github.com/metaparticle-io/metaparticle/monitoring"
)

func main() {
	faster := flag.Int("faster", 1, "divide each duration by this number")
	object := flag.Bool("object", false, "print a PrometheusRule")
	flag.Parse()
	if *faster < 1 {
		fmt.Fprintln(os.Stderr, "alerts: -faster needs 1 or more")
		os.Exit(2)
	}
	rules := monitoring.Faster(monitoring.Rules, *faster)
	if *object {
		rules = monitoring.Object(rules)
	}
	fmt.Print(rules)
}
