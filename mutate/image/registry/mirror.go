// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"fmt"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
)

// Mirror is a registry with the images of another registry, as in the configuration of the
// nodes' container runtime. A look-up asks the mirror first.
type Mirror struct {
	from string
	// to is a host, or a host and the first part of the repositories' paths.
	to string
}

// ParseMirror reads "docker.io=mirror.example:5000" or "docker.io=mirror.example/hub".
func ParseMirror(s string) (Mirror, error) {
	from, to, ok := strings.Cut(s, "=")
	if !ok || from == "" || to == "" {
		return Mirror{}, fmt.Errorf("mirror %q is not of the form REGISTRY=MIRROR", s)
	}
	registry, err := name.NewRegistry(from)
	if err != nil {
		return Mirror{}, fmt.Errorf("mirror of %q: %w", from, err)
	}
	m := Mirror{from: registry.RegistryStr(), to: strings.TrimSuffix(to, "/")}
	host, _, _ := strings.Cut(m.to, "/")
	if _, err := name.NewRegistry(host, name.StrictValidation); err != nil {
		return Mirror{}, fmt.Errorf("mirror %q: %w", to, err)
	}
	return m, nil
}
