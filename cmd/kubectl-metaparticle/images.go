// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"

	"github.com/metaparticle-io/metaparticle/mutate/image"
	"github.com/metaparticle-io/metaparticle/mutate/image/registry"
)

var (
	errOffline       = errors.New("not asked, because of --offline (leave it out to ask the registry)")
	errNotInManifest = errors.New("not in the manifest")
)

// offline implements [image.Images] without reading any image.
type offline struct{}

// For implements [image.Images].
func (o offline) For(image.PullRights) image.Reader { return o }

// Command implements [image.Reader].
func (offline) Command(context.Context, string) (image.Command, error) {
	return image.Command{}, errOffline
}

// manifest implements [registry.Secrets] with the Secrets and ServiceAccounts of the
// manifest.
type manifest []document

var _ registry.Secrets = manifest(nil)

func (m manifest) find(kind, namespace, name string) (document, bool) {
	for _, d := range m {
		if d.APIVersion == "v1" && d.Kind == kind && d.Name == name && (d.Namespace == "" || d.Namespace == namespace) {
			return d, true
		}
	}
	return document{}, false
}

// PullSecrets implements [registry.Secrets].
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

// Secret implements [registry.Secrets].
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
