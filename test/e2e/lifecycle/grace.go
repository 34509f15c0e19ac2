// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package lifecycle

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/metaparticle-io/metaparticle/test/e2e/harness/app"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/holder"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/kubectl"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/space"
	"github.com/metaparticle-io/metaparticle/test/e2e/record"
)

// A person deletes the holder with a shorter grace than the pod's.
//
// docs/compatibility.md: lifecycle/grace-of-deletion lifecycle/ignores-term carried
func TestGraceOfDeletionOverridesGraceOfPod(t *testing.T) {
	t.Parallel()
	a := app.Lasting("hurried")
	a.Args, a.Grace = []string{"-ignore-term"}, patient
	h := holder.Deploy(t, a, "it needs the record")
	at := record.Now()
	kubectl.Must(h.Space, "", "delete", "pod", h.Victim.Name, "--grace-period=3", "--wait=false")
	h.Await(space.StartTimeout, "another one runs", func() bool { return app.After(h.Space, a, h.Before) != nil })
	old := h.Process(h.Before.ID)
	assert.GreaterOrEqual(t, old.Last, at+2*time.Second, "it had its three seconds")
	assert.Less(t, old.Last, at+atOnce, "and not the pod's two minutes")
}
