// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/metaparticle-io/metaparticle/test/cluster/lab"
)

var (
	soak     = flag.Duration("soak", 2*time.Minute, "how long pods are deleted and killed in TestNeverTwoUnderPodDeletionsAndKills")
	registry = flag.String("registry", "",
		"host/prefix that nodes pull from, for test/app's image; empty: the test cluster's own")
	keep = flag.Bool("keep", false, "keep the namespaces of failed tests")
)

// cluster is what the tests run on.
var cluster struct {
	config *rest.Config
	client kubernetes.Interface
	// lab does faults and shares its clock; nil on a cluster of the user's own.
	lab *lab.Cluster
	// kubeconfig is for kubectl.
	kubeconfig string
}

func TestMain(m *testing.M) {
	flag.Parse()
	// The tests wait for the cluster most of the time: far more of them at
	// once than there are CPUs, but not so many that a small machine starves
	// the deadlines under test.
	if !set("test.parallel") {
		if err := flag.Set("test.parallel", "5"); err != nil {
			panic(err)
		}
	}
	if err := connect(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func set(name string) (found bool) {
	flag.Visit(func(f *flag.Flag) { found = found || f.Name == name })
	return found
}

// connect finds the cluster: that of KUBECONFIG, or the checkout's own.
func connect(ctx context.Context) error {
	own, err := lab.Open("")
	if err != nil {
		return err
	}
	cluster.kubeconfig = own.Kubeconfig()
	if named := os.Getenv("KUBECONFIG"); named != "" {
		cluster.kubeconfig = named
	}
	if same(cluster.kubeconfig, own.Kubeconfig()) {
		cluster.lab = own
	}
	cluster.config, err = clientcmd.BuildConfigFromFlags("", cluster.kubeconfig)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("no cluster: make cluster, make install, or set KUBECONFIG: %w", err)
	}
	if err != nil {
		return err
	}
	// The tests must not wait for their own rate limit.
	cluster.config.QPS = -1
	cluster.config.WarningHandler = rest.NoWarnings{}
	if cluster.client, err = kubernetes.NewForConfig(cluster.config); err != nil {
		return err
	}
	switch {
	case *registry != "":
		return pushApp(ctx, *registry, *registry)
	case cluster.lab == nil:
		return errors.New("on a cluster of your own, name a registry that its nodes pull from: REGISTRY=host/prefix")
	}
	return pushApp(ctx, cluster.lab.Registry(), lab.RegistryInCluster)
}

func same(a, b string) bool {
	a, errA := filepath.EvalSymlinks(a)
	b, errB := filepath.EvalSymlinks(b)
	return errA == nil && errB == nil && a == b
}

// needLab skips a test that needs the test cluster, for a reason.
func needLab(t *testing.T, reason string) *lab.Cluster {
	t.Helper()
	if cluster.lab == nil {
		t.Skipf("only on the test cluster (make cluster): %s", reason)
	}
	return cluster.lab
}
