// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/metaparticle-io/metaparticle/test/e2e/applications"
	"github.com/metaparticle-io/metaparticle/test/e2e/exclusive"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/client"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/cluster"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/share"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/software"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/space"
	"github.com/metaparticle-io/metaparticle/test/e2e/operations"
	"github.com/metaparticle-io/metaparticle/test/e2e/rollouts"
)

// TestMain connects to the cluster once for the tests of all folders. If the first argument is
// [client.Role], TestMain runs only a client, and no test.
func TestMain(m *testing.M) {
	if len(os.Args) == 4 && os.Args[1] == client.Role {
		if err := client.Run(os.Args[2], os.Args[3], os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, "client:", err)
			os.Exit(1)
		}
		return
	}
	flag.DurationVar(&exclusive.Soak, "soak", exclusive.Soak, "how long pods are deleted and killed in TestApplicationStaysExclusiveDespiteDeletionsAndKills")
	flag.BoolVar(&software.Every, "every-fault", false, "with -share, also run the tests of make soak; each application of TestGateKeeps… meets every fault")
	flag.StringVar(&rollouts.Rows, "rows", "", "which kinds of workloads are in the table of rollouts; empty: no table")
	flag.StringVar(&applications.SyncTree, "sync", "", "directory with the sources of metaparticle/sync; empty: its example programs are not run")
	flag.StringVar(&operations.Earlier, "from", "", "revision of an earlier version, to upgrade from; empty: no upgrade")
	flag.DurationVar(&operations.Flood, "flood", operations.Flood, "how long an account floods the API server in TestRenewalsArePunctualWhileAnotherAccountFloodsTheAPIServer")
	flag.BoolVar(&operations.Unprotected, "unprotected", false, "that test then floods again, without the FlowSchemas")
	flag.BoolVar(&space.Keep, "keep", false, "keep the namespaces of failed tests")
	registry := flag.String("registry", "",
		"host/prefix that nodes pull from, for test/app's image; empty: the test cluster's own")
	own := flag.String("share", "", "which tests run: I/N for the serial tests of cluster I among N clusters, parallel for the parallel tests, commit for those of make test; empty: all tests")
	flag.Parse()
	// The tests wait for the cluster most of the time, so more tests run at once than there are
	// CPUs. With four tests on two CPUs, the CPUs were still idle for a fifth of the time.
	if !set("test.parallel") {
		if err := flag.Set("test.parallel", strconv.Itoa(min(5, runtime.NumCPU()+3))); err != nil {
			panic(err)
		}
	}
	skipped, err := share.Outside(*own, serial, parallel)
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		os.Exit(2)
	}
	if *own != "" && !software.Every {
		skipped = slices.AppendSeq(slices.Clone(skipped), maps.Keys(share.Soak))
	}
	if len(skipped) > 0 && !set("test.skip") {
		if err := flag.Set("test.skip", "^("+strings.Join(skipped, "|")+")$"); err != nil {
			panic(err)
		}
	}
	if err := cluster.Connect(context.Background(), *registry); err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		os.Exit(1)
	}
	stop, err := space.StartGauge(context.Background())
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		os.Exit(1)
	}
	code := m.Run()
	stop()
	if code == 0 && !space.Opened() && !set("test.list") {
		fmt.Fprintln(os.Stderr, "e2e: no test has run: compare -test.run with the names in e2e_test.go; make needs $$ for $")
		code = 1
	}
	os.Exit(code)
}

// set reports whether the command line sets a flag.
func set(name string) (found bool) {
	flag.Visit(func(f *flag.Flag) { found = found || f.Name == name })
	return found
}
