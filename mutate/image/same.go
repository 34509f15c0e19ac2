// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package image

import (
	"cmp"
	"strings"
)

// Same reports whether "there" names the image "ours" as another webhook may write it: in a mirror, or
// by the digest of its tag. If ours has a digest, the digest decides. Otherwise both have the same last
// part of their name, and the same tag. A digest alone names no version, so it counts only in the
// repository of ours itself.
func Same(there, ours string) bool {
	if there == ours {
		return true
	}
	repository, tag, digest := split(there)
	ourRepository, ourTag, ourDigest := split(ours)
	switch {
	case ourDigest != "":
		return digest == ourDigest
	case tag == "" && digest != "":
		return repository == ourRepository
	}
	return last(repository) == last(ourRepository) && cmp.Or(tag, "latest") == cmp.Or(ourTag, "latest")
}

// split divides the name of an image. A missing part is empty.
func split(image string) (repository, tag, digest string) {
	repository, digest, _ = strings.Cut(image, "@")
	if i := strings.LastIndexByte(repository, ':'); i > strings.LastIndexByte(repository, '/') {
		repository, tag = repository[:i], repository[i+1:]
	}
	return repository, tag, digest
}

func last(repository string) string { return repository[strings.LastIndexByte(repository, '/')+1:] }
