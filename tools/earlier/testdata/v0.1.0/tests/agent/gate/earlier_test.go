// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package gate

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestEarlierVersionWritesOneFrameOfEachKind writes one frame of each kind, as the two ends of v0.1.0 send this frame.
func TestEarlierVersionWritesOneFrameOfEachKind(t *testing.T) {
	slots := []SlotToken{{Slot: "singleton.deployment.biller", Token: "4711"}}
	shim := func(change func(s *state)) message {
		s := state{Shim: "s1", Container: "app", BootID: "boot-1", PID1: true, Phase: Waiting, Began: time.Hour, Since: time.Hour}
		change(&s)
		return message{state: &s}
	}
	for name, frame := range map[string]any{
		"message-fresh": shim(func(*state) {}),
		"message-running": shim(func(s *state) {
			s.Phase, s.Hold, s.Slots, s.Starting = Running, "h1", slots, true
			s.Trouble = Trouble{Serial: 1, Reason: "FailedPostStartHook", Message: "exit code 1"}
		}),
		"message-leapt":     shim(func(s *state) { s.Phase, s.Hold, s.Slots, s.Leap = Running, "h1", slots, 2 }),
		"message-draining":  shim(func(s *state) { s.Phase, s.Hold, s.Slots = Draining, "h1", slots }),
		"message-over":      shim(func(s *state) { s.Hold = "h1" }),
		"message-completed": shim(func(s *state) { s.Phase, s.Hold, s.Completed = Ended, "h1", true }),
		"message-ran":       message{Ran: &ran{ID: "r1", Code: 3, Output: []byte("out\n")}},
		"message-late":      message{Ran: &ran{ID: "r2", Code: 137, TimedOut: true}},
		"message-not-run":   message{Ran: &ran{ID: "r3", Error: "not found"}},
		"order-grant": order{Grant: &Grant{
			Hold: "h1", Slots: slots, Deadline: 2 * time.Hour, BootID: "boot-1",
			Drain: 9 * time.Second, Kill: 3 * time.Second, PodIP: "10.0.0.1", Leap: 2,
		}},
		"order-drain": order{Drain: &drain{Hold: "h1", Reason: "yield", Grace: 30 * time.Second}},
		"order-end":   order{Drain: &drain{Hold: "h1", Reason: "lost", End: true}},
		"order-run":   order{Run: &runOrder{ID: "r1", Command: []string{"alive", "--now"}, Timeout: time.Second}},
	} {
		text, err := json.Marshal(frame)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(os.Getenv("EARLIER"), name+".json"), append(text, '\n'), 0o644))
	}
}
