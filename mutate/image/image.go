// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package image

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"golang.org/x/sync/singleflight"

	"github.com/metaparticle-io/metaparticle/mutate"
)

const (
	// defaultBudget bounds a look-up. The API server waits 10 s for a webhook
	// and pods wait for it; a registry that needs longer than this is not well.
	defaultBudget = 2500 * time.Millisecond
	// defaultEntries bounds each cache; an entry has a few hundred bytes.
	defaultEntries = 4096
	// tagMemory is how long a tag's last digest counts while its registry is
	// away: long enough for a registry's upgrade, short enough that nobody
	// has forgotten about the tag.
	tagMemory = time.Hour
	// maxPlatforms bounds what one reference makes us fetch.
	maxPlatforms = 32
)

// errPlatform: an image has no platform that the gate could run on.
var errPlatform = errors.New("no Linux platform")

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
	// Entries bounds each cache; zero means 4096.
	Entries int
}

// Resolver answers what images run. It implements [mutate.Images].
type Resolver struct {
	options   Options
	transport http.RoundTripper
	flight    singleflight.Group
	// references are image names as they were written, read.
	references *cache[name.Reference]
	digests    *cache[v1.Hash]
	commands   *cache[mutate.Command]
	now        func() time.Time
}

var _ mutate.Images = (*Resolver)(nil)

// New makes a Resolver.
func New(o Options) *Resolver {
	o.Budget = cmp.Or(o.Budget, defaultBudget)
	o.Entries = cmp.Or(o.Entries, defaultEntries)
	r := &Resolver{
		options:    o,
		transport:  newTransport(o),
		references: newCache[name.Reference](o.Entries),
		digests:    newCache[v1.Hash](o.Entries),
		commands:   newCache[mutate.Command](o.Entries),
		now:        time.Now,
	}
	return r
}

// Command implements [mutate.Images].
func (r *Resolver) Command(ctx context.Context, image string, rights mutate.PullRights) (mutate.Command, error) {
	late := fmt.Errorf("no answer within %v", r.options.Budget)
	ctx, cancel := context.WithTimeoutCause(ctx, r.options.Budget, late)
	defer cancel()
	places, err := r.places(image)
	if err != nil {
		return mutate.Command{}, err
	}
	var failed []error
	for i, ref := range places {
		// A mirror is left half of the time, so that the rest can go on without.
		within := r.options.Budget
		if i < len(places)-1 {
			within >>= i + 1
		}
		command, err := r.ask(ctx, ref, rights, within)
		if err == nil || errors.Is(err, mutate.ErrPlatforms) || errors.Is(err, errPlatform) {
			return command, err
		}
		failed = append(failed, err)
	}
	return mutate.Command{}, errors.Join(failed...)
}

// ask looks an image up in one place.
func (r *Resolver) ask(ctx context.Context, ref name.Reference, rights mutate.PullRights, within time.Duration) (mutate.Command, error) {
	late := fmt.Errorf("no answer within %v", within)
	ctx, cancel := context.WithTimeoutCause(ctx, within, late)
	defer cancel()
	if command, ok := r.known(ref, nil); ok {
		return command, nil
	}
	credentials, unread := r.credentials(ctx, ref.Context(), rights)
	if command, ok := r.known(ref, credentials); ok {
		return command, nil
	}
	found := r.flight.DoChan(scope(credentials)+" "+ref.String(), func() (any, error) {
		// Whoever comes first may give up; the others still wait.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), r.options.Budget)
		defer cancel()
		return r.lookUp(ctx, ref, credentials)
	})
	select {
	case <-ctx.Done():
		return mutate.Command{}, errors.Join(context.Cause(ctx), unread)
	case result := <-found:
		if errors.Is(result.Err, context.DeadlineExceeded) {
			return mutate.Command{}, errors.Join(late, unread)
		}
		if result.Err != nil {
			return mutate.Command{}, errors.Join(result.Err, unread)
		}
		return result.Val.(mutate.Command), nil
	}
}

// Known is the command of an image by digest that anybody may read, and that
// was read before: nobody has to be asked about it.
func (r *Resolver) Known(image string) (mutate.Command, bool) {
	places, err := r.places(image)
	if err != nil {
		return mutate.Command{}, false
	}
	for _, ref := range places {
		if command, ok := r.known(ref, nil); ok {
			return command, true
		}
	}
	return mutate.Command{}, false
}

// known is what was read of a digest before, with one of these credentials, or
// by nobody in particular if there are none. It is the same for ever.
func (r *Resolver) known(ref name.Reference, credentials []authn.AuthConfig) (mutate.Command, bool) {
	exact, ok := ref.(name.Digest)
	if !ok {
		return mutate.Command{}, false
	}
	if len(credentials) == 0 {
		command, _, ok := r.commands.get(commandKey("", exact))
		return command, ok
	}
	for _, c := range credentials {
		if command, _, ok := r.commands.get(commandKey(scope([]authn.AuthConfig{c}), exact)); ok {
			return command, true
		}
	}
	return mutate.Command{}, false
}

func commandKey(scope string, exact name.Digest) string { return scope + " " + exact.String() }

// parse reads a reference as the container runtimes do: short names are Docker
// Hub's, the tag is latest where there is none.
func (r *Resolver) parse(image string) (name.Reference, error) {
	if ref, _, ok := r.references.get(image); ok {
		return ref, nil
	}
	ref, err := name.ParseReference(image)
	if err == nil && slices.Contains(r.options.PlainHTTP, ref.Context().RegistryStr()) {
		ref, err = name.ParseReference(image, name.Insecure)
	}
	if err != nil {
		return nil, err
	}
	r.references.put(image, ref, r.now())
	return ref, nil
}

// lookUp tries one credential after the other, as the kubelet does.
func (r *Resolver) lookUp(ctx context.Context, ref name.Reference, credentials []authn.AuthConfig) (mutate.Command, error) {
	if len(credentials) == 0 {
		return r.lookUpAs(ctx, ref, authn.Anonymous, "")
	}
	var refused []error
	for _, c := range credentials {
		command, err := r.lookUpAs(ctx, ref, authn.FromConfig(c), scope([]authn.AuthConfig{c}))
		if err == nil || !denied(err) {
			return command, err
		}
		refused = append(refused, err)
	}
	return mutate.Command{}, errors.Join(refused...)
}

func (r *Resolver) lookUpAs(ctx context.Context, ref name.Reference, who authn.Authenticator, scope string) (mutate.Command, error) {
	puller, err := remote.NewPuller(
		remote.WithAuth(who),
		remote.WithTransport(r.transport),
		remote.WithRetryBackoff(remote.Backoff{Duration: 100 * time.Millisecond, Factor: 2, Jitter: 0.5, Steps: 3}),
	)
	if err != nil {
		return mutate.Command{}, err
	}
	digest, err := r.resolve(ctx, puller, ref, scope)
	if err != nil {
		return mutate.Command{}, err
	}
	exact := ref.Context().Digest(digest.String())
	key := commandKey(scope, exact)
	if command, _, ok := r.commands.get(key); ok {
		return command, nil
	}
	command, err := read(ctx, puller, exact)
	if err != nil {
		return mutate.Command{}, err
	}
	r.commands.put(key, command, r.now())
	return command, nil
}

// resolve is the digest that a reference names: of a tag by a HEAD request,
// which registries do not count as a pull.
func (r *Resolver) resolve(ctx context.Context, puller *remote.Puller, ref name.Reference, scope string) (v1.Hash, error) {
	if exact, ok := ref.(name.Digest); ok {
		return v1.NewHash(exact.DigestStr())
	}
	key := scope + " " + ref.String()
	last, at, remembered := r.digests.get(key)
	remembered = remembered && r.now().Sub(at) < tagMemory
	asking := ctx
	if remembered {
		// A registry that hangs must leave the time to answer from memory.
		var cancel context.CancelFunc
		asking, cancel = context.WithTimeout(ctx, r.options.Budget/2)
		defer cancel()
	}
	described, err := puller.Head(asking, ref)
	switch {
	case err == nil:
		r.digests.put(key, described.Digest, r.now())
		return described.Digest, nil
	case away(err) && remembered:
		return last, nil
	case away(err):
		return v1.Hash{}, err
	case denied(err):
		r.digests.drop(key)
		return v1.Hash{}, err
	}
	// Not every registry answers HEAD.
	got, err := puller.Get(ctx, ref)
	if err != nil {
		return v1.Hash{}, err
	}
	return got.Digest, nil
}

// denied: the registry does not let these credentials read.
func denied(err error) bool {
	status := statusOf(err)
	return status == http.StatusUnauthorized || status == http.StatusForbidden
}

// away: no answer, or one that is no verdict on the reference.
func away(err error) bool {
	status := statusOf(err)
	return status == 0 || status == http.StatusTooManyRequests || status >= http.StatusInternalServerError
}

func statusOf(err error) int {
	if answer, ok := errors.AsType[*transport.Error](err); ok {
		return answer.StatusCode
	}
	return 0
}
