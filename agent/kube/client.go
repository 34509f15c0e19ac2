// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"
)

// Config contains the API server's address and the agent's credentials.
type Config struct {
	// Namespace is the pod's own namespace. The client requests objects of no other
	// namespace.
	Namespace string
	// Host and Port are the address of the API server (KUBERNETES_SERVICE_HOST and
	// _PORT).
	Host, Port string
	// TokenFile is the path of the service account token, and CAFile is the path of the API
	// server's CA. The client reads the files when it needs them, so the files may appear after
	// the call of New.
	TokenFile, CAFile string
	// Version is the agent's version, for the User-Agent header.
	Version string
}

// Client sends requests for one namespace to one API server. Its methods may be called
// concurrently. The client bounds the time until it is connected, and the time until an answer
// begins. Only the context of a call bounds the rest of that call.
type Client struct {
	config    Config
	base      string
	agent     string
	token     token
	transport *http.Transport
}

// New returns a client without opening a connection.
func New(config Config) (*Client, error) {
	switch {
	case config.Namespace == "":
		return nil, errors.New("kube: no namespace")
	case config.Host == "" || config.Port == "":
		return nil, errors.New("kube: no address of the API server")
	}
	version := config.Version
	if version == "" {
		version = "unknown"
	}
	return &Client{
		config:    config,
		base:      "https://" + net.JoinHostPort(config.Host, config.Port),
		agent:     "metaparticle-agent/" + version,
		token:     token{file: config.TokenFile},
		transport: newTransport(&authority{file: config.CAFile}, config.Host),
	}, nil
}

// Close closes the idle connections.
func (c *Client) Close() { c.transport.CloseIdleConnections() }

// GetLease reads a Lease consistently: the answer is not older than the request.
func (c *Client) GetLease(ctx context.Context, name string) (*Lease, error) {
	// A read without a resourceVersion parameter is consistent.
	body, err := c.call(ctx, request{method: http.MethodGet, path: c.leasePath(name)})
	if err != nil {
		return nil, fmt.Errorf("get lease %s: %w", name, err)
	}
	lease, err := decodeLease(body)
	if err != nil {
		return nil, fmt.Errorf("get lease %s: %w", name, err)
	}
	if lease.Name != name {
		return nil, fmt.Errorf("get lease %s: %w: it is called %q", name, ErrMalformed, lease.Name)
	}
	return lease, nil
}

// UpdateLease writes the Lease, and returns the stored Lease. If the Lease has changed since it
// was read, the API server refuses the write. [Refused] reports whether an error proves that the
// API server stored nothing.
func (c *Client) UpdateLease(ctx context.Context, lease *Lease) (*Lease, error) {
	stored, err := c.updateLease(ctx, lease)
	if err != nil {
		return nil, fmt.Errorf("update lease %s: %w", lease.Name, err)
	}
	return stored, nil
}

func (c *Client) updateLease(ctx context.Context, lease *Lease) (*Lease, error) {
	if lease.UID == "" || lease.ResourceVersion == "" {
		return nil, ErrNoUID
	}
	data, err := lease.MarshalJSON()
	if err != nil {
		return nil, err
	}
	body, err := c.call(ctx, request{
		method: http.MethodPut, path: c.leasePath(lease.Name),
		contentType: "application/json", body: data,
	})
	if err != nil {
		return nil, err
	}
	stored, err := decodeLease(body)
	switch {
	case err != nil:
		return nil, err
	case stored.Name != lease.Name || stored.UID != lease.UID:
		return nil, fmt.Errorf("%w: it is about %s with uid %s", ErrMalformed, stored.Name, stored.UID)
	case stored.ResourceVersion == lease.ResourceVersion:
		return nil, ErrUnchanged
	case !stored.RenewTime.Equal(lease.RenewTime.Truncate(time.Microsecond)):
		return nil, fmt.Errorf("%w: it has another renew time than the write", ErrMalformed)
	}
	return stored, nil
}

func (c *Client) leasesPath() string {
	return "/apis/coordination.k8s.io/v1/namespaces/" + url.PathEscape(c.config.Namespace) + "/leases"
}

func (c *Client) leasePath(name string) string {
	return c.leasesPath() + "/" + url.PathEscape(name)
}

// request is one HTTP request before credentials are added.
type request struct {
	method      string
	path        string
	query       url.Values
	contentType string
	body        []byte
	// accept is the Accept header; if empty, the answer is the whole object as
	// JSON.
	accept string
}

// maxBody bounds the size of one answer or one frame of a watch, and so the memory of the
// agent. No object exceeds the 1.5 MiB that etcd accepts in one request, so no existing object
// is too large for the client.
const maxBody = 2 << 20

// call sends the request and returns the body of a successful answer.
func (c *Client) call(ctx context.Context, r request) ([]byte, error) {
	response, err := c.send(ctx, r)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	return readBounded(response.Body)
}

// send sends the request and returns a successful answer, whose body the caller closes. After a
// 401, the client reads the service account token again. If the token has changed, the client
// repeats the request, because a request without authentication has changed nothing.
func (c *Client) send(ctx context.Context, r request) (*http.Response, error) {
	bearer, err := c.token.get(time.Now())
	if err != nil {
		return nil, err
	}
	response, err := c.roundTrip(ctx, r, bearer)
	if !errors.Is(err, ErrUnauthorized) {
		return response, err
	}
	fresh, readErr := c.token.reread(time.Now())
	if readErr != nil || fresh == bearer {
		return nil, err
	}
	return c.roundTrip(ctx, r, fresh)
}

// roundTrip sends one HTTP request, and returns a successful answer, or an error. The function uses
// the transport without an http.Client, so roundTrip follows no redirects, and stores no cookies.
func (c *Client) roundTrip(ctx context.Context, r request, bearer string) (*http.Response, error) {
	target := c.base + r.path
	if len(r.query) > 0 {
		target += "?" + r.query.Encode()
	}
	var body io.Reader
	if r.body != nil {
		body = bytes.NewReader(r.body)
	}
	q, err := http.NewRequestWithContext(ctx, r.method, target, body)
	if err != nil {
		return nil, err
	}
	q.Header.Set("Accept", cmp.Or(r.accept, "application/json"))
	q.Header.Set("Authorization", "Bearer "+bearer)
	q.Header.Set("User-Agent", c.agent)
	if r.contentType != "" {
		q.Header.Set("Content-Type", r.contentType)
	}
	response, err := c.transport.RoundTrip(q)
	if err != nil {
		return nil, &ConnectionError{Address: net.JoinHostPort(c.config.Host, c.config.Port), Err: err}
	}
	if response.StatusCode >= 200 && response.StatusCode < 300 {
		return response, nil
	}
	defer response.Body.Close()
	// The status alone decides which error this is. If the body is broken, the error only lacks
	// its message.
	text, _ := readBounded(response.Body)
	return nil, newStatusError(response.StatusCode, response.Header.Get("Retry-After"), text)
}

// readBounded reads a body to its end, so that its connection can be used again. If the body
// exceeds [maxBody], the result is [ErrTooLarge].
func readBounded(r io.Reader) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxBody+1))
	if err != nil {
		return nil, fmt.Errorf("read answer: %w", err)
	}
	if len(data) > maxBody {
		return nil, fmt.Errorf("%w: above %d bytes", ErrTooLarge, maxBody)
	}
	return data, nil
}
