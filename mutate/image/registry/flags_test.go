// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"encoding/pem"
	"flag"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/mutate/image"
)

// parsed returns the options that the arguments make.
func parsed(args ...string) (Options, error) {
	var o Options
	flags := flag.NewFlagSet("", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	Flags(flags, &o)
	return o, flags.Parse(args)
}

func TestRegistryFlagsSetTheOptionsOfAResolver(t *testing.T) {
	o, err := parsed("--plain-http-registry=a:1", "--plain-http-registry", "[::1]:5000", "--registry-mirror=docker.io=m:1/hub",
		"--registry-network=10.1.0.0/16", "--registry-network=fd12::/16", "--registry-ca=")
	require.NoError(t, err)
	assert.Equal(t, Options{
		PlainHTTP: []string{"a:1", "[::1]:5000"},
		Mirrors:   []Mirror{{from: "index.docker.io", to: "m:1/hub"}},
		Networks:  []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("fd12::/16")},
	}, o)
}

func TestErrorsOfRegistryFlagsShowTheRightForm(t *testing.T) {
	const host, network, absent = "write HOST or HOST:PORT, without http://", "such as 10.0.0.0/8", "testdata/none.pem"
	for arg, want := range map[string]string{
		"--registry-mirror=docker.io":          "write REGISTRY=MIRROR, ",
		"--registry-mirror=docker.io=http://m": "without http://",
		"--plain-http-registry=http://a:1":     host,
		"--plain-http-registry=a/team":         host,
		"--plain-http-registry=":               host,
		"--registry-network=10.1.0.0":          network,
		"--registry-ca=" + absent:              "open " + absent + ": ",
	} {
		o, err := parsed(arg)
		require.ErrorContains(t, err, want, arg)
		assert.Equal(t, Options{}, o, arg)
	}
}

func TestRegistryCAFlagTrustsTheFilesCertificates(t *testing.T) {
	f := newRegistry(t, true)
	f.push(t, "app:1", redis)
	file := filepath.Join(t.TempDir(), "ca.pem")
	require.NoError(t, os.WriteFile(file, []byte("nothing"), 0o600))
	_, err := parsed("--registry-ca=" + file)
	require.ErrorContains(t, err, errNoCertificate.Error())

	require.NoError(t, os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: f.Certificate().Raw}), 0o600))
	o, err := parsed("--registry-ca="+file, "--registry-network=127.0.0.0/8")
	require.NoError(t, err)
	command, err := New(o).Command(t.Context(), f.host()+"/app:1", image.PullRights{})
	require.NoError(t, err)
	assert.Equal(t, redisCommand, command)
}
