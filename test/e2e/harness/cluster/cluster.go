// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/metaparticle-io/metaparticle/test/cluster/lab"
)

// Connect sets these variables, which describe the tests' cluster.
var (
	Config *rest.Config
	Client kubernetes.Interface
	// Lab is the test cluster, which can inject faults. Lab is nil on a cluster of the
	// user's own.
	Lab *lab.Cluster
	// Kubeconfig is the file for kubectl.
	Kubeconfig string
	// Minor is the minor version of Kubernetes 1, such as 33 for Kubernetes 1.33.
	Minor int
)

// Connect finds the cluster: the cluster of KUBECONFIG, or the test cluster of this checkout. Then
// Connect pushes the test application's images to the registry. An empty registry means the
// registry of the test cluster. On a cluster of the user's own, an empty registry is an error.
func Connect(ctx context.Context, registry string) error {
	own, err := lab.Open("")
	if err != nil {
		return err
	}
	Kubeconfig = own.Kubeconfig()
	if named := os.Getenv("KUBECONFIG"); named != "" {
		Kubeconfig = named
	}
	if same(Kubeconfig, own.Kubeconfig()) {
		Lab = own
	}
	Config, err = clientcmd.BuildConfigFromFlags("", Kubeconfig)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("no cluster: make cluster, make install, or set KUBECONFIG: %w", err)
	}
	if err != nil {
		return err
	}
	// A negative QPS switches client-go's rate limit off, because no test should wait for
	// it.
	Config.QPS = -1
	Config.WarningHandler = rest.NoWarnings{}
	if Client, err = kubernetes.NewForConfig(Config); err != nil {
		return err
	}
	if err := readMinor(); err != nil {
		return err
	}
	switch {
	case registry != "":
		return pushApp(ctx, registry, registry)
	case Lab == nil:
		return errors.New("on a cluster of your own, name a registry that its nodes pull from: REGISTRY=host/prefix")
	}
	return pushApp(ctx, Lab.Registry(), lab.RegistryInCluster)
}

// same reports whether two names mean one file.
func same(a, b string) bool {
	a, errA := filepath.EvalSymlinks(a)
	b, errB := filepath.EvalSymlinks(b)
	return errA == nil && errB == nil && a == b
}

// NeedLab returns the test cluster. On a cluster of the user's own, NeedLab skips the test, and
// prints the reason.
func NeedLab(t *testing.T, reason string) *lab.Cluster {
	t.Helper()
	if Lab == nil {
		t.Skipf("only on the test cluster (make cluster): %s", reason)
	}
	return Lab
}
