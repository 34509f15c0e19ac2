// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/metaparticle-io/metaparticle/api"
)

func TestShimHasOnlyTheRolesOfGatedContainers(t *testing.T) {
	for name, c := range map[string]struct {
		args []string
		code int
	}{
		"no role":                 {nil, api.ExitUsage},
		"the agent's role":        {[]string{api.RunRole, "-slots=lock.a"}, api.ExitUsage},
		"shim without a command":  {[]string{api.ExecRole, "-container=app", "--"}, api.ExitUsage},
		"probe without a name":    {[]string{api.ProbeRole}, api.ExitUsage},
		"hook that sleeps":        {[]string{api.HandleRole, `{"sleep":{"seconds":0}}`}, 0},
		"hook of another program": {[]string{api.HandleRole, `{"httpGet":{"port":1}}`}, 1},
		"liveness without agent":  {[]string{api.ProbeRole, api.LivenessProbe, "-container=app", "-socket=missing"}, 0},
		"readiness without agent": {[]string{api.ProbeRole, api.ReadinessProbe, "-container=app", "-socket=missing"}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			assert.Equal(t, c.code, commands.Run(t.Context(), c.args, "shim"))
		})
	}
}
