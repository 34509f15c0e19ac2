// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"flag"
	"fmt"
	"os"
	"testing"

	"github.com/metaparticle-io/metaparticle/test/e2e/exclusive"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/cluster"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/space"
)

func TestMain(m *testing.M) {
	flag.DurationVar(&exclusive.Soak, "soak", exclusive.Soak, "how long pods are deleted and killed in TestNeverTwoUnderPodDeletionsAndKills")
	flag.BoolVar(&space.Keep, "keep", false, "keep the namespaces of failed tests")
	registry := flag.String("registry", "",
		"host/prefix that nodes pull from, for test/app's image; empty: the test cluster's own")
	flag.Parse()
	// The tests wait for the cluster most of the time: far more of them at
	// once than there are CPUs, but not so many that a small machine starves
	// the deadlines under test.
	if !set("test.parallel") {
		if err := flag.Set("test.parallel", "5"); err != nil {
			panic(err)
		}
	}
	if err := cluster.Connect(context.Background(), *registry); err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func set(name string) (found bool) {
	flag.Visit(func(f *flag.Flag) { found = found || f.Name == name })
	return found
}
