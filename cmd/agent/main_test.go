// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"os"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/metaparticle-io/metaparticle/agent/gated"
	"github.com/metaparticle-io/metaparticle/api"
)

// shimRoles are the roles of the shim's program (cmd/shim).
var shimRoles = gated.Roles{api.ExecRole: gated.Exec, api.ProbeRole: gated.Probe}

// As in the image, the shim's program lies beside the agent's program.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"agent":     main,
		shimProgram: func() { os.Exit(shimRoles.Run(context.Background(), os.Args[1:], shimProgram)) },
	})
}

// TestAgentBinaryFulfillsEachScriptInTestdata runs the scripts in testdata. If the test does not
// run as root, the scripts skip the parts that need root.
func TestAgentBinaryFulfillsEachScriptInTestdata(t *testing.T) {
	t.Parallel()
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		Condition: func(cond string) (bool, error) {
			return cond == "root" && os.Getuid() == 0, nil
		},
	})
}
