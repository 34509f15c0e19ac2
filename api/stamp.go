// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"strconv"
	"strings"
)

// Stamp says for which number of shards the Lease of a shard may be acquired. An agent
// acquires, and keeps, only a Lease whose stamp admits the number of its own pod. The
// zero value stands for a Lease without a stamp.
type Stamp struct {
	// Epoch counts the changes of the number. Each change has an epoch of its own.
	Epoch int64
	// Count is the number of shards.
	Count int
	// Closed reports that no pod may acquire the Lease, and that its holder has to release.
	Closed bool
}

// stampClosed is the last word of a closed stamp.
const stampClosed = "closed"

// Admits reports whether a pod may acquire and keep the Lease, if the pod's work has so many
// shards.
func (s Stamp) Admits(count int) bool {
	return count > 0 && s.Count == count && !s.Closed
}

// String returns the text of the annotation: EPOCH/COUNT, and the word closed behind a
// space. The text of the zero value is empty.
func (s Stamp) String() string {
	if s == (Stamp{}) {
		return ""
	}
	text := strconv.FormatInt(s.Epoch, 10) + "/" + strconv.Itoa(s.Count)
	if s.Closed {
		text += " " + stampClosed
	}
	return text
}

// ParseStamp reads the text of [Stamp.String]. Any other text counts as no stamp, which
// admits no pod.
func ParseStamp(text string) Stamp {
	numbers, word, closed := strings.Cut(text, " ")
	first, second, _ := strings.Cut(numbers, "/")
	epoch, err := strconv.ParseInt(first, 10, 64)
	count, wrong := strconv.Atoi(second)
	s := Stamp{Epoch: epoch, Count: count, Closed: closed}
	if err != nil || wrong != nil || closed && word != stampClosed || epoch < 1 || count < 1 || count > maxShards || s.String() != text {
		return Stamp{}
	}
	return s
}
