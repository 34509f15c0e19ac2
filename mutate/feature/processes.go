// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package feature

import (
	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/mutate/reason"
)

// sharesProcesses reports whether the pod's containers share one process namespace.
func (p *Pod) sharesProcesses() bool {
	return p.Spec.ShareProcessNamespace != nil && *p.Spec.ShareProcessNamespace
}

// judgeProcesses refuses a shared process namespace. In such a namespace a shim is not PID
// 1, so the end of the shim would not prove that its descendants are dead.
func judgeProcesses(p *Pod) reason.Refusals {
	var refusals reason.Refusals
	if !api.HasShims(p.Request) {
		return nil
	}
	if p.Spec.HostPID {
		refusals.Add(reason.SharedProcesses, "the pod sets hostPID")
	}
	if p.sharesProcesses() {
		refusals.Add(reason.SharedProcesses, "the pod sets shareProcessNamespace")
	}
	return refusals
}

// warnOfToken warns if the application can read the agent's service account token and has no token
// of its own. An application with a token of its own has the same rights already. Pods with shims
// may not share processes, so the warning concerns only the other gates.
func warnOfToken(p *Pod) reason.Refusals {
	var warnings reason.Refusals
	shares := p.Spec.HostPID || p.sharesProcesses()
	without := p.Spec.AutomountServiceAccountToken != nil && !*p.Spec.AutomountServiceAccountToken
	switch {
	case !p.Request.Claims() || p.Request.Shims() || !shares || !without:
	case p.Request.Gate == api.GateProgram:
		warnings.Add(reason.TokenInReach, "%s is set, and the pod shares its processes", api.LocalAnnotation)
	default:
		warnings.Add(reason.TokenInReach, "%s is %q, and the pod shares its processes", api.GateAnnotation, p.Request.Gate)
	}
	return warnings
}
