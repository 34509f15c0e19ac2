// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package api

import "time"

// Probe is a container's probe as the pod's author declared it, before the webhook redirected
// the probe to the agent. The JSON is that of corev1.Probe, with Kubernetes' defaults filled
// in.
type Probe struct {
	Handler
	InitialDelaySeconds int `json:"initialDelaySeconds,omitempty"`
	TimeoutSeconds      int `json:"timeoutSeconds"`
	PeriodSeconds       int `json:"periodSeconds"`
	SuccessThreshold    int `json:"successThreshold"`
	FailureThreshold    int `json:"failureThreshold"`
	// TerminationGracePeriodSeconds is nil if the pod's own grace period applies.
	TerminationGracePeriodSeconds *int64 `json:"terminationGracePeriodSeconds,omitempty"`
}

// InitialDelay returns the time from the start of the child to the first probe.
func (p *Probe) InitialDelay() time.Duration { return seconds(p.InitialDelaySeconds) }

// Timeout returns the time that one probe may take.
func (p *Probe) Timeout() time.Duration { return seconds(p.TimeoutSeconds) }

// Period returns the time from one probe to the next.
func (p *Probe) Period() time.Duration { return seconds(p.PeriodSeconds) }

func seconds(n int) time.Duration { return time.Duration(n) * time.Second }

// Probes are the probes of one gated container. A field is nil if the container lacks that probe.
type Probes struct {
	Startup   *Probe `json:"startup,omitempty"`
	Readiness *Probe `json:"readiness,omitempty"`
	Liveness  *Probe `json:"liveness,omitempty"`
}

// These are the names of the two probes that the kubelet itself runs. The agent's paths and
// commands contain these names.
const (
	LivenessProbe  = "liveness"
	ReadinessProbe = "readiness"
)

// ProbePath returns the path at which the agent answers a container's probe.
func ProbePath(container, probe string) string { return "/probe/" + container + "/" + probe }
