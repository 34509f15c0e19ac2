// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"sync"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	corev1 "k8s.io/api/core/v1"

	"github.com/metaparticle-io/metaparticle/mutate/image"
)

// Secrets reads the pull secrets of a pod. The package reads only secrets that the pod or
// its service account names.
type Secrets interface {
	// PullSecrets returns the names of a service account's pull secrets.
	PullSecrets(ctx context.Context, namespace, serviceAccount string) ([]string, error)
	Secret(ctx context.Context, namespace, name string) (*corev1.Secret, error)
}

// keyring has the credentials of one pod. The first look-up that needs credentials fills
// the keyring for all images of the pod.
type keyring struct {
	once sync.Once
	all  []credential
	// bytes is the number of bytes of all texts in the field "all".
	bytes int
	// unread joins the errors of secrets that could not be read. Only a failed look-up
	// reports these errors.
	unread error
}

// fill reads the pull secrets one after the other, until the context ends, and skips an
// unreadable secret, as the kubelet does.
func (k *keyring) fill(ctx context.Context, from Secrets, rights image.PullRights) {
	var unread []error
	names := rights.Secrets
	if len(names) == 0 {
		// This pod names no secret. Usually a pod names the secrets of its service account, because
		// the API server copies these names to the pod.
		var err error
		account := cmp.Or(rights.ServiceAccount, "default")
		if names, err = from.PullSecrets(ctx, rights.Namespace, account); err != nil {
			unread = append(unread, fmt.Errorf("service account %q: %w", account, err))
		}
	}
	if len(names) > maxSecrets {
		unread = append(unread, errTooMany)
		names = names[:maxSecrets]
	}
	for _, n := range names {
		if ctx.Err() != nil {
			unread = append(unread, context.Cause(ctx))
			break
		}
		in, err := readOne(ctx, from, rights.Namespace, n)
		if err != nil {
			unread = append(unread, fmt.Errorf("pull secret %q: %w", n, err))
		}
		if !k.add(in) {
			unread = append(unread, errTooMany)
		}
	}
	k.unread = errors.Join(unread...)
}

// add adds credentials, and reports whether each of them had room.
func (k *keyring) add(all []credential) bool {
	fit := true
	for _, c := range all {
		if len(k.all) == maxCredentials || k.bytes+c.bytes() > maxCredentialBytes {
			fit = false
			continue
		}
		k.bytes += c.bytes()
		k.all = append(k.all, c.alone())
	}
	return fit
}

func readOne(ctx context.Context, from Secrets, namespace, name string) ([]credential, error) {
	secret, err := from.Secret(ctx, namespace, name)
	if err != nil {
		return nil, err
	}
	return readSecret(secret)
}

// fitting returns the credentials that fit a repository, the most specific first.
func (k *keyring) fitting(repository name.Repository) []authn.AuthConfig {
	var fitting []credential
	for _, c := range k.all {
		if c.fits(repository) {
			fitting = append(fitting, c)
		}
	}
	slices.SortStableFunc(fitting, func(a, b credential) int { return cmp.Compare(len(b.path), len(a.path)) })
	configs := make([]authn.AuthConfig, len(fitting))
	for i, c := range fitting {
		configs[i] = c.auth
	}
	return configs
}

// credential is one entry of a pull secret.
type credential struct {
	// host may have "*" in place of parts of its name.
	host string
	// path is a prefix of the repositories that the entry is for.
	path string
	auth authn.AuthConfig
}

// bytes returns the number of bytes of the credential's texts.
func (c credential) bytes() int {
	a := c.auth
	return len(c.host) + len(c.path) + len(a.Username) + len(a.Password) + len(a.Auth) + len(a.IdentityToken) + len(a.RegistryToken)
}

// alone returns the credential with texts that keep no longer text in memory. The host, for example, is
// a part of the entry's key.
func (c credential) alone() credential {
	c.host, c.path = strings.Clone(c.host), strings.Clone(c.path)
	c.auth.Username, c.auth.Password = strings.Clone(c.auth.Username), strings.Clone(c.auth.Password)
	return c
}

func readSecret(secret *corev1.Secret) ([]credential, error) {
	entries := map[string]authn.AuthConfig{}
	for _, data := range secret.Data {
		if len(data) > maxSecretBytes {
			return nil, errTooMany
		}
	}
	switch secret.Type {
	case corev1.SecretTypeDockerConfigJson:
		var file struct {
			Auths map[string]authn.AuthConfig `json:"auths"`
		}
		if err := json.Unmarshal(secret.Data[corev1.DockerConfigJsonKey], &file); err != nil {
			return nil, unreadable(err)
		}
		entries = file.Auths
	case corev1.SecretTypeDockercfg:
		if err := json.Unmarshal(secret.Data[corev1.DockerConfigKey], &entries); err != nil {
			return nil, unreadable(err)
		}
	default:
		return nil, fmt.Errorf("type %q is none of a pull secret", secret.Type)
	}
	var credentials []credential
	for key, auth := range entries {
		host, path := splitKey(key)
		if auth.Username != "" && auth.Password != "" {
			auth.Auth = "" // the same text in another encoding
		}
		credentials = append(credentials, credential{host: host, path: path, auth: auth})
	}
	// The order in which a look-up tries credentials must not vary, but a map has no order.
	slices.SortFunc(credentials, func(a, b credential) int {
		return cmp.Or(cmp.Compare(a.host, b.host), cmp.Compare(a.path, b.path))
	})
	return credentials, nil
}

// unreadable hides the decoder's error, which may quote the secret.
func unreadable(error) error { return errors.New("is not the JSON of a pull secret") }

// splitKey splits the key of an entry into host and path. The key may be the URL of a
// registry's API.
func splitKey(key string) (host, prefix string) {
	if _, after, ok := strings.Cut(key, "://"); ok {
		key = after
	}
	host, prefix, _ = strings.Cut(key, "/")
	prefix = strings.Trim(prefix, "/")
	if prefix == "v1" || prefix == "v2" {
		prefix = ""
	}
	// Docker Hub has several names, which go-containerregistry replaces by one name.
	if registry, err := name.NewRegistry(host); err == nil && host != "" {
		host = registry.RegistryStr()
	}
	return host, prefix
}

func (c credential) fits(repository name.Repository) bool {
	return fitsHost(c.host, repository.RegistryStr()) &&
		(c.path == "" || c.path == repository.RepositoryStr() || strings.HasPrefix(repository.RepositoryStr(), c.path+"/"))
}

// fitsHost compares a pattern and a host part by part. A "*" stands for one part, or for
// some letters of a part.
func fitsHost(pattern, host string) bool {
	patterns, parts := strings.Split(pattern, "."), strings.Split(host, ".")
	if len(patterns) != len(parts) {
		return false
	}
	for i := range parts {
		if ok, err := path.Match(patterns[i], parts[i]); err != nil || !ok {
			return false
		}
	}
	return true
}

// scope returns a hash that names a set of credentials without revealing them. Without credentials
// the result is empty.
func scope(credentials []authn.AuthConfig) string {
	if len(credentials) == 0 {
		return ""
	}
	h := sha256.New()
	for _, c := range credentials {
		for _, part := range []string{c.Username, c.Password, c.Auth, c.IdentityToken, c.RegistryToken} {
			fmt.Fprintf(h, "%d:%s", len(part), part)
		}
	}
	return hex.EncodeToString(h.Sum(nil))
}
