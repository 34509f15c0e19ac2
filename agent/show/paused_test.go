// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package show

import (
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/metaparticle-io/metaparticle/api"
)

func TestPodStatusTellsIfRecoverCommandPausedSlot(t *testing.T) {
	for pause, want := range map[api.Pause]string{
		"":               "",
		api.PauseHold:    "the slot lock.a is paused by hand",
		api.PauseStop:    "the slot lock.a is paused by hand",
		api.PauseRecover: "the slot lock.a is paused by kubectl metaparticle recover, until that command succeeds",
		"later":          `the slot lock.a is paused by hand (metaparticle.io/paused="later" is neither hold nor stop, and counts as hold)`,
	} {
		assert.Equal(t, want, PauseOf("lock.a", pause), pause)
	}
}
