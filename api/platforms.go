// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"encoding/json"
	"fmt"
)

// Platforms has an image's command for each architecture, if the commands differ. The
// webhook does not know the node yet, so the shim picks a command at its start.
type Platforms map[string]PlatformCommand

// PlatformCommand is an image's command on one architecture.
type PlatformCommand struct {
	// Command is the first part of the child's command. The rest of that command is in the
	// shim's arguments, after "--".
	Command []string `json:"command"`
	// StopSignal is the image's stop signal; empty if the image has none.
	StopSignal string `json:"stopSignal,omitempty"`
}

// parsePlatforms reads the text of [Platforms.String].
func parsePlatforms(s string) (Platforms, error) {
	var p Platforms
	if err := json.Unmarshal([]byte(s), &p); err != nil {
		return nil, fmt.Errorf("read platforms: %w", err)
	}
	return p, nil
}

// String returns the platforms as JSON.
func (p Platforms) String() string { return mustJSON(p) }

// The map "also" leads from an architecture to an older architecture, whose images the same nodes
// can run.
var also = map[string]string{"arm64": "arm", "amd64": "386"}

// For returns the image's command on the architecture with the name arch (GOARCH). If p has no
// command for arch, the result is the command for the older architecture in the map "also". If p
// has neither command, the second result is false.
func (p Platforms) For(arch string) (PlatformCommand, bool) {
	if c, ok := p[arch]; ok {
		return c, true
	}
	c, ok := p[also[arch]]
	return c, ok
}
