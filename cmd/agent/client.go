// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"

	"github.com/metaparticle-io/metaparticle/agent/kube"
)

// version is the version of the binary, which tools/images sets at the build.
var version = "dev"

// newClient returns a client of the API server. The client reads its token and the CA from the
// directory "credentials".
func newClient(namespace, credentials string) (*kube.Client, error) {
	return kube.New(kube.Config{
		Namespace: namespace,
		Host:      os.Getenv("KUBERNETES_SERVICE_HOST"),
		Port:      os.Getenv("KUBERNETES_SERVICE_PORT"),
		TokenFile: filepath.Join(credentials, "token"),
		CAFile:    filepath.Join(credentials, "ca.crt"),
		Version:   version,
	})
}
