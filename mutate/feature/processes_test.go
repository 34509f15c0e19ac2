// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package feature

import (
	"testing"

	"github.com/stretchr/testify/assert"
	corev1 "k8s.io/api/core/v1"

	"github.com/metaparticle-io/metaparticle/api"
)

func TestPodThatExposesAgentCredentialsGetsAWarning(t *testing.T) {
	claim := func(gate api.Gate) api.Request {
		return api.Request{Claimed: []api.Claim{{Kind: api.Singleton, Size: 1}}, Gate: gate}
	}
	for name, test := range map[string]struct {
		spec    corev1.PodSpec
		request api.Request
		warned  bool
	}{
		"shared, gate pod":        {corev1.PodSpec{ShareProcessNamespace: new(true), AutomountServiceAccountToken: new(false)}, claim(api.GatePod), true},
		"processes of the node":   {corev1.PodSpec{HostPID: true, AutomountServiceAccountToken: new(false)}, claim(api.GateReadiness), true},
		"application has a token": {corev1.PodSpec{HostPID: true}, claim(api.GatePod), false},
		"pod asks for a token":    {corev1.PodSpec{HostPID: true, AutomountServiceAccountToken: new(true)}, claim(api.GatePod), false},
		"not shared":              {corev1.PodSpec{ShareProcessNamespace: new(false), AutomountServiceAccountToken: new(false)}, claim(api.GatePod), false},
		"no claim":                {corev1.PodSpec{HostPID: true, AutomountServiceAccountToken: new(false)}, api.Request{Gate: api.GatePod}, false},
		"refused, for processes":  {corev1.PodSpec{HostPID: true, AutomountServiceAccountToken: new(false)}, claim(api.GateContainer), false},
	} {
		assert.Equal(t, test.warned, len(warnOfToken(&Pod{Facts: Facts{Pod: &corev1.Pod{Spec: test.spec}, Request: test.request}})) > 0, name)
	}
}
