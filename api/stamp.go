// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"strconv"
	"strings"
)

// Stamp names the number of shards, and the run, for which the Lease of a shard may be
// acquired. An agent acquires, and keeps, only a Lease whose stamp admits its own pod. The
// zero value stands for a Lease without a stamp.
type Stamp struct {
	// Epoch counts the changes of Count and of Run.
	Epoch int64
	// Count is the number of shards.
	Count int
	// Run is the UID of the Job whose pods do the work; empty if no Job does the work.
	Run string
	// Closed reports that no pod may acquire the Lease, and that its holder has to release.
	Closed bool
}

// lastEpoch is the largest valid epoch. Enroll adds one at each change, and so never reaches this
// bound.
const lastEpoch = 1 << 53

// stampClosed is the last word of a closed stamp.
const stampClosed = "closed"

// Admits reports whether a pod of the given run may acquire and keep the Lease, if the pod expects
// the given number of shards. A closed stamp admits no pod.
func (s Stamp) Admits(count int, run string) bool {
	return count > 0 && s.Count == count && s.Run == run && !s.Closed
}

// String returns the text of the annotation: EPOCH/COUNT or EPOCH/COUNT/RUN. The text of a closed
// stamp ends with a space and the word "closed". The text of the zero value is empty.
func (s Stamp) String() string {
	if s == (Stamp{}) {
		return ""
	}
	text := strconv.FormatInt(s.Epoch, 10) + "/" + strconv.Itoa(s.Count)
	if s.Run != "" {
		text += "/" + s.Run
	}
	if s.Closed {
		text += " " + stampClosed
	}
	return text
}

// ParseStamp reads the text of [Stamp.String]. For any other text, the result is the zero value,
// which admits no pod.
func ParseStamp(text string) Stamp {
	numbers, word, closed := strings.Cut(text, " ")
	first, rest, _ := strings.Cut(numbers, "/")
	second, run, runs := strings.Cut(rest, "/")
	epoch, err := strconv.ParseInt(first, 10, 64)
	count, wrong := strconv.Atoi(second)
	s := Stamp{Epoch: epoch, Count: count, Run: run, Closed: closed}
	if err != nil || wrong != nil || closed && word != stampClosed || epoch < 1 || epoch > lastEpoch || count < 1 || count > maxShards ||
		runs && !IsRun(run) || s.String() != text {
		return Stamp{}
	}
	return s
}

// IsRun reports whether the text can be the UID of a Job (RFC 9562). The check is necessary,
// because a person may write any text into an owner reference. The webhook copies the UID into
// an argument, in which the kubelet would expand $(NAME).
func IsRun(text string) bool {
	return text != "" && len(text) <= maxRun && strings.Trim(text, "0123456789abcdef-") == ""
}
