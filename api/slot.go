// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"slices"
	"strconv"
	"strings"
)

// cutNumber divides a name at its last dot, and reads the number behind the dot. If the text behind
// the dot is not a number, the results are the whole name and -1. A name without a dot, or with
// another spelling of a number (07 for 7), has the same results.
func cutNumber(name string) (before string, number int) {
	dot := strings.LastIndexByte(name, '.')
	if dot < 0 {
		return name, -1
	}
	n, err := strconv.Atoi(name[dot+1:])
	if err != nil || strconv.Itoa(n) != name[dot+1:] {
		return name, -1
	}
	return name[:dot], n
}

// isUnshortened reports whether the function "is" accepts the name that the Lease had before a cut
// by [shortName]. Only the first part of a cut name is known. So "is" must accept that part,
// completed by at least one of the texts in the list [endings]. A name without a cut is judged as
// a whole.
func isUnshortened(lease string, is func(string) bool) bool { return isShortenedTo(lease, maxName, is) }

// isShortenedTo returns the result of [isUnshortened] for a name that [shorten] has kept within the
// given limit.
func isShortenedTo(name string, limit int, is func(string) bool) bool {
	if len(name) != limit {
		return len(name) < limit && is(name)
	}
	cut := limit - endLength
	mark, hash := name[cut:cut+len(hashMark)], name[cut+len(hashMark):]
	return mark == hashMark && strings.Trim(hash, "0123456789abcdef") == "" &&
		slices.ContainsFunc(endings, func(ending string) bool { return is(name[:cut] + ending) })
}

// endings are the texts that complete a slot's name after a cut by [shortName]. The text "x" is for
// a cut inside the workload's name, or right in front of that name. The text "x.x" is for a cut in
// the part by [Workload.kindPart], and ".x" for a cut right after that part. In that part, two
// dashes stand for each dash of the workload's kind or group. The text "-x.x" is for a cut between
// two such dashes.
var endings = []string{"x", "x.x", ".x", "-x.x"}
