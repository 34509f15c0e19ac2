// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package image

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
)

// maxBody bounds what a registry can make us hold: manifests and image
// configurations have kilobytes.
const maxBody = 4 << 20

var errPlainHTTP = errors.New("plain HTTP is not allowed for this registry")

// guarded is a transport that keeps to TLS, except with the registries that
// are listed, and to bodies of a reasonable size. The library would fall back
// to plain HTTP for private addresses by itself.
type guarded struct {
	inner http.RoundTripper
	plain []string
}

func newTransport(o Options) http.RoundTripper {
	inner := http.DefaultTransport.(*http.Transport).Clone()
	inner.TLSClientConfig = &tls.Config{RootCAs: o.CAs, MinVersion: tls.VersionTLS12}
	return &guarded{inner: inner, plain: o.PlainHTTP}
}

func (g *guarded) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Scheme != "https" && !slices.Contains(g.plain, r.URL.Host) {
		return nil, fmt.Errorf("%w: %s", errPlainHTTP, r.URL.Host)
	}
	response, err := g.inner.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	response.Body = struct {
		io.Reader
		io.Closer
	}{io.LimitReader(response.Body, maxBody), response.Body}
	return response, nil
}
