// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	_ "golang.org/x/crypto/x509roots/fallback" // the CAs of public registries, because the image has no certificates
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/metaparticle-io/metaparticle/enroll"
	"github.com/metaparticle-io/metaparticle/mutate/image"
	"github.com/metaparticle-io/metaparticle/mutate/image/registry"
)

var (
	errMayNotRead = registry.MayNotRead("the webhook may not read the namespace's pull secrets; the namespace's owner allows that by binding" +
		" ClusterRole " + enroll.PullSecretsRole + " to the webhook's service account")
	// errNone is the same for every problem with a pull secret or a service account. The answer
	// goes to the author of a pod, or to another caller of the webhook. From different answers such
	// a person could learn which Secrets exist, even without a right to read Secrets.
	errNone = errors.New("no pull secret that can be read")
)

// maxLogged is the largest number of bytes that the log shows of the cause of a failure. The cause
// may contain a text of a registry.
const maxLogged = 1 << 10

func newImages(live objects, s settings, log *slog.Logger) image.Images {
	options := s.registries
	options.Secrets = secrets{live, log}
	options.Failed = func(namespace, image string, cause error) {
		log.Info("could not read an image", "namespace", namespace, "image", image, "error", fmt.Sprintf("%.*s", maxLogged, cause))
	}
	return registry.New(options)
}

// secrets implements [registry.Secrets] with live reads, each of one object by its name.
// Only the log contains the cause of a failed read.
type secrets struct {
	live objects
	log  *slog.Logger
}

// PullSecrets implements [registry.Secrets].
func (s secrets) PullSecrets(ctx context.Context, namespace, serviceAccount string) ([]string, error) {
	var account struct {
		ImagePullSecrets [maxPullSecrets]*entry `json:"imagePullSecrets"`
	}
	if err := s.live.read(ctx, corev1.SchemeGroupVersion.WithKind("ServiceAccount"), namespace, serviceAccount, &account); err != nil {
		s.log.Debug("read service account", "namespace", namespace, "name", serviceAccount, "error", err)
		return nil, errNone
	}
	return names(account.ImagePullSecrets[:]), nil
}

// Secret implements [registry.Secrets].
func (s secrets) Secret(ctx context.Context, namespace, name string) (*corev1.Secret, error) {
	var secret struct {
		Type corev1.SecretType `json:"type"`
		// Data has only the keys of the two types of pull secrets.
		Data struct {
			Config []byte `json:".dockerconfigjson"`
			Older  []byte `json:".dockercfg"`
		} `json:"data"`
	}
	err := s.live.read(ctx, corev1.SchemeGroupVersion.WithKind("Secret"), namespace, name, &secret)
	switch {
	case apierrors.IsForbidden(err):
		// The right to read Secrets depends on the namespace, and not on the Secret. So this answer
		// does not reveal whether the Secret exists.
		return nil, errMayNotRead
	case err == nil && secret.Type != corev1.SecretTypeDockerConfigJson && secret.Type != corev1.SecretTypeDockercfg:
		err = fmt.Errorf("type %q is none of a pull secret", secret.Type)
	case err == nil:
		return &corev1.Secret{Type: secret.Type, Data: map[string][]byte{
			corev1.DockerConfigJsonKey: secret.Data.Config, corev1.DockerConfigKey: secret.Data.Older,
		}}, nil
	}
	s.log.Debug("read pull secret", "namespace", namespace, "name", name, "error", err)
	return nil, errNone
}
