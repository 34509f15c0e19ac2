// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package public puts images into the test cluster's registry under the names that official
// images have on the internet. The nodes of the test cluster cannot reach the internet, and
// ask that registry for every image.
package public

import (
	"context"

	"github.com/metaparticle-io/metaparticle/test/image/oci"
)

// images are the images of the examples. Each one has the programs that an example uses, in the
// version of the official image.
var images = []struct {
	name     string
	packages []string
	config   oci.Config
}{
	{"debian:bookworm-slim", nil, oci.Config{Cmd: []string{"bash"}}},
	{"python:3.11-slim-bookworm", []string{"python3"}, oci.Config{Cmd: []string{"python3"}}},
}

// Push puts the images of the examples into the registry.
func Push(ctx context.Context, registry string) error {
	for _, one := range images {
		image, err := oci.Debian(ctx, one.packages, one.config, oci.Uncompressed)
		if err != nil {
			return err
		}
		if err := oci.Push(ctx, registry+"/library/"+one.name, image); err != nil {
			return err
		}
	}
	return nil
}
