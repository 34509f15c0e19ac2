// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package gobuild has the environment in which tools/images and tools/release compile binaries, and
// the settings of the images' binaries. So a benchmark can measure the agent of the image.
//
// Guarantee: no setting of the building machine changes a binary. Such settings are environment
// variables, the file of "go env -w", and a go.work file in a folder above. The Go release of the
// machine does change binaries, and go.sum fixes the modules.
package gobuild

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
)

// kept are the settings by which Go finds, verifies and stores modules. Many companies write these
// settings by "go env -w". The settings do not change a binary, because go.sum has the checksums.
var kept = []string{
	"GOPROXY", "GONOPROXY", "GOPRIVATE", "GOSUMDB", "GONOSUMDB", "GOINSECURE", "GOAUTH", "GOVCS", "GOMODCACHE", "GOCACHE", "GOTMPDIR",
}

// fixed are the settings that would change a binary. With an empty value, Go takes its default,
// because GOENV=off hides the file of "go env -w".
var fixed = []string{
	"GOENV=off", "GOWORK=off", "GOTOOLCHAIN=local", "GO111MODULE=", "GOFLAGS=", "GOEXPERIMENT=", "GOFIPS140=off", "CGO_ENABLED=0",
	"GOAMD64=", "GOARM64=",
}

// Environment returns the environment of a compilation, with further environment variables.
func Environment(ctx context.Context, further ...string) ([]string, error) {
	out, err := exec.CommandContext(ctx, "go", append([]string{"env", "-json"}, kept...)...).Output()
	if err != nil {
		return nil, fmt.Errorf("go env: %w", err)
	}
	var settings map[string]string
	if err := json.Unmarshal(out, &settings); err != nil {
		return nil, fmt.Errorf("go env: %w", err)
	}
	environment := os.Environ()
	for _, name := range kept {
		environment = append(environment, name+"="+settings[name])
	}
	return append(append(environment, fixed...), further...), nil
}

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
