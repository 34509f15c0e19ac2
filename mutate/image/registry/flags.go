// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"

	"github.com/google/go-containerregistry/pkg/name"
)

var (
	errFlagPlainHTTP = errors.New("write HOST or HOST:PORT, without http://")
	errFlagNetwork   = errors.New("write a network with its prefix length, such as 10.0.0.0/8")
	errNoCertificate = errors.New("no certificate in it")
)

// Flags defines the flags that tell a program how to reach registries. The webhook and the kubectl
// plugin have the same flags, so both read an image in the same way. A flag changes the options.
// [Options.ByPerson] must have its value before the call, because the help depends on it.
func Flags(flags *flag.FlagSet, o *Options) {
	flags.Func("plain-http-registry", "`HOST[:PORT]` of a registry without TLS; may be repeated", func(value string) error {
		if _, err := name.NewRegistry(value, name.StrictValidation); err != nil {
			return errFlagPlainHTTP
		}
		o.PlainHTTP = append(o.PlainHTTP, value)
		return nil
	})
	flags.Func("registry-mirror", "`REGISTRY=MIRROR`: the mirror has the registry's images, and is asked first, as on the nodes; may be repeated",
		func(value string) error {
			mirror, err := ParseMirror(value)
			if err != nil {
				return err
			}
			o.Mirrors = append(o.Mirrors, mirror)
			return nil
		})
	network := "`NETWORK`, such as 10.0.0.0/8, that is not public, and to which token services and redirects of registries may lead; may be repeated"
	if o.ByPerson {
		network = "`NETWORK` of this computer or its link, such as 127.0.0.0/8, to which a registry may redirect; may be repeated"
	}
	flags.Func("registry-network", network, func(value string) error {
		network, err := netip.ParsePrefix(value)
		if err != nil {
			return errFlagNetwork
		}
		o.Networks = append(o.Networks, network)
		return nil
	})
	flags.Func("registry-ca", "`FILE` of certificates by which registries are trusted, beside the system's", o.trust)
}

// trust adds the certificates of a file to those of the system. So public registries stay trusted.
// An empty name means no file.
func (o *Options) trust(file string) error {
	if file == "" {
		return nil
	}
	pem, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		return fmt.Errorf("read system's certificates: %w", err)
	}
	if !pool.AppendCertsFromPEM(pem) {
		return errNoCertificate
	}
	o.CAs = pool
	return nil
}
