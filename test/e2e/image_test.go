// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/metaparticle-io/metaparticle/test/cluster/lab"
	"github.com/metaparticle-io/metaparticle/test/image/oci"
)

// The application's image, and one of a numeric user, as security-minded
// people build them.
const (
	appRepository = "e2e/app:latest"
	userSuffix    = "-user"
	numericUser   = "10001"
)

// pushApp builds test/app and pushes it to the test cluster's registry, as
// images with an entrypoint, which only the registry knows.
func pushApp(ctx context.Context) (string, error) {
	dir, err := os.MkdirTemp("", "e2e")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)
	binary := filepath.Join(dir, "app")
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", binary, "../app")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build test/app: %w\n%s", err, out)
	}
	for suffix, user := range map[string]string{"": "", userSuffix: numericUser} {
		img, err := oci.Static(binary, "app", oci.Config{User: user}, oci.Uncompressed)
		if err != nil {
			return "", err
		}
		if err := oci.Push(ctx, cluster.lab.Registry()+"/"+appRepository+suffix, img); err != nil {
			return "", fmt.Errorf("push the application's image: %w", err)
		}
	}
	return lab.RegistryInCluster + "/" + appRepository, nil
}
