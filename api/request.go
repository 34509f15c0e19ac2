// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package api

import "time"

// Request is what the annotations of a pod ask for. The zero value asks for
// nothing.
type Request struct {
	// Singleton: of all pods of this workload, one runs. SingletonName is
	// empty for "true".
	Singleton     bool
	SingletonName string
	// Locks are the names of locks, sorted and without doubles.
	Locks []string
	// Containers are the gated containers by name; empty means the default.
	Containers []string
	// LeaseDuration is zero where the annotation is absent.
	LeaseDuration time.Duration
	// OnLoss and Readiness are empty where the annotation is absent.
	OnLoss    OnLoss
	Readiness Readiness
	// Gate is empty where the annotation is absent.
	Gate Gate
	// OptOut is set by inject: "false".
	OptOut bool
}

// Claims: the request asks for at least one slot.
func (r Request) Claims() bool { return r.Singleton || len(r.Locks) > 0 }

// OnLoss is what becomes of a container whose slot was lost or yielded.
type OnLoss string

const (
	// OnLossStandby stands by again in the same container (the default).
	OnLossStandby OnLoss = "standby"
	// OnLossRestart ends the container, so that a fresh one stands by.
	OnLossRestart OnLoss = "restart"
	// OnLossEnd ends the container for good. No annotation asks for it: the webhook
	// tells it to a shim that the kubelet does not start again.
	OnLossEnd OnLoss = "end"
)

// Readiness is how standbys look to Services and rollouts.
type Readiness string

const (
	// ReadinessForward (the default): a standby is Ready while the slot is in
	// good hands, and forwards its declared TCP ports to the holder.
	ReadinessForward Readiness = "forward"
	// ReadinessHolder: the holder alone is Ready.
	ReadinessHolder Readiness = "holder"
)

// Gate is how the application is held back.
type Gate string

const (
	// GateContainer (the default): a shim in each gated container.
	GateContainer Gate = "container"
	// GatePod: the kubelet starts the pod's containers when the slot is held,
	// and restarts them all when it is lost.
	GatePod Gate = "pod"
	// GateReadiness: nothing is held back; the holder alone is Ready.
	GateReadiness Gate = "readiness"
)

// Shims: the gate is in the containers themselves.
func (r Request) Shims() bool { return r.Gate == "" || r.Gate == GateContainer }

// Standbys is how standbys look. Where no shim waits in their containers there
// is no standby that could be Ready: it has not started, or it must not serve.
func (r Request) Standbys() Readiness {
	switch {
	case !r.Shims():
		return ReadinessHolder
	case r.Readiness == "":
		return ReadinessForward
	}
	return r.Readiness
}
