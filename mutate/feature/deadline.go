// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package feature

import (
	"time"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/mutate/reason"
)

// warnOfDeadline warns of a pod whose own deadline includes the time for which the pod waits.
func warnOfDeadline(p *Pod) reason.Refusals {
	return WarnOfDeadline("the pod's", p.Spec.ActiveDeadlineSeconds, p.Request)
}

// WarnOfDeadline warns of a deadline of a pod or a Job, which may be over before the application has
// run. The argument "whose" is for the warning.
func WarnOfDeadline(whose string, seconds *int64, r api.Request) reason.Refusals {
	var warnings reason.Refusals
	waits := len(r.After) > 0 || r.Barrier.Size > 0 || r.Claims() && r.Gate != api.GateProgram && r.Gate != api.GateReadiness && r.OnBusy != api.OnBusySkip
	if seconds == nil || !waits || r.WaitAtMost > 0 && r.WaitAtMost < time.Duration(*seconds)*time.Second {
		return nil
	}
	warnings.Add(reason.WaitingCounts, "%s activeDeadlineSeconds is %d", whose, *seconds)
	return warnings
}
