// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package view

import (
	"time"

	"github.com/metaparticle-io/metaparticle/api"
)

// These limits bound the bytes of a text that pods or their owners write. Agents write shorter
// texts. The console's caches use the same limits.
const (
	// MaxMessage bounds the message of an Event or of a pod condition, and the cause of a handover.
	MaxMessage = 1024
	// MaxIdentity bounds a text with an identity: the name of a pod, and its uid.
	MaxIdentity = 320
	// MaxWord bounds every other text.
	MaxWord = 256
	// maxDone and maxFailures bound a list of done keys, and a list of failures.
	maxDone, maxFailures = 4096, 1024
	// MaxSlots bounds the list of the slots that a pod claims: 2048 slots, of 31 bytes each.
	MaxSlots = 64 << 10
)

// Notes has the annotations of Leases that this package reads, each with the largest number of
// bytes. A longer text is cut.
var Notes = map[string]int{
	api.DoneAnnotation: maxDone, api.FailuresAnnotation: maxFailures, api.PausedAnnotation: MaxWord, api.YieldAnnotation: MaxIdentity,
	api.StampAnnotation: MaxWord, api.OpenedAnnotation: MaxWord, api.SuccessorAnnotation: MaxIdentity, api.WorkloadAnnotation: MaxIdentity,
	api.HoldAnnotation: MaxWord, api.TokenAnnotation: MaxWord, api.ServingAnnotation: MaxWord,
}

// instant returns an instant that another computer wrote, in UTC; nil if JSON cannot express it.
func instant(at time.Time) *time.Time {
	at = at.UTC()
	if at.Year() < 1 || at.Year() > 9999 {
		return nil
	}
	return &at
}
