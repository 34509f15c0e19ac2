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
