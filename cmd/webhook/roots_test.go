// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/x509"
	"os"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestWebhookTrustsPublicCAsWithoutSystemCertificates starts its own binary again without
// the system's certificates, as in an empty image.
func TestWebhookTrustsPublicCAsWithoutSystemCertificates(t *testing.T) {
	if os.Getenv("EMPTY_IMAGE") != "" {
		pool, err := x509.SystemCertPool()
		require.NoError(t, err)
		assert.False(t, pool.Equal(x509.NewCertPool()), "no CA is trusted")
		return
	}
	empty := t.TempDir()
	again := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$")
	again.Env = append(os.Environ(), "EMPTY_IMAGE=1", "SSL_CERT_FILE="+empty+"/none", "SSL_CERT_DIR="+empty)
	out, err := again.CombinedOutput()
	assert.NoError(t, err, string(out))
}
