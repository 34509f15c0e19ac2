// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/metaparticle-io/metaparticle/test/cluster/lab/addons"
	"github.com/metaparticle-io/metaparticle/test/cluster/lab/build"
	"github.com/metaparticle-io/metaparticle/test/cluster/lab/cgroup"
	"github.com/metaparticle-io/metaparticle/test/cluster/lab/config"
	"github.com/metaparticle-io/metaparticle/test/cluster/lab/control"
	"github.com/metaparticle-io/metaparticle/test/cluster/lab/daemon"
	"github.com/metaparticle-io/metaparticle/test/cluster/lab/kubectl"
	"github.com/metaparticle-io/metaparticle/test/cluster/lab/process"
	"github.com/metaparticle-io/metaparticle/test/cluster/lab/state"
	"github.com/metaparticle-io/metaparticle/test/cluster/lab/wait"
	"github.com/metaparticle-io/metaparticle/test/cluster/lab/worker"
)

// defaultWorkers is the smallest number of workers that leaves a majority when one
// fails.
const defaultWorkers = 3

// Up starts the cluster, and builds its programs first if necessary. Up returns when all parts of
// the cluster work. If the cluster is up already with another version of Kubernetes, Up returns an
// error. If the cluster is up already with the wanted version, Up only writes the file of
// [control.MirrorOthers]. A cluster that an earlier version of Up started may lack that file.
func (c *Cluster) Up(ctx context.Context) error {
	unlock, err := c.lockState(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	if err := c.Load(); err != nil {
		return err
	}
	if process.PID(c.Lab, state.ControlPlane, state.Holder) != 0 && c.complete() {
		if c.Saved.Kubernetes != c.Kubernetes {
			return fmt.Errorf("the cluster has Kubernetes %s: remove it by make cluster-down, before one with %s", c.Saved.Kubernetes, c.Kubernetes)
		}
		if c.Saved.CertManager != c.CertManager {
			return fmt.Errorf("the cluster has cert-manager %s: remove it by make cluster-down, before one with %s", c.Saved.CertManager, c.CertManager)
		}
		c.Say("the cluster is up already")
		return control.MirrorOthers(c.Lab)
	}
	if err := build.EnsurePackages(ctx, c.Lab); err != nil {
		return err
	}
	// An interrupted start, or a machine that went down, may have left files.
	if err := c.clear(ctx); err != nil {
		return err
	}
	if err := os.MkdirAll(c.Path("bin"), 0o755); err != nil {
		return err
	}
	if err := build.Make(ctx, c.Lab, build.Programs(c.Lab)); err != nil {
		return err
	}
	c.Began = time.Now()
	c.Say("binaries are built")
	if err := c.bringUp(ctx); err != nil {
		return fmt.Errorf("%w (logs are in %s)", err, c.Path("log"))
	}
	return nil
}

// bringUp starts the parts of the cluster one after the other.
func (c *Cluster) bringUp(ctx context.Context) error {
	c.Saved = state.Saved{Workers: c.Workers, Kubernetes: c.Kubernetes, CertManager: c.CertManager}
	if c.Saved.Workers == 0 {
		c.Saved.Workers = defaultWorkers
	}
	for _, step := range []struct {
		name string
		do   func(context.Context, *state.Lab) error
	}{
		{"control plane started", control.Start},
		{"API server ready", daemon.AwaitAPIServer},
		{"controllers started", control.StartControllers},
		{"nodes started", worker.ServeAll},
		{"nodes Ready", worker.AwaitReady},
		{"cluster DNS and cert-manager installed", addons.Install},
		{"cluster DNS answers, cert-manager issues", addons.AwaitInstalled},
	} {
		if err := step.do(ctx, c.Lab); err != nil {
			return err
		}
		c.Say("%s", step.name)
	}
	return c.finish()
}

// lockState takes the lock of the state directory, so that no two commands change the directory at
// once. The returned function frees the lock.
func (c *Cluster) lockState(ctx context.Context) (func(), error) {
	if err := os.MkdirAll(c.Root, 0o755); err != nil {
		return nil, err
	}
	return wait.Lock(ctx, c.Path("lock"), func() { c.Say("another process is at work on this cluster, waiting") })
}

// complete reports whether Up has finished.
func (c *Cluster) complete() bool {
	_, err := os.Stat(c.Path("env"))
	return err == nil
}

// finish writes the file of environment variables for scripts. The file also shows that Up has
// finished.
func (c *Cluster) finish() error {
	env := fmt.Sprintf(`export KUBECONFIG=%q
export METAPARTICLE_REGISTRY=%q
export METAPARTICLE_REGISTRY_IN_CLUSTER=%q
export METAPARTICLE_SHARED=%q
export METAPARTICLE_NODES=%q
export METAPARTICLE_KUBECTL=%q
`, c.Kubeconfig(), c.Registry(), state.RegistryInCluster, c.SharedDir(), strings.Join(c.Nodes(), " "), c.Path("bin", "kubectl"))
	return os.WriteFile(c.Path("env"), []byte(env), 0o644)
}

// Down ends the cluster and removes its processes, mounts, namespaces, links, cgroups and
// state. Only its logs and its lock file stay.
func (c *Cluster) Down(ctx context.Context) error {
	unlock, err := c.lockState(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	if err := c.clear(ctx); err != nil {
		return err
	}
	c.Say("the cluster is down")
	return nil
}

// clear ends all processes, and removes all files except the lock file and the logs. The
// next start removes the logs.
func (c *Cluster) clear(ctx context.Context) error {
	groups, err := cgroup.Open()
	if err != nil {
		return err
	}
	if err := process.Recall(c.Lab); err != nil {
		return err
	}
	// With version 1 of cgroups a frozen process cannot be killed, so all processes are thawed
	// first.
	thaw := groups.ThawAll(ctx, c.Cgroup())
	if err := errors.Join(thaw, process.End(ctx, c.Lab, state.ControlPlane, state.Holder)); err != nil {
		return err
	}
	if err := groups.Drop(ctx, c.Cgroup()); err != nil {
		return err
	}
	entries, err := os.ReadDir(c.Root)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if name := entry.Name(); name != "lock" && name != "log" {
			if err := os.RemoveAll(c.Path(name)); err != nil {
				return err
			}
		}
	}
	c.Saved = state.Saved{}
	return nil
}

// AddMetrics adds metrics-server to a cluster that is up, and first builds the program if
// necessary. AddMetrics returns when the API server serves metrics. Up adds no metrics-server,
// because that program takes as long to compile as all other small programs together.
func (c *Cluster) AddMetrics(ctx context.Context) error {
	unlock, err := c.lockState(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	if err := c.Load(); err != nil {
		return err
	}
	if process.PID(c.Lab, state.ControlPlane, state.Holder) == 0 {
		return state.ErrDown
	}
	if c.Saved.Metrics {
		c.Say("the cluster has metrics already")
		return nil
	}
	if err := build.Make(ctx, c.Lab, []build.Program{build.MetricsServer}); err != nil {
		return err
	}
	manifest, err := config.Render("metrics.yaml", config.Values(c.Lab, state.Node{}))
	if err != nil {
		return err
	}
	// Metrics-server already has its rights: the start of the control plane has created the
	// bindings in rbac.yaml.
	if err := daemon.Start(ctx, c.Lab, state.Node{Name: state.ControlPlane}, daemon.Metrics); err != nil {
		return err
	}
	if err := kubectl.Run(ctx, c.Lab, manifest, "apply", "--server-side", "--validate=false", "-f", "-"); err != nil {
		return err
	}
	err = kubectl.Run(ctx, c.Lab, nil, "wait", "--for=condition=Available", "--timeout="+wait.ReadyLimit.String(),
		"apiservice/v1beta1.metrics.k8s.io")
	if err != nil {
		return err
	}
	c.Saved.Metrics = true
	c.Say("the cluster has metrics")
	return c.Save()
}
