// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/metaparticle-io/metaparticle/mutate/image"
)

// Resolver implements [image.Images] by asking registries.
type Resolver struct {
	options   Options
	transport http.RoundTripper
	flights   flights
	turns     *turns
	// large bounds the large answers in memory: each such answer occupies a place in this channel.
	large chan struct{}
	// references are the parsed names of images, by their text.
	references *cache[name.Reference]
	digests    *cache[v1.Hash]
	commands   *cache[image.Command]
	now        func() time.Time
}

var _ image.Images = (*Resolver)(nil)

// New returns a Resolver.
func New(o Options) *Resolver {
	o.Budget = cmp.Or(o.Budget, defaultBudget)
	return &Resolver{
		options:   o,
		transport: newTransport(o),
		turns:     newTurns(maxAtOnce, maxOfNamespace, maxWaiting),
		large:     make(chan struct{}, maxLarge),
		// A parsed reference contains the parts of the name, and also the whole name. So its
		// cost is twice the length of the name.
		references: newCache(referenceBytes, func(ref name.Reference) int { return 2 * len(ref.String()) }),
		digests:    newCache(digestBytes, func(h v1.Hash) int { return len(h.Hex) }),
		commands:   newCache(commandBytes, costOf),
		now:        time.Now,
	}
}

// For implements [image.Images].
func (r *Resolver) For(rights image.PullRights) image.Reader {
	return &reader{Resolver: r, rights: rights}
}

// Command reads one image's command with a pod's rights.
func (r *Resolver) Command(ctx context.Context, named string, rights image.PullRights) (image.Command, error) {
	return r.For(rights).Command(ctx, named)
}

// reader reads images with one pod's rights.
type reader struct {
	*Resolver
	rights  image.PullRights
	keyring keyring
}

// Command implements [image.Reader].
func (r *reader) Command(ctx context.Context, named string) (image.Command, error) {
	budget := r.options.Budget
	if ends, ok := ctx.Deadline(); ok { // the caller may have less patience
		budget = min(budget, max(time.Until(ends), 100*time.Millisecond).Round(100*time.Millisecond))
	}
	ctx, cancel := context.WithTimeoutCause(ctx, budget, late{budget})
	defer cancel()
	places, err := r.places(named)
	if err != nil {
		return image.Command{}, err
	}
	var failed []*failure
	for i, ref := range places {
		// Each mirror gets half of the remaining time. So some time is left for the next
		// mirror, or the registry.
		within := budget
		if i < len(places)-1 {
			within >>= i + 1
		}
		command, err := r.ask(ctx, ref, within)
		if err == nil || errors.Is(err, image.ErrPlatforms) || errors.Is(err, errPlatform) {
			return command, err
		}
		its := fail(err, r.keyring.unread)
		failed = append(failed, its)
		if r.options.Failed != nil && !errors.Is(its, context.Canceled) {
			r.options.Failed(r.rights.Namespace, ref.Name(), errors.Join(err, r.keyring.unread))
		}
	}
	return image.Command{}, joined(failed)
}

// ask reads the command of an image at one reference, at a mirror or at the registry itself.
func (r *reader) ask(ctx context.Context, ref name.Reference, within time.Duration) (image.Command, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, within, late{within})
	defer cancel()
	if command, ok := r.known(ref, nil); ok {
		return command, nil
	}
	r.readSecrets(ctx)
	credentials := r.keyring.fitting(ref.Context())
	if command, ok := r.known(ref, credentials); ok {
		return command, nil
	}
	// Only callers of one namespace share a look-up, because a look-up waits in
	// its namespace's queue.
	command, err := r.flights.join(ctx, r.rights.Namespace+" "+scope(credentials)+" "+ref.String(), r.options.Budget,
		func(ctx context.Context) (image.Command, error) {
			giveBack, err := r.turns.take(ctx, r.rights.Namespace)
			if err != nil {
				return image.Command{}, err
			}
			defer giveBack()
			return r.lookUp(withQuestion(ctx, ref.Context().Registry), ref, credentials)
		})
	if errors.Is(err, context.DeadlineExceeded) {
		err = errors.Join(late{within}, err)
	}
	return command, err
}

// readSecrets reads the pod's pull secrets when the first image needs them. The reading
// counts as one of the namespace's look-ups, because secrets may be large.
func (r *reader) readSecrets(ctx context.Context) {
	if r.options.Secrets == nil {
		return
	}
	r.keyring.once.Do(func() {
		giveBack, err := r.turns.take(ctx, r.rights.Namespace)
		if err != nil {
			r.keyring.unread = err
			return
		}
		defer giveBack()
		r.keyring.fill(ctx, r.options.Secrets, r.rights)
	})
}

// Known returns the remembered command of an image that is named by its digest. An earlier
// look-up has read that command without credentials.
func (r *Resolver) Known(named string) (image.Command, bool) {
	places, err := r.places(named)
	if err != nil {
		return image.Command{}, false
	}
	for _, ref := range places {
		if command, ok := r.known(ref, nil); ok {
			return command, true
		}
	}
	return image.Command{}, false
}

// known returns the command of a digest if an earlier look-up has read this command with one of
// the given credentials. If none are given, that look-up must have had no credentials either.
// The remembered command is still right, because the command of a digest never changes.
func (r *Resolver) known(ref name.Reference, credentials []authn.AuthConfig) (image.Command, bool) {
	exact, ok := ref.(name.Digest)
	if !ok {
		return image.Command{}, false
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
	return image.Command{}, false
}

func commandKey(scope string, exact name.Digest) string { return scope + " " + exact.String() }

// places returns the references of an image, those at mirrors first.
func (r *Resolver) places(named string) ([]name.Reference, error) {
	if len(named) > maxName {
		return nil, errNameSize // no code parses a name of that length
	}
	origin, err := r.parse(named)
	if err != nil {
		return nil, err
	}
	var all []name.Reference
	for _, m := range r.options.Mirrors {
		if m.from != origin.Context().RegistryStr() {
			continue
		}
		ref, err := r.atMirror(m, origin)
		if err != nil {
			return nil, fmt.Errorf("mirror of %s: %w", m.from, err)
		}
		all = append(all, ref)
	}
	return append(all, origin), nil
}

// atMirror returns the reference of an image at a mirror. The function parses no name, because in a
// name a host without a dot or a port is a part of Docker Hub's path.
func (r *Resolver) atMirror(m Mirror, origin name.Reference) (name.Reference, error) {
	host, below, _ := strings.Cut(m.to, "/")
	mirror, err := name.NewRegistry(host)
	if err == nil && slices.Contains(r.options.PlainHTTP, mirror.RegistryStr()) {
		mirror, err = name.NewRegistry(host, name.Insecure)
	}
	if err != nil {
		return nil, errName
	}
	repository := mirror.Repo(below, origin.Context().RepositoryStr())
	if _, exact := origin.(name.Digest); exact {
		return repository.Digest(origin.Identifier()), nil
	}
	return repository.Tag(origin.Identifier()), nil
}

// parse parses a reference as the container runtimes do. Short names are Docker Hub's, and
// the default tag is latest.
func (r *Resolver) parse(named string) (name.Reference, error) {
	if ref, _, ok := r.references.get(named); ok {
		return ref, nil
	}
	ref, err := name.ParseReference(named)
	if err == nil && slices.Contains(r.options.PlainHTTP, ref.Context().RegistryStr()) {
		ref, err = name.ParseReference(named, name.Insecure)
	}
	if err != nil {
		return nil, errName
	}
	r.references.put(named, ref, r.now())
	return ref, nil
}

// lookUp reads the command of an image. Like the kubelet, the function tries one credential after
// the other, for as long as the registry refuses the credentials. If no credential is given, the
// function asks the registry anonymously.
func (r *Resolver) lookUp(ctx context.Context, ref name.Reference, credentials []authn.AuthConfig) (image.Command, error) {
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
	return image.Command{}, errors.Join(refused...)
}

func (r *Resolver) lookUpAs(ctx context.Context, ref name.Reference, who authn.Authenticator, scope string) (image.Command, error) {
	repository := &repository{name: ref.Context(), who: who, transport: r.transport, large: r.large}
	digest, err := r.resolve(ctx, repository, ref, scope)
	if err != nil {
		return image.Command{}, err
	}
	key := commandKey(scope, ref.Context().Digest(digest.String()))
	if command, _, ok := r.commands.get(key); ok {
		return command, nil
	}
	command, err := repository.command(ctx, digest.String())
	if err != nil {
		return image.Command{}, err
	}
	r.commands.put(key, command, r.now())
	return command, nil
}

// resolve returns the digest of a reference. For a tag, the function sends a HEAD request, which
// registries do not count as a pull. If the registry does not answer, the function returns the last
// digest of the tag, unless that digest is older than [tagMemory].
func (r *Resolver) resolve(ctx context.Context, repository *repository, ref name.Reference, scope string) (v1.Hash, error) {
	if exact, ok := ref.(name.Digest); ok {
		return v1.NewHash(exact.DigestStr())
	}
	key := scope + " " + ref.String()
	last, at, remembered := r.digests.get(key)
	remembered = remembered && r.now().Sub(at) < tagMemory
	asking := ctx
	if remembered {
		// The request gets half of the budget, so that a hanging registry leaves time for the
		// answer from memory.
		var cancel context.CancelFunc
		asking, cancel = context.WithTimeout(ctx, r.options.Budget/2)
		defer cancel()
	}
	digest, err := repository.head(asking, ref.Identifier())
	switch {
	case err == nil:
		r.digests.put(key, digest, r.now())
		return digest, nil
	case errors.Is(err, errNoDigest):
	case away(err) && remembered:
		return last, nil
	case away(err):
		return v1.Hash{}, err
	case denied(err):
		r.digests.drop(key)
		return v1.Hash{}, err
	}
	// Some registries do not support HEAD, so a GET must follow.
	return repository.get(ctx, ref.Identifier())
}
