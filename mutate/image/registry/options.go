// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"crypto/x509"
	"net/netip"
	"time"
)

// Options configure a Resolver. The zero value asks without credentials, over TLS.
type Options struct {
	// Secrets reads pull secrets; nil means that there are none.
	Secrets Secrets
	// PlainHTTP are the registries, as host or host:port, that may be asked without TLS.
	PlainHTTP []string
	// Mirrors are asked in this order, each before the registry that it mirrors.
	Mirrors []Mirror
	// CAs verify registries; nil means the system's.
	CAs *x509.CertPool
	// Budget bounds one look-up; zero means 2.5 s.
	Budget time.Duration
	// Networks are further networks that a request may go to: those of token services, of
	// redirects, and of registries on loopback.
	Networks []netip.Prefix
	// Failed, if set, gets the cause of each failed look-up. The cause may have words of
	// the registry; the error for the pod's author has none.
	Failed func(namespace, image string, cause error)
}
