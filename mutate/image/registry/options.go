// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"crypto/x509"
	"net/netip"
	"time"
)

// Options configure a Resolver. The zero value asks as nobody, over TLS.
type Options struct {
	// Secrets reads pull secrets; nil means that there are none.
	Secrets Secrets
	// PlainHTTP are the registries, as host or host:port, that may be spoken
	// to without TLS.
	PlainHTTP []string
	// Mirrors are asked before the registries whose images they have, in order.
	Mirrors []Mirror
	// CAs verify registries; nil means the system's.
	CAs *x509.CertPool
	// Budget bounds one look-up; zero means 2.5 s.
	Budget time.Duration
	// Networks may be reached although they are not public: those of token
	// services and of what registries lead to, and of registries on loopback.
	Networks []netip.Prefix
	// Failed, if set, is told why an image could not be read. The cause may have
	// words of the registry, which the error for the pod's author has not.
	Failed func(namespace, image string, cause error)
}
