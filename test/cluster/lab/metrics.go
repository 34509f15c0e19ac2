// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package lab

import "context"

// AddMetrics adds metrics-server to a cluster that is up, from source where
// needed, and returns when the API server answers with metrics. Up leaves it
// out: metrics-server takes as long to compile as all other small programs.
func (c *Cluster) AddMetrics(ctx context.Context) error {
	unlock, err := c.lockState(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	if err := c.load(); err != nil {
		return err
	}
	if c.pid(ControlPlane, holderName) == 0 {
		return ErrDown
	}
	if c.state.Metrics {
		c.say("the cluster has metrics already")
		return nil
	}
	if err := c.build(ctx, []program{metricsServer}); err != nil {
		return err
	}
	manifest, err := render("metrics.yaml", c.values(node{}))
	if err != nil {
		return err
	}
	// The control plane bound its rights before the nodes came.
	if err := c.startComponent(ctx, node{Name: ControlPlane}, metrics); err != nil {
		return err
	}
	if err := c.kubectl(ctx, manifest, "apply", "--server-side", "--validate=false", "-f", "-"); err != nil {
		return err
	}
	err = c.kubectl(ctx, nil, "wait", "--for=condition=Available", "--timeout="+readyLimit.String(),
		"apiservice/v1beta1.metrics.k8s.io")
	if err != nil {
		return err
	}
	c.state.Metrics = true
	c.say("the cluster has metrics")
	return c.save()
}
