// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/metaparticle-io/metaparticle/test/image/oci"
)

// Image, UserImage and QuitImage name images of test/app. UserImage has a numeric user,
// and QuitImage has a stop signal of its own.
var Image, UserImage, QuitImage string

// pushApp builds test/app and pushes its images to a registry. The argument "pull" is the name that
// nodes use for this registry. The pods name no command, so the webhook has to read the entrypoint
// from the image. References name digests, because nodes may have older images under the same tag.
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
	for reference, config := range map[*string]oci.Config{
		&Image: {}, &UserImage: {User: "10001"}, &QuitImage: {StopSignal: "SIGQUIT"},
	} {
		img, err := oci.Static(binary, "app", config, oci.Uncompressed)
		if err != nil {
			return err
		}
		digest, err := img.Digest()
		if err != nil {
			return err
		}
		if err := oci.Push(ctx, push+"/e2e/app:user"+config.User+config.StopSignal, img); err != nil {
			return fmt.Errorf("push the application's image: %w", err)
		}
		*reference = pull + "/e2e/app@" + digest.String()
	}
	return nil
}
