// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package operations

import (
	"context"
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/test/e2e/harness/cluster"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/kubectl"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/space"
)

func TestCheckCommandReportsAPolicyThatDeniesNothing(t *testing.T) {
	p := newPlugin(space.New(t))
	out := p.run(0, "check", "--image", cluster.Image, "-o", "json")
	var judged struct {
		Checks []struct{ Check, Result, Says, Do string }
	}
	require.NoError(t, json.Unmarshal([]byte(out), &judged))
	require.Len(t, judged.Checks, 17)
	for _, c := range judged.Checks {
		assert.Equal(t, "ok", c.Result, "%+v", c)
	}
	before := p.run(0, "check", "--before")
	assert.Contains(t, before, "cert-manager answers")
	assert.Contains(t, before, "you may create and change all objects of an installation")
	assert.Contains(t, before, "Metaparticle is installed: ")

	const binding = "validatingadmissionpolicybinding/metaparticle-variable"
	action := func(what string) {
		// The cleanup calls this function after the cancellation of t.Context(), so the command
		// gets a context that is never cancelled.
		out, err := kubectl.Command(context.Background(), p.Namespace, "patch", binding, "--type=merge", "-p",
			`{"spec":{"validationActions":["`+what+`"]}}`).CombinedOutput()
		assert.NoError(t, err, "%s", out)
	}
	t.Cleanup(func() { action("Deny") })
	action("Audit")
	assert.Contains(t, p.run(1, "check"), "policies have no effect, because they are not bound: metaparticle-variable")
}
