// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import "time"

// The bounds of a look-up and of all look-ups of a process. docs/security.md
// derives from them what look-ups can cost; a test holds the page to them.
const (
	// defaultBudget bounds a look-up. The API server waits 10 s for a webhook
	// and pods wait for it; a registry that needs longer than this is not well.
	defaultBudget = 2500 * time.Millisecond
	// tagMemory is how long a tag's last digest counts while its registry is
	// away. A registry's upgrade takes less; a person who moved the tag
	// remembers that for longer.
	tagMemory = time.Hour

	// maxName bounds an image's name. A host has 253 bytes at most, a
	// repository 255, a tag 128 and a digest 135.
	maxName = 1 << 10
	// maxCommand bounds an image's command, over all of its platforms. The
	// kernel takes 128 KiB in one word of a command, and JSON, in which the
	// shim gets the platforms' commands, may double what it quotes.
	maxCommand = 64 << 10
	// wordCost is what a word costs beside its bytes: Go's string header.
	wordCost = 16

	// maxAtOnce bounds the look-ups of a process: a hundred a second with a
	// registry that needs 300 ms.
	maxAtOnce = 32
	// maxOfNamespace bounds those in one namespace's name: a quarter, so that
	// it takes four hostile namespaces to make another one wait.
	maxOfNamespace = maxAtOnce / 4
	// maxWaiting bounds the look-ups of a namespace that wait for a turn. So
	// many end within the budget where each takes 40 ms, which a pull secret and
	// the digest of a tag take.
	maxWaiting = 512
	// maxRequests bounds the requests of one look-up at once. Popular images
	// have about eight platforms, and each is a manifest and a configuration.
	maxRequests = 8
	// maxRedirects is what container runtimes follow, too.
	maxRedirects = 10

	// maxAnswer bounds one answer of a registry. Manifests have kilobytes;
	// configurations some hundred, where build tools write into labels.
	maxAnswer = 2 << 20
	// maxRead bounds all answers of one look-up: 32 platforms with 250 KB each.
	maxRead = 8 << 20
	// smallAnswer is what every request may hold in memory.
	smallAnswer = 64 << 10
	// maxLarge bounds the answers of a process that are larger, at once.
	maxLarge = 16
	// maxHeader bounds the header of an answer, which has a token at most.
	maxHeader = 64 << 10
	// maxPlatforms bounds what one reference makes us fetch.
	maxPlatforms = 32
	// maxEntries bounds an index: each platform may have attestations beside
	// it, and each becomes a hundred bytes from as few as three.
	maxEntries = 256

	// maxSecrets bounds the pull secrets that are read for one pod, one after
	// the other within the budget.
	maxSecrets = 32
	// maxSecretBytes bounds one pull secret: a token has 4 KB, and the pull
	// secret of a whole cluster about ten of them.
	maxSecretBytes = 128 << 10
	// maxCredentials bounds the credentials of one pod.
	maxCredentials = 64

	// What each cache may hold, in bytes: some ten thousand references and
	// digests, and of commands, which have half a kilobyte, as many.
	referenceBytes = 8 << 20
	digestBytes    = 8 << 20
	commandBytes   = 16 << 20

	// idleConnections are kept for the next look-up, for idleTimeout: the pods
	// of a rollout come within seconds.
	idleConnections = 64
	idleTimeout     = 30 * time.Second
)
