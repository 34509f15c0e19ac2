// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"errors"
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

// These errors tell a person how to write a mirror.
var (
	errMirrorForm = errors.New("write REGISTRY=MIRROR, such as docker.io=mirror.example:5000")
	errMirrored   = errors.New("write the registry as HOST or HOST:PORT")
	errMirror     = errors.New("write the mirror as HOST[:PORT][/PATH], without http://")
)

// ParseMirror reads "docker.io=mirror.example:5000" or "docker.io=mirror.example/hub". If no
// repository can have its name below the mirror, ParseMirror returns an error.
func ParseMirror(s string) (Mirror, error) {
	from, to, ok := strings.Cut(s, "=")
	if !ok || from == "" || to == "" {
		return Mirror{}, errMirrorForm
	}
	registry, err := name.NewRegistry(from)
	if err != nil {
		return Mirror{}, errMirrored
	}
	m := Mirror{from: registry.RegistryStr(), to: strings.TrimSuffix(to, "/")}
	host, _, _ := strings.Cut(m.to, "/")
	if _, err := name.NewRegistry(host, name.StrictValidation); err != nil {
		return Mirror{}, errMirror
	}
	if _, err := name.NewRepository(m.to + "/library/x"); err != nil || strings.Contains(m.to, "//") {
		return Mirror{}, errMirror
	}
	return m, nil
}
