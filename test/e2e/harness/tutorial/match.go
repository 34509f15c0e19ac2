// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package tutorial

import (
	"regexp"
	"slices"
	"strings"
)

// anything stands for any text in the output of a command.
const anything = "…"

// cancelled matches a line that "kubectl wait" sometimes logs when its condition is met. Then
// kubectl cancels its own watch, and reports the cancellation as a fault of the watch. The line has
// a time and a process ID, so no page can show the line.
var cancelled = regexp.MustCompile(`^[IWE]\d{4} .* reflector\.go:\d+\] "Warning: watch ended with error".*context canceled`)

// Matches reports whether the lines of an output are those that a page shows. A line of kubectl
// about its own cancelled watch does not count.
func Matches(shown, output []string) bool {
	output = slices.DeleteFunc(slices.Clone(output), cancelled.MatchString)
	return matches(shown, output)
}

// matches compares all lines of an output with those that a page shows.
func matches(shown, output []string) bool {
	if len(shown) == 0 {
		return len(output) == 0
	}
	if strings.TrimSpace(shown[0]) == anything {
		return matches(shown[1:], output) || len(output) > 0 && matches(shown, output[1:])
	}
	return len(output) > 0 && pattern(shown[0]).MatchString(strings.TrimRight(output[0], " ")) && matches(shown[1:], output[1:])
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
