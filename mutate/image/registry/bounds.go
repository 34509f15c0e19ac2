// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import "time"

// These constants bound one look-up, and all look-ups of a process. The page docs/evidence/security-bounds.md
// derives the cost of look-ups from these constants, and a test compares the page with them.
const (
	// defaultBudget bounds a look-up. The creation of a pod waits for the look-up, and the
	// API server waits 10 s for the webhook. A healthy registry answers sooner.
	defaultBudget = 2500 * time.Millisecond
	// tagMemory is the time for which look-ups use a tag's last digest while its registry
	// does not answer. An upgrade of a registry takes less time.
	tagMemory = time.Hour

	// maxName bounds an image's name. A host has 253 bytes at most, a
	// repository 255, a tag 128 and a digest 135.
	maxName = 1 << 10
	// maxCommand bounds the bytes of an image's commands, for all of its platforms together. The
	// shim gets these commands as JSON in one argument, and quoting may double the bytes.
	// The kernel accepts an argument of at most 128 KiB.
	maxCommand = 64 << 10
	// wordCost is the size of Go's string header, which each word of a command has.
	wordCost = 16

	// maxAtOnce bounds the concurrent look-ups of a process. If each look-up takes 300 ms, a
	// hundred look-ups end in about a second.
	maxAtOnce = 32
	// maxOfNamespace bounds the concurrent look-ups of one namespace to a quarter of all. So a
	// further namespace waits only if four hostile namespaces together use up all look-ups.
	maxOfNamespace = maxAtOnce / 4
	// maxWaiting bounds the waiting look-ups of a namespace. Assume that each look-up takes 40 ms
	// for a pull secret and a tag's digest, and that eight look-ups run at the same time. Then 500
	// look-ups end within defaultBudget.
	maxWaiting = 512
	// maxRequests bounds the concurrent requests of one look-up. Popular images have about
	// eight platforms. Each platform needs two requests, one after the other: first for a
	// manifest, then for a configuration.
	maxRequests = 8
	// maxRedirects bounds the redirects of one request, as container runtimes do.
	maxRedirects = 10

	// maxAnswer bounds one answer of a registry. A manifest has a few kilobytes. A
	// configuration may have some hundred kilobytes, because build tools write labels.
	maxAnswer = 2 << 20
	// maxRead bounds all answers of one look-up: 32 platforms with 250 KB each.
	maxRead = 8 << 20
	// smallAnswer is the size up to which every request may keep an answer in memory.
	smallAnswer = 64 << 10
	// maxLarge bounds the number of answers above smallAnswer that a process keeps in memory at
	// once.
	maxLarge = 12
	// maxHeader bounds the header of an answer. The longest field of that header is usually the
	// signed URL of a redirect.
	maxHeader = 64 << 10
	// maxPlatforms bounds how many platforms of one image a look-up reads.
	maxPlatforms = 32
	// maxEntries bounds the entries of an image index, because three bytes of text may become
	// an entry of a hundred bytes in memory. The bound is above maxPlatforms, because an index
	// may have attestations beside each platform.
	maxEntries = 256

	// maxDigest bounds a digest: the longest algorithm has 128 hexadecimal digits. An error about a
	// malformed digest quotes the digest.
	maxDigest = 256

	// maxSecrets bounds the pull secrets that are read for one pod, one after the other within
	// defaultBudget.
	maxSecrets = 32
	// maxSecretBytes bounds one pull secret. The credential for a registry has about 4 KB, and
	// the pull secret of a whole cluster has about ten such credentials.
	maxSecretBytes = 128 << 10
	// maxCredentials and maxCredentialBytes bound the credentials of one pod. The pod keeps them until
	// the webhook's answer, and hundreds of pods may wait for their images at the same time.
	maxCredentials     = 64
	maxCredentialBytes = 128 << 10

	// Each cache has a bound in bytes, and room for some ten thousand entries. An entry is a
	// reference, a digest, or a command of half a kilobyte.
	referenceBytes = 8 << 20
	digestBytes    = 8 << 20
	commandBytes   = 16 << 20

	// idleConnections bounds the idle connections, each of which stays open for idleTimeout. The
	// pods of a rollout arrive within seconds and need the same registry. So the look-ups for the
	// later pods use the idle connections again.
	idleConnections = 64
	idleTimeout     = 30 * time.Second
)
