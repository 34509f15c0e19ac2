// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"

	"sigs.k8s.io/yaml"
)

// encoded returns the value as JSON or YAML for a program. Tenants write some of the texts, and a CI
// job may print the output. So no text is a command to a CI system ([inOneLine]). JSON has an escape
// for the second character of such a command, so a program reads the same text. YAML has no escape in
// plain texts, so the character becomes a question mark. A text for YAML must be one line.
func encoded(value any, output string) ([]byte, error) {
	if output == "yaml" {
		text, err := yaml.Marshal(value)
		return withoutCommands(text, "?"), err
	}
	text, err := json.MarshalIndent(value, "", "  ")
	return append(withoutCommands(text, `\u0023`), '\n'), err
}

// withoutCommands replaces the second character of each command to a CI system.
func withoutCommands(text []byte, second string) []byte {
	for _, end := range []string{"[", "vso["} {
		text = bytes.ReplaceAll(text, []byte("##"+end), []byte("#"+second+end))
	}
	return text
}
