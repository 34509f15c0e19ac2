// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/metaparticle-io/metaparticle/test/image/oci"
)

// image is test/app's, and userImage the same with a numeric user, as
// security-minded people build theirs.
var image, userImage string

// pushApp builds test/app and pushes it to a registry, from which nodes pull it
// maybe by another name, as images with an entrypoint, which only the registry
// knows. They are named by digest: nodes may still have those of another day.
func pushApp(ctx context.Context, push, pull string) error {
	dir, err := os.MkdirTemp("", "e2e")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	binary := filepath.Join(dir, "app")
	if err := oci.Compile(ctx, oci.TestApp, binary); err != nil {
		return err
	}
	for user, reference := range map[string]*string{"": &image, "10001": &userImage} {
		img, err := oci.Static(binary, "app", oci.Config{User: user}, oci.Uncompressed)
		if err != nil {
			return err
		}
		digest, err := img.Digest()
		if err != nil {
			return err
		}
		if err := oci.Push(ctx, push+"/e2e/app:user"+user, img); err != nil {
			return fmt.Errorf("push the application's image: %w", err)
		}
		*reference = pull + "/e2e/app@" + digest.String()
	}
	return nil
}
