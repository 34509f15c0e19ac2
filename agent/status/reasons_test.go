// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package status

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/agent/kube"
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

// written returns the message of the pod condition that the agent writes for an Appearance.
func written(t *testing.T, a Appearance) string {
	t.Helper()
	raw, err := a.patch(time.Unix(1, 0), a.metadata(kube.Pod{ResourceVersion: "1"}, false))
	require.NoError(t, err)
	var patch struct {
		Status struct{ Conditions []struct{ Message string } }
	}
	require.NoError(t, json.Unmarshal(raw, &patch))
	require.Len(t, patch.Status.Conditions, 1)
	return patch.Status.Conditions[0].Message
}

// A policy refuses a longer message. The pod of an agent that names many slots would never be Ready.
func TestMessageOfManyLongSlotsFitsThePolicies(t *testing.T) {
	var slots []string
	var tokens []api.Token
	for i := range 32 {
		slots = append(slots, api.LockLease(fmt.Sprintf("%s%02d", strings.Repeat("é", 240), i)))
		tokens = append(tokens, api.Token{Slot: slots[i], Token: "4711"})
	}
	budget, err := api.NewBudget(api.DefaultLeaseDuration)
	require.NoError(t, err)
	r := NewReadiness(ReadinessConfig{Need: api.Need{Slots: slots}, Budget: budget})
	message := written(t, r.Holder(time.Second, Holder{Hold: "1", Slots: slots, Serves: true}).Appearance)
	assert.Equal(t, 1024, utf8.RuneCountInString(message))
	assert.True(t, strings.HasPrefix(message, "this pod holds "+slots[0]+", ") && strings.HasSuffix(message, "…"), message)

	e := NewEvents(Config{Wall: time.Now})
	e.Acquired(tokens)
	assert.Equal(t, 1024, utf8.RuneCountInString((<-e.own.events).Message))
}

// Another program's elector may write any identity into a Lease.
func TestMessageKeepsOnlyPrintableCharactersOfForeignTexts(t *testing.T) {
	assert.Equal(t, " [31melector é holds lock.a  ", written(t, Appearance{Message: "\x1b[31melector é holds lock.a\n\u202e"}))
	exact := strings.Repeat("é", 1024)
	assert.Equal(t, exact, written(t, Appearance{Message: exact}), "a message of 1,024 characters stays whole")
}
