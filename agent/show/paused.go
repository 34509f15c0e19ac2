// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package show

import (
	"fmt"

	"github.com/metaparticle-io/metaparticle/api"
)

// PauseOf describes, for people, the pause of a slot; empty if the slot is not paused. If the
// value of the annotation is unknown, the text repeats it, because the person may have expected
// another effect.
func PauseOf(slot string, p api.Pause) string {
	switch {
	case p == "":
		return ""
	case !p.Known():
		return fmt.Sprintf("the slot %s is paused by hand (%s=%q is neither %s nor %s, and counts as %s)",
			slot, api.PausedAnnotation, cut(string(p)), api.PauseHold, api.PauseStop, api.PauseHold)
	case p == api.PauseRecover:
		return "the slot " + slot + " is paused by kubectl metaparticle recover, until that command succeeds"
	}
	return "the slot " + slot + " is paused by hand"
}

// mostOfValue is the number of bytes of an annotation's unknown value that a message repeats at
// most. Each known value is shorter.
const mostOfValue = 32

func cut(value string) string { return value[:min(len(value), mostOfValue)] }
