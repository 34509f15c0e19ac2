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

// isWorkload reports whether the text consists of the part by [Workload.kindPart], a dot, and the
// name of a workload.
func isWorkload(text string) bool {
	kind, name, _ := strings.Cut(text, ".")
	of, ok := readKind(kind)
	of.Name = name
	return ok && of.Valid()
}

// readKind reads the text of [Workload.kindPart]. The first single dash separates kind and
// group. Every other single dash stands for a dot of the group, and a doubled dash stands for a
// dash. The text never contains one of Kubernetes' own groups.
func readKind(part string) (Workload, bool) {
	var words [2]strings.Builder
	at, dashes := 0, 0
	for i := 0; i <= len(part); i++ {
		if i < len(part) && part[i] == '-' {
			dashes++
			continue
		}
		switch {
		case dashes == 1 && at == 0:
			at = 1
		case dashes == 1:
			words[at].WriteByte('.')
		case dashes%2 == 1:
			return Workload{}, false
		default:
			words[at].WriteString(strings.Repeat("-", dashes/2))
		}
		dashes = 0
		if i < len(part) {
			words[at].WriteByte(part[i])
		}
	}
	read := Workload{Kind: words[0].String(), Group: words[1].String()}
	return read, read.Kind == strings.ToLower(read.Kind) && (at == 0 || !read.builtin())
}

// isKind reports whether the text can be the kind of a Kubernetes object: a label of RFC
// 1035, in upper or lower case.
func isKind(kind string) bool {
	for _, c := range []byte(kind) {
		if c >= 0x80 {
			return false // ToLower turns some characters outside of ASCII into ASCII letters
		}
	}
	lower := strings.ToLower(kind)
	return len(kind) <= maxLabel && isLabel(lower) && (lower[0] < '0' || lower[0] > '9')
}
