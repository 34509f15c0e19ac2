// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"strings"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/leave"
	"github.com/metaparticle-io/metaparticle/api"
)

// leaving is a hold's way out of the pod's Services. Package leave decides, and leaving
// remembers what the decisions depend on.
type leaving struct {
	leave leave.Leave
	leave.Decision
	// turn is the revision of the pod that follows; zero if that pod begins no turn.
	turn api.Revision
	// asked: the API server was asked about the pod's deletion. The other fields have its
	// answer, as in [leave.Facts].
	asked, known, deleted bool
	ends                  time.Duration
}

// endpointDelay returns the time that a holder takes to leave its Services. The time is zero
// for a pod whose ports never change hands, or whose slot has no next Lease.
func (u *unit) endpointDelay() time.Duration {
	if !u.rollout.ordered() || len(u.config.Ports) == 0 {
		return 0
	}
	return u.config.EndpointDelay
}

// replaced reports whether the pod's controller deletes an old pod that is not Ready,
// however few are Ready.
func (u *unit) replaced() bool {
	kind, _, _ := strings.Cut(u.config.Workload, "/")
	return kind == "StatefulSet" || kind == "DaemonSet"
}
