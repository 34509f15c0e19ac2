// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"

	corev1 "k8s.io/api/core/v1"

	"github.com/metaparticle-io/metaparticle/mutate"
	"github.com/metaparticle-io/metaparticle/mutate/image"
)

var (
	errOffline       = errors.New("not asked, because of --offline (leave it out to ask the registry)")
	errNotInManifest = errors.New("not in the manifest")
)

// everywhere allows all networks, because a person runs the plugin with their own
// rights.
var everywhere = []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}

// offline implements [mutate.Images] without reading any image.
type offline struct{}

// For implements [mutate.Images].
func (o offline) For(mutate.PullRights) mutate.Reader { return o }

// Command implements [mutate.Reader].
func (offline) Command(context.Context, string) (mutate.Command, error) {
	return mutate.Command{}, errOffline
}

// manifest implements [image.Secrets] with the Secrets and ServiceAccounts of the
// manifest.
type manifest []document

var _ image.Secrets = manifest(nil)

func (m manifest) find(kind, namespace, name string) (document, bool) {
	for _, d := range m {
		if d.APIVersion == "v1" && d.Kind == kind && d.Name == name && (d.Namespace == "" || d.Namespace == namespace) {
			return d, true
		}
	}
	return document{}, false
}

// PullSecrets implements [image.Secrets].
func (m manifest) PullSecrets(_ context.Context, namespace, serviceAccount string) ([]string, error) {
	d, ok := m.find("ServiceAccount", namespace, serviceAccount)
	if !ok {
		return nil, nil
	}
	var account corev1.ServiceAccount
	if err := json.Unmarshal(d.raw, &account); err != nil {
		return nil, err
	}
	var names []string
	for _, reference := range account.ImagePullSecrets {
		names = append(names, reference.Name)
	}
	return names, nil
}

// Secret implements [image.Secrets].
func (m manifest) Secret(_ context.Context, namespace, name string) (*corev1.Secret, error) {
	d, ok := m.find("Secret", namespace, name)
	if !ok {
		return nil, errNotInManifest
	}
	secret := new(corev1.Secret)
	if err := json.Unmarshal(d.raw, secret); err != nil {
		return nil, fmt.Errorf("read secret: %w", err)
	}
	if secret.Data == nil {
		secret.Data = map[string][]byte{}
	}
	for key, value := range secret.StringData {
		secret.Data[key] = []byte(value)
	}
	return secret, nil
}
