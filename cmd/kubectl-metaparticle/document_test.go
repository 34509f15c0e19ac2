// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/pem"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// aliased returns a ConfigMap with a text of this size, and with aliases of the text.
func aliased(size, aliases int) string {
	return "kind: ConfigMap\napiVersion: v1\nmetadata: {name: a}\nx: &x \"" + strings.Repeat("x", size) + "\"\ny: [" +
		strings.Repeat("*x, ", aliases) + "]\n"
}

// A manifest of a stranger could otherwise fill the memory of a person's computer.
func TestManifestWithHugeAliasesIsRefused(t *testing.T) {
	for what, manifest := range map[string]string{
		"one list":            aliased(10_000, 2000),
		"a list of lists":     "s: &s \"" + strings.Repeat("x", 10_000) + "\"\nl: &l [" + strings.Repeat("*s, ", 50) + "]\nm: [" + strings.Repeat("*l, ", 50) + "]\n",
		"an anchor and a key": "a: &a {k: \"" + strings.Repeat("x", 20_000) + "\"}\nb:\n" + strings.Repeat("- {<<: *a, z: 1}\n", 1000),
	} {
		_, err := read(strings.NewReader(manifest))
		require.ErrorIs(t, err, errAliases, what)
	}
	assert.Contains(t, injectFrom(t, aliased(10_000, 2000), "--offline"), "error: -: document 1: the aliases stand for more than 16 MiB\n")
}

func TestManifestWithUsualAliasesIsRead(t *testing.T) {
	if testing.Short() {
		t.Skip("slow with the race detector")
	}
	for what, manifest := range map[string]string{
		"aliases":                aliased(10_000, 100),
		"a huge text of symbols": "kind: ConfigMap\nx: |\n" + strings.Repeat("  * and & "+strings.Repeat("x", 1000)+"\n", 17_000),
		"an anchor in itself":    "a: &a [*a]\n",
	} {
		_, err := read(strings.NewReader(manifest))
		assert.NotErrorIs(t, err, errAliases, what)
	}
}

func TestInjectCommandTrustsRegistriesOfAGivenCA(t *testing.T) {
	quiet := log.New(io.Discard, "", 0)
	server := httptest.NewUnstartedServer(registry.New(registry.Logger(quiet)))
	server.Config.ErrorLog = quiet
	server.StartTLS()
	defer server.Close()
	at := strings.TrimPrefix(server.URL, "https://") + "/app"
	ref, err := name.ParseReference(at)
	require.NoError(t, err)
	image, err := mutate.ConfigFile(empty.Image, &v1.ConfigFile{OS: "linux", Architecture: "amd64", Config: v1.Config{Cmd: []string{"/app"}}})
	require.NoError(t, err)
	require.NoError(t, remote.Write(ref, image, remote.WithTransport(server.Client().Transport)))

	assert.Contains(t, injectFrom(t, manifestOf(at)), "refused: Pod/p: ImageUnreadable: ")
	file := filepath.Join(t.TempDir(), "ca.crt")
	require.NoError(t, os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600))
	said := injectFrom(t, manifestOf(at), "--registry-ca", file)
	assert.Contains(t, said, "name: metaparticle-agent")
	assert.NotContains(t, said, "refused: ")
}
