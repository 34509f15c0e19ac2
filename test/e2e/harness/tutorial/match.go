// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package tutorial

import (
	"regexp"
	"strings"
)

// anything stands for any text in the output of a command.
const anything = "…"

// Matches reports whether the lines of an output are those that a page shows.
func Matches(shown, output []string) bool {
	if len(shown) == 0 {
		return len(output) == 0
	}
	if strings.TrimSpace(shown[0]) == anything {
		return Matches(shown[1:], output) || len(output) > 0 && Matches(shown, output[1:])
	}
	return len(output) > 0 && pattern(shown[0]).MatchString(strings.TrimRight(output[0], " ")) && Matches(shown[1:], output[1:])
}

// spaces matches spaces between words.
var spaces = regexp.MustCompile(` +`)

// pattern returns a pattern for one line of a page. The pattern matches each line of an output that
// counts as equal to the line of the page.
func pattern(shown string) *regexp.Regexp {
	quoted := regexp.QuoteMeta(strings.TrimRight(shown, " "))
	quoted = strings.ReplaceAll(quoted, anything, ".*")
	return regexp.MustCompile("^" + spaces.ReplaceAllString(quoted, " +") + "$")
}
