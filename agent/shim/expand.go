// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"slices"
	"strings"
)

// expandAll expands $(NAME) in the words of a command as the kubelet does.
func expandAll(words, env []string) []string {
	values := map[string]string{}
	for _, v := range slices.Backward(env) {
		name, value, _ := strings.Cut(v, "=")
		values[name] = value
	}
	out := make([]string, len(words))
	for i, word := range words {
		out[i] = expand(word, values)
	}
	return out
}

// expand replaces $(NAME) by its value, if there is one, and $$ by one dollar sign.
func expand(word string, values map[string]string) string {
	var out strings.Builder
	for {
		before, after, found := strings.Cut(word, "$")
		out.WriteString(before)
		switch {
		case !found:
			return out.String()
		case strings.HasPrefix(after, "$"):
			out.WriteByte('$')
			word = after[1:]
			continue
		}
		word = after
		name, rest, closed := strings.Cut(strings.TrimPrefix(after, "("), ")")
		value, known := values[name]
		if closed && strings.HasPrefix(after, "(") {
			word = rest
			if known {
				out.WriteString(value)
			} else {
				out.WriteString("$(" + name + ")")
			}
			continue
		}
		out.WriteByte('$')
	}
}
