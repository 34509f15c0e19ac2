// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"crypto/x509"
	"net/netip"
	"time"
)

// Options configure a Resolver. With the zero value, a Resolver has no credentials and needs
// TLS.
type Options struct {
	// Secrets reads pull secrets; nil means that there are none.
	Secrets Secrets
	// PlainHTTP are the registries, as host or host:port, that a look-up may ask without TLS.
	PlainHTTP []string
	// Mirrors are in the order in which a look-up asks them. The registry itself comes last.
	Mirrors []Mirror
	// CAs verify the certificates of registries; nil means the CAs of the system.
	CAs *x509.CertPool
	// Budget bounds one look-up; zero means 2.5 s.
	Budget time.Duration
	// Networks are networks that every request may go to. For example, a person names loopback, or
	// the private networks of token services and of redirects.
	Networks []netip.Prefix
	// ByPerson reports that a person, and not the webhook, looks up images, with the person's own
	// rights. Then token services and redirects may also be in private networks. A registry may be
	// on loopback if the image's name contains "localhost" or an address of loopback.
	ByPerson bool
	// Failed, if set, gets the cause of each failed look-up. The cause may quote the
	// registry, but the error for the pod's author does not.
	Failed func(namespace, image string, cause error)
}
