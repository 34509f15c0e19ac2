// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"

	"github.com/metaparticle-io/metaparticle/test/cluster/lab/build"
	"github.com/metaparticle-io/metaparticle/test/cluster/lab/config"
	"github.com/metaparticle-io/metaparticle/test/cluster/lab/daemon"
	"github.com/metaparticle-io/metaparticle/test/cluster/lab/kubectl"
	"github.com/metaparticle-io/metaparticle/test/cluster/lab/process"
	"github.com/metaparticle-io/metaparticle/test/cluster/lab/state"
	"github.com/metaparticle-io/metaparticle/test/cluster/lab/wait"
)

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
