// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/metaparticle-io/metaparticle/api"
)

// The kubelet asks a startup probe once a period, then the readiness probe at once.
// It starts to count at any instant within a period; the agent at the child's start.
func TestHolderIsReadyAsSoonAsWithoutUs(t *testing.T) {
	for name, tt := range map[string]struct {
		delay, period int
		up, latest    time.Duration
	}{
		"at once":                 {0, 10, 0, 0},
		"while it settles":        {0, 10, 800 * time.Millisecond, time.Second},
		"after a while":           {0, 5, 12 * time.Second, 17 * time.Second},
		"before its delay":        {20, 5, 12 * time.Second, 20 * time.Second},
		"after its delay":         {7, 5, 12500 * time.Millisecond, 17500 * time.Millisecond},
		"with a short period":     {0, 1, 24300 * time.Millisecond, 25300 * time.Millisecond},
		"after a delay, a second": {10, 1, 24300 * time.Millisecond, 25300 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			probes := api.Probes{
				Startup: declared("startup", func(p *api.Probe) {
					p.InitialDelaySeconds, p.PeriodSeconds, p.FailureThreshold = tt.delay, tt.period, 100
				}),
				Readiness: declared("readiness", nil),
			}
			bubble(t, probes, func(a *app) {
				ups := func() {
					a.answer("startup", passes)
					a.answer("readiness", passes)
				}
				if tt.up == 0 {
					ups()
				}
				a.runs("h1")
				a.pass(tt.up)
				assert.Equal(t, http.StatusOK, a.kubelet(api.ReadinessProbe).Code, "containerStatuses tell nothing of a child that is starting")
				ups()
				a.pass(tt.latest - tt.up)
				assert.True(t, a.Ready())
			})
		})
	}
}
