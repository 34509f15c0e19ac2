// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package instant defines the instant that never comes. Packages claim, turn, leave and show
// return that instant, and the agent's loop compares with it. An instant is the time since boot
// (CLOCK_BOOTTIME), as a [time.Duration].
package instant

import (
	"math"
	"time"
)

// Never is the instant that does not come.
const Never = time.Duration(math.MaxInt64)
