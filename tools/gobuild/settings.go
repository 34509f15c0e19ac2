// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package gobuild

// Settings are the settings by which a binary of an image is compiled.
type Settings struct {
	// Tags are the build tags, separated by commas.
	Tags string
	// Small reports that the binary must take little memory, because the binary runs in every
	// gated container. Such a binary is compiled with the flags in [uninlined], and its functions
	// are packed densely. The process of the binary mostly waits, so the code may be slow.
	Small bool
}

// Agent are the settings of agent and shim. The agent uses only HTTP/1.1 (see agent/kube). Without
// HTTP/2 the agent is 0.4 MB smaller, in every gated container.
var Agent = Settings{Tags: "nethttpomithttp2", Small: true}

// uninlined are the flags of a small binary. The compiler copies no function into its callers, except
// in the packages below. These packages do most of the work when an agent gets an event. With inlining
// only there, the agent is 0.2 MB larger than without any, and 0.45 MB smaller than with all.
var uninlined = []string{
	"-gcflags=all=-l", "-gcflags=runtime/...=", "-gcflags=internal/...=", "-gcflags=crypto/...=", "-gcflags=encoding/json=", "-gcflags=sync/...=",
}

// Arguments returns the arguments of the command go that compile the source to the file. The binary
// contains nothing of the building machine: no paths, no time, no state of a checkout.
func (s Settings) Arguments(source, file, version string) []string {
	arguments, flags := []string{"build", "-trimpath", "-buildvcs=false", "-tags", s.Tags}, "-s -w -buildid= -X main.version="+version
	if s.Small {
		arguments, flags = append(arguments, uninlined...), flags+" -funcalign=8"
	}
	return append(arguments, "-ldflags", flags, "-o", file, source)
}
