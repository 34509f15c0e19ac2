// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/google/go-containerregistry/pkg/name"
)

// question is one look-up of an image's command. A look-up sends several requests to a registry.
type question struct {
	// lasts is a context that ends with the look-up.
	lasts context.Context
	// registry is the host in the image's name, with its port.
	registry string
	// left is the number of bytes that the look-up may still read.
	left atomic.Int64
}

type questionKey struct{}

func withQuestion(ctx context.Context, registry name.Registry) context.Context {
	q := &question{lasts: ctx, registry: registry.RegistryStr()}
	q.left.Store(maxRead)
	return context.WithValue(ctx, questionKey{}, q)
}

func questionOf(ctx context.Context) *question {
	q, _ := ctx.Value(questionKey{}).(*question)
	return q
}

// guarded is a transport with three limits. Requests by plain HTTP go only to listed registries,
// although go-containerregistry tries plain HTTP at every private address. Requests go only to the
// addresses that [guarded.reach] permits for the request's host. Answers have a bounded size.
type guarded struct {
	// by has a transport for each reach, and each transport has its own connections. So a
	// connection to a private address never serves a request that may go only to public addresses.
	by map[reach]http.RoundTripper
	// proxied uses the proxy of the environment. That proxy resolves host names, so its rules
	// decide to which addresses a host name may lead.
	proxied  http.RoundTripper
	proxy    func(*http.Request) (*url.URL, error)
	plain    []string
	named    []string
	networks []netip.Prefix
	byPerson bool
}

func newTransport(o Options) *guarded {
	g := &guarded{by: map[reach]http.RoundTripper{}, proxy: http.ProxyFromEnvironment,
		plain: o.PlainHTTP, named: slices.Clone(o.PlainHTTP), networks: o.Networks, byPerson: o.ByPerson}
	for _, m := range o.Mirrors {
		host, _, _ := strings.Cut(m.to, "/")
		g.named = append(g.named, host)
	}
	for _, r := range []reach{public, private, anywhere} {
		g.by[r] = newInner(o, r)
	}
	proxied := newInner(o, anywhere)
	proxied.Proxy = http.ProxyFromEnvironment
	g.proxied = proxied
	return g
}

func newInner(o Options, r reach) *http.Transport {
	d := dialer{
		Dialer: net.Dialer{Timeout: o.Budget, Control: r.control(o.Networks)},
		tls:    &tls.Config{RootCAs: o.CAs, MinVersion: tls.VersionTLS12},
	}
	protocols := new(http.Protocols)
	// The transport does not use HTTP/2, in which each stream may buffer 4 MB of unread bytes.
	protocols.SetHTTP1(true)
	return &http.Transport{
		DialContext:            d.plain,
		DialTLSContext:         d.secure,
		TLSClientConfig:        d.tls, // only connections through a proxy use this field
		TLSHandshakeTimeout:    o.Budget,
		Protocols:              protocols,
		DisableCompression:     true, // a compressed bomb would be unpacked before its bytes are counted
		MaxIdleConns:           idleConnections,
		MaxIdleConnsPerHost:    maxRequests,
		IdleConnTimeout:        idleTimeout,
		MaxResponseHeaderBytes: maxHeader,
	}
}

// dialer stops dialling when the look-up ends. The standard library alone would go on
// dialling, because another request might use the connection.
type dialer struct {
	net.Dialer
	tls *tls.Config
}

func (d *dialer) plain(ctx context.Context, network, address string) (net.Conn, error) {
	ctx, end := whileAsked(ctx)
	defer end()
	return d.DialContext(ctx, network, address)
}

func (d *dialer) secure(ctx context.Context, network, address string) (net.Conn, error) {
	ctx, end := whileAsked(ctx)
	defer end()
	connection, err := d.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	config := d.tls.Clone()
	config.ServerName = hostname(address)
	secured := tls.Client(connection, config)
	if err := secured.HandshakeContext(ctx); err != nil {
		_ = connection.Close()
		return nil, err
	}
	return secured, nil
}

// whileAsked returns a copy of ctx that also ends when the look-up of ctx ends.
func whileAsked(ctx context.Context) (context.Context, context.CancelFunc) {
	q := questionOf(ctx)
	if q == nil {
		return ctx, func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(q.lasts, cancel)
	return ctx, func() { stop(); cancel() }
}

func (g *guarded) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Scheme != "https" && !slices.Contains(g.plain, r.URL.Host) {
		return nil, fmt.Errorf("%w: %s", errPlainHTTP, r.URL.Host)
	}
	q := questionOf(r.Context())
	if q == nil {
		return nil, errAddress // the request belongs to no look-up
	}
	inner, err := g.inner(r, g.reach(r.URL.Host, q.registry))
	if err != nil {
		return nil, err
	}
	response, err := inner.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	response.Body = &bounded{ReadCloser: response.Body, own: maxAnswer, all: &q.left}
	return response, nil
}

// inner returns the transport of a request. For a request through a proxy, the function judges only
// a literal address, because the proxy itself resolves host names.
func (g *guarded) inner(r *http.Request, its reach) (http.RoundTripper, error) {
	proxy, err := g.proxy(r)
	if err != nil {
		return nil, fmt.Errorf("find proxy: %w", err)
	}
	if proxy == nil {
		return g.by[its], nil
	}
	if address, err := netip.ParseAddr(r.URL.Hostname()); err == nil && !its.allows(address, g.networks) {
		return nil, fmt.Errorf("%w: %s", errAddress, address)
	}
	return g.proxied, nil
}

// reach returns the reach of a request to the host. The request belongs to a look-up at the
// registry. All ports of the registry's host belong to the registry.
func (g *guarded) reach(host, registry string) reach {
	switch {
	case slices.Contains(g.named, host), g.byPerson && hostname(host) == hostname(registry) && isLoopback(hostname(host)):
		return anywhere
	case g.byPerson, hostname(host) == hostname(registry), slices.Contains(g.named, registry):
		return private
	default:
		return public
	}
}

// isLoopback reports whether a host is "localhost" or an address of loopback. DNS may resolve
// another name to loopback. That answer does not count, because the owner of the name chooses it.
func isLoopback(host string) bool {
	address, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && address.Unmap().IsLoopback()
}

// hostname returns a host in lower case, without its port.
func hostname(host string) string {
	host = strings.ToLower(host)
	if name, _, err := net.SplitHostPort(host); err == nil {
		return name
	}
	return strings.Trim(host, "[]")
}

// bounded is the body of an answer. A read fails once this body, or the sum of all bodies
// of the look-up, is too long.
type bounded struct {
	io.ReadCloser
	own int64
	all *atomic.Int64
}

func (b *bounded) Read(p []byte) (int, error) {
	if int64(len(p)) > b.own+1 {
		p = p[:b.own+1]
	}
	n, err := b.ReadCloser.Read(p)
	b.own -= int64(n)
	if b.own < 0 || b.all.Add(-int64(n)) < 0 {
		return 0, errSize
	}
	return n, err
}
