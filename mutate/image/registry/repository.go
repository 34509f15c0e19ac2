// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// errNoDigest reports that a registry did not answer HEAD with a digest. Some registries
// never send a digest.
var errNoDigest = errors.New("no digest in the answer")

// accepted are the media types of images and indexes.
var accepted = strings.Join([]string{
	string(types.DockerManifestSchema2), string(types.OCIManifestSchema1),
	string(types.DockerManifestList), string(types.OCIImageIndex),
}, ",")

// repository asks a registry about one of its repositories. The library go-containerregistry logs
// in, and this package reads the answers up to fixed bounds.
type repository struct {
	name      name.Repository
	who       authn.Authenticator
	transport http.RoundTripper
	large     chan struct{}
	// client is nil before the first request. Several requests may use the client concurrently.
	client *http.Client
}

// login logs in, and makes the client. Each request has up to three attempts if connections
// break or the registry's status is temporary.
func (r *repository) login(ctx context.Context) error {
	patient := transport.NewRetry(r.transport,
		transport.WithRetryBackoff(transport.Backoff{Duration: 100 * time.Millisecond, Factor: 2, Jitter: 0.5, Steps: 3}),
		transport.WithRetryPredicate(broken),
		transport.WithRetryStatusCodes(http.StatusRequestTimeout, http.StatusTooManyRequests, http.StatusInternalServerError,
			http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout))
	trip, err := transport.NewWithContext(ctx, r.name.Registry, r.who, patient, []string{r.name.Scope(transport.PullScope)})
	if err != nil {
		return fmt.Errorf("log in: %w", err)
	}
	r.client = &http.Client{Transport: trip, CheckRedirect: func(_ *http.Request, via []*http.Request) error {
		if len(via) >= maxRedirects {
			return errNotImage
		}
		return nil
	}}
	return nil
}

// broken reports whether a second attempt may succeed, because a connection broke or the
// error is temporary.
func broken(err error) bool {
	if temporary, ok := errors.AsType[interface {
		error
		Temporary() bool
	}](err); ok && temporary.Temporary() && !errors.Is(err, context.DeadlineExceeded) {
		return true
	}
	return slices.ContainsFunc([]error{io.EOF, io.ErrUnexpectedEOF, syscall.EPIPE, syscall.ECONNRESET, net.ErrClosed},
		func(class error) bool { return errors.Is(err, class) })
}

// ask sends a request for a manifest or a blob. The caller closes the answer.
func (r *repository) ask(ctx context.Context, method, kind, identifier string) (*http.Response, error) {
	if r.client == nil {
		if err := r.login(ctx); err != nil {
			return nil, err
		}
	}
	// go-containerregistry has parsed the name, so the URL needs no escapes.
	url := fmt.Sprintf("%s://%s/v2/%s/%s/%s", r.name.Scheme(), r.name.RegistryStr(), r.name.RepositoryStr(), kind, identifier)
	request, err := http.NewRequestWithContext(ctx, method, url, nil)
	if err != nil {
		return nil, err
	}
	if kind == "manifests" {
		request.Header.Set("Accept", accepted)
	}
	response, err := r.client.Do(request)
	if err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		_ = response.Body.Close()
		return nil, statusError(response.StatusCode)
	}
	return response, nil
}

// head asks for the digest of a tag by a request that does not count as a pull.
func (r *repository) head(ctx context.Context, tag string) (v1.Hash, error) {
	response, err := r.ask(ctx, http.MethodHead, "manifests", tag)
	if err != nil {
		return v1.Hash{}, err
	}
	defer func() { _ = response.Body.Close() }()
	digest, err := v1.NewHash(response.Header.Get("Docker-Content-Digest"))
	if err != nil {
		return v1.Hash{}, errNoDigest
	}
	return digest, nil
}

// get reads the manifest of a tag, and computes the tag's digest from the manifest.
func (r *repository) get(ctx context.Context, tag string) (v1.Hash, error) {
	var digest v1.Hash
	err := r.fetch(ctx, "manifests", tag, func(body []byte, _ types.MediaType) (err error) {
		digest, err = sum("sha256", body)
		return err
	})
	return digest, err
}

// use is a function that processes the text of an answer. The function must not keep the
// text, because only a few large answers may be in memory.
type use func(body []byte, mediaType types.MediaType) error

// content reads the content that a descriptor names, and checks its digest. The descriptor
// may contain this content itself, in Data.
func (r *repository) content(ctx context.Context, kind string, d descriptor, use use) error {
	if len(d.Digest) > maxDigest {
		return fmt.Errorf("%w: a digest of %d bytes", errNotImage, len(d.Digest))
	}
	digest, err := v1.NewHash(d.Digest)
	if err != nil {
		return fmt.Errorf("%w: %w", errNotImage, err)
	}
	checked := func(body []byte, mediaType types.MediaType) error {
		got, err := sum(digest.Algorithm, body)
		if err != nil {
			return fmt.Errorf("%w: %w", errNotImage, err)
		}
		if got != digest {
			return fmt.Errorf("%w: what is under %s has digest %s", errNotImage, digest, got)
		}
		return use(body, mediaType)
	}
	if d.Data != nil {
		return checked(d.Data, d.MediaType)
	}
	return r.fetch(ctx, kind, digest.String(), checked)
}

func sum(algorithm string, body []byte) (v1.Hash, error) {
	hash, err := v1.Hasher(algorithm)
	if err != nil {
		return v1.Hash{}, err
	}
	hash.Write(body)
	return v1.Hash{Algorithm: algorithm, Hex: hex.EncodeToString(hash.Sum(nil))}, nil
}

func (r *repository) fetch(ctx context.Context, kind, identifier string, use use) error {
	response, err := r.ask(ctx, http.MethodGet, kind, identifier)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	if response.ContentLength > maxAnswer {
		return errSize
	}
	body, err := io.ReadAll(io.LimitReader(response.Body, smallAnswer))
	if err != nil {
		return err
	}
	if len(body) == smallAnswer {
		select {
		case r.large <- struct{}{}:
			defer func() { <-r.large }()
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		rest, err := io.ReadAll(response.Body)
		if err != nil {
			return err
		}
		body = append(body, rest...)
	}
	return use(body, types.MediaType(response.Header.Get("Content-Type")))
}
