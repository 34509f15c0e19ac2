// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// loadable are images of one platform, by the names that they get on a node that loads them. The
// archive has the format of "docker save", because everything that loads images reads this format:
// kind, k3d, minikube, ctr, docker and podman.
type loadable map[name.Reference]v1.Image

// prefix begins the names of loaded images. No registry listens there, so a node that lacks an image
// fails, and pulls nothing of a stranger.
const prefix = "localhost/metaparticle/"

// add adds the only image of an index, and returns the image's name. A loaded image has no digest
// that pods can name, so the tag contains the digest: other content has another name, and a kubelet
// never runs an older build.
func (l loadable) add(of, version string, index v1.ImageIndex) (string, error) {
	manifest, err := index.IndexManifest()
	if err != nil {
		return "", err
	}
	if len(manifest.Manifests) != 1 {
		return "", errors.New("not one platform")
	}
	digest := manifest.Manifests[0].Digest
	image, err := index.Image(digest)
	if err != nil {
		return "", err
	}
	tag, err := name.NewTag(fmt.Sprintf("%s%s:%s-%.12s", prefix, of, version, digest.Hex))
	if err != nil {
		return "", err
	}
	l[tag] = image
	return tag.String(), nil
}

func (l loadable) write(file string) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	return tarball.MultiRefWriteToFile(file, l)
}
