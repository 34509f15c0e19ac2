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

// Config says where the API server is and who we are.
type Config struct {
	// Namespace is the pod's own; nothing else is ever asked for.
	Namespace string
	// Host and Port of the API server (KUBERNETES_SERVICE_HOST and _PORT).
	Host, Port string
	// TokenFile and CAFile are the mounted credentials. Neither has to exist
	// when the client is made: both are read when they are needed.
	TokenFile, CAFile string
	// Version is the agent's, for the User-Agent header.
	Version string
}

// Client talks to one API server about one namespace. Its methods may be
// called at the same time; a call is bounded by its context alone.
type Client struct {
	config    Config
	base      string
	agent     string
	token     token
	transport *http.Transport
}

// New makes a client; it opens nothing and starts nothing.
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

// Close closes the connections that no request uses.
func (c *Client) Close() { c.transport.CloseIdleConnections() }

// GetLease reads a Lease with a consistent read: the answer is not older than
// the request.
func (c *Client) GetLease(ctx context.Context, name string) (*Lease, error) {
	// No resourceVersion parameter: that is what makes the read consistent.
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

// UpdateLease writes the Lease over exactly the object that it was read from,
// and returns what was stored. See [Refused] for what its errors prove.
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
	}
	return stored, nil
}

func (c *Client) leasesPath() string {
	return "/apis/coordination.k8s.io/v1/namespaces/" + url.PathEscape(c.config.Namespace) + "/leases"
}

func (c *Client) leasePath(name string) string {
	return c.leasesPath() + "/" + url.PathEscape(name)
}

// request is one HTTP request, still without credentials.
type request struct {
	method      string
	path        string
	query       url.Values
	contentType string
	body        []byte
	// accept is JSON of the whole object if empty.
	accept string
}

// maxBody bounds what is read of one answer or one watch frame. No object is
// larger than what etcd takes in one request (1.5 MiB), so none that exists is
// refused; the agent's memory stays bounded whatever answers.
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

// send sends the request and returns a successful answer, whose body the
// caller closes. After a 401 it reads the token again and, if that has
// changed, asks once more: a request that was not authenticated did nothing.
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

// roundTrip goes to the transport without an http.Client between: no
// redirects, no cookies.
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
		return nil, err
	}
	if response.StatusCode >= 200 && response.StatusCode < 300 {
		return response, nil
	}
	defer response.Body.Close()
	// The status alone is an answer: what is wrong with the rest of it costs
	// the message, not the meaning.
	text, _ := readBounded(response.Body)
	return nil, newStatusError(response.StatusCode, response.Header.Get("Retry-After"), text)
}

// readBounded reads a body to its end, which also frees its connection for the
// next request.
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
