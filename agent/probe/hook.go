// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/metaparticle-io/metaparticle/api"
)

// hookBody bounds the bytes of an answer that the agent reads, as in the kubelet.
const hookBody = 10 << 10

// SendHook sends the HTTP request of a lifecycle hook as the kubelet does in other pods, and waits for an
// answer. (The shim's program has no package http.) Any answer is a success. If the server of an HTTPS hook
// speaks only HTTP, SendHook repeats the request by HTTP, without the Authorization header. It checks no
// certificate, and follows no redirect to another host. The argument "podIP" is the host of a request that
// names no host. The argument "version" is the version of the program.
func SendHook(ctx context.Context, get api.HTTPGetAction, podIP, version string) error {
	host := cmp.Or(get.Host, podIP)
	if host == "" {
		return errors.New("the pod has no address")
	}
	page, err := url.Parse(get.Path)
	if err != nil {
		page = &url.URL{Path: get.Path} // the path stays as the author of the hook wrote it
	}
	page.Scheme = cmp.Or(strings.ToLower(get.Scheme), "http")
	page.Host = net.JoinHostPort(host, strconv.Itoa(get.Port))
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, page.String(), nil)
	if err != nil {
		return err
	}
	request.Header = headersOf(get.HTTPHeaders, version)
	request.Host = request.Header.Get("Host")
	client := &http.Client{
		Transport:     &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}},
		CheckRedirect: sameHost,
	}
	err = do(client, request)
	if err != nil && strings.Contains(err.Error(), "server gave HTTP response to HTTPS client") {
		request.URL.Scheme = "http"
		request.Header.Del("Authorization")
		return do(client, request)
	}
	return err
}

func do(client *http.Client, request *http.Request) error {
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	_, _ = io.CopyN(io.Discard, response.Body, hookBody)
	return nil
}

// headersOf returns the headers of the list, with the kubelet's default headers. An empty
// Accept header removes the default Accept header.
func headersOf(list []api.HTTPHeader, version string) http.Header {
	headers := http.Header{}
	for _, h := range list {
		headers.Add(h.Name, h.Value)
	}
	if _, ok := headers["User-Agent"]; !ok {
		headers.Set("User-Agent", "kube-lifecycle/metaparticle-"+version)
	}
	if _, ok := headers["Accept"]; !ok {
		headers.Set("Accept", "*/*")
	} else if headers.Get("Accept") == "" {
		headers.Del("Accept")
	}
	return headers
}

// mostRedirects is the largest number of redirects that the kubelet and net/http follow.
const mostRedirects = 10

func sameHost(next *http.Request, via []*http.Request) error {
	switch {
	case next.URL.Hostname() != via[0].URL.Hostname():
		return http.ErrUseLastResponse
	case len(via) >= mostRedirects:
		return fmt.Errorf("stopped after %d redirects", mostRedirects)
	}
	return nil
}
