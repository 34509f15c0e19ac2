// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/metaparticle-io/metaparticle/api"
)

// Do carries out any probe except an exec probe, as the kubelet does. The argument "address" is the
// pod's address.
func Do(ctx context.Context, h api.Handler, address string, timeout time.Duration) Result {
	switch {
	case h.HTTPGet != nil:
		return get(ctx, h.HTTPGet, address, timeout)
	case h.TCPSocket != nil:
		return connect(ctx, h.TCPSocket, address, timeout)
	case h.GRPC != nil:
		return check(ctx, h.GRPC, address, timeout)
	}
	return Result{Output: "missing probe handler"}
}

var transport = &http.Transport{
	TLSClientConfig:    insecure,
	DisableKeepAlives:  true,
	DisableCompression: true,
	DialContext:        dialer.DialContext,
	// By itself, package http reads ten megabytes of header, and keeps more than the agent's memory.
	MaxResponseHeaderBytes: maxHeader,
}

// maxHeader bounds the header of an answer. Web servers and proxies have bounds of 8 to 64 KiB.
const maxHeader = 64 << 10

// maxBody bounds the part of an answer's body that a probe reads, as in the kubelet.
const maxBody = 10 << 10

// maxRedirects is the largest number of redirects that a probe follows, as in net/http.
const maxRedirects = 10

func get(ctx context.Context, action *api.HTTPGetAction, address string, timeout time.Duration) Result {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, target(action, address).String(), http.NoBody)
	if err != nil {
		return Result{Output: err.Error()}
	}
	headers(request, action.HTTPHeaders)
	client := http.Client{Transport: transport, Timeout: timeout, CheckRedirect: local}
	response, err := client.Do(request)
	if err != nil {
		var last *url.Error // last.URL is the URL of the last request, possibly after a redirect
		direct := errors.As(err, &last) && last.URL == request.URL.String()
		return Result{Outcome: Failure, Output: err.Error(), Refused: direct && refused(err)}
	}
	defer response.Body.Close()
	if _, err := io.Copy(io.Discard, io.LimitReader(response.Body, maxBody)); err != nil {
		return Result{Output: err.Error()}
	}
	r := Result{Outcome: Success, Status: response.StatusCode, Location: response.Header.Get("Location")}
	if r.Status < http.StatusOK || r.Status >= http.StatusBadRequest {
		r.Outcome, r.Output = Failure, fmt.Sprintf("HTTP probe failed with statuscode: %d", r.Status)
	}
	return r
}

// target returns the URL that the probe requests.
func target(action *api.HTTPGetAction, address string) *url.URL {
	u, err := url.Parse(action.Path)
	if err != nil {
		u = &url.URL{Path: action.Path} // the API server accepts even an invalid path
	}
	u.Scheme = "http"
	if strings.EqualFold(action.Scheme, "https") {
		u.Scheme = "https"
	}
	u.Host = join(action.Host, address, action.Port)
	return u
}

func headers(request *http.Request, list []api.HTTPHeader) {
	for _, h := range list {
		request.Header.Add(h.Name, h.Value)
	}
	if _, ok := request.Header["User-Agent"]; !ok {
		request.Header.Set("User-Agent", userAgentOf(request.Context()))
	}
	if accept, ok := request.Header["Accept"]; !ok {
		request.Header.Set("Accept", "*/*")
	} else if accept[0] == "" {
		request.Header.Del("Accept")
	}
	request.Host = request.Header.Get("Host")
}

// The function "local" permits at most [maxRedirects] redirects, and only to the same host. A
// redirect to another host ends the probe, and is the probe's result.
func local(request *http.Request, via []*http.Request) error {
	if request.URL.Hostname() != via[0].URL.Hostname() {
		return http.ErrUseLastResponse
	}
	if len(via) >= maxRedirects {
		return errors.New("stopped after 10 redirects")
	}
	return nil
}

func connect(ctx context.Context, action *api.TCPSocketAction, address string, timeout time.Duration) Result {
	d := dialer
	d.Timeout = timeout
	c, err := d.DialContext(ctx, "tcp", join(action.Host, address, action.Port))
	if err != nil {
		return Result{Outcome: Failure, Output: err.Error(), Refused: refused(err)}
	}
	_ = c.Close()
	return Result{Outcome: Success}
}
