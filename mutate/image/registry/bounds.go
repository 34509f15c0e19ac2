// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import "time"

// The bounds of a look-up and of all look-ups of a process. docs/security.md derives the
// cost of look-ups from these constants; a test compares the page with them.
const (
	// defaultBudget bounds a look-up. The API server waits 10 s for the webhook, and pods
	// wait for the API server. A healthy registry answers sooner.
	defaultBudget = 2500 * time.Millisecond
	// tagMemory bounds the time in which a tag's last digest counts while its registry does
	// not answer. The upgrade of a registry takes less.
	tagMemory = time.Hour

	// maxName bounds an image's name. A host has 253 bytes at most, a
	// repository 255, a tag 128 and a digest 135.
	maxName = 1 << 10
	// maxCommand bounds an image's command, over all of its platforms. The kernel takes 128
	// KiB in one word of a command. The shim gets the platforms' commands as JSON, which
	// may double the bytes by quoting.
	maxCommand = 64 << 10
	// wordCost is the size of Go's string header, which each word of a command has.
	wordCost = 16

	// maxAtOnce bounds the concurrent look-ups of a process. With a registry that needs
	// 300 ms, a hundred end in a second.
	maxAtOnce = 32
	// maxOfNamespace bounds the look-ups in the name of one namespace. With a quarter, only
	// four hostile namespaces together can make another namespace wait.
	maxOfNamespace = maxAtOnce / 4
	// maxWaiting bounds the look-ups of a namespace that wait to run. About as many look-ups
	// end within the budget, if each takes 40 ms for a pull secret and a tag's digest.
	maxWaiting = 512
	// maxRequests bounds the concurrent requests of one look-up. Popular images have about
	// eight platforms. Each platform needs two requests: for a manifest and a configuration.
	maxRequests = 8
	// maxRedirects bounds the redirects of one request, as container runtimes do.
	maxRedirects = 10

	// maxAnswer bounds one answer of a registry. Manifests have a few kilobytes.
	// Configurations have up to some hundred, because build tools write labels.
	maxAnswer = 2 << 20
	// maxRead bounds all answers of one look-up: 32 platforms with 250 KB each.
	maxRead = 8 << 20
	// smallAnswer is the size up to which every request may keep an answer in memory.
	smallAnswer = 64 << 10
	// maxLarge bounds the larger answers that a process keeps in memory at once.
	maxLarge = 16
	// maxHeader bounds the header of an answer, whose largest part is a registry's token.
	maxHeader = 64 << 10
	// maxPlatforms bounds the platforms that a look-up reads of one reference.
	maxPlatforms = 32
	// maxEntries bounds an index. Each platform may have attestations beside it. Three bytes
	// of text may become an entry of a hundred bytes.
	maxEntries = 256

	// maxSecrets bounds the pull secrets that are read for one pod, one after
	// the other within the budget.
	maxSecrets = 32
	// maxSecretBytes bounds one pull secret: a registry's token has 4 KB, and the pull
	// secret of a whole cluster has about ten of them.
	maxSecretBytes = 128 << 10
	// maxCredentials bounds the credentials of one pod.
	maxCredentials = 64

	// Each cache has a bound in bytes. The bounds fit some ten thousand references,
	// digests, and commands of half a kilobyte.
	referenceBytes = 8 << 20
	digestBytes    = 8 << 20
	commandBytes   = 16 << 20

	// idleConnections stay open for the next look-up, for idleTimeout. The pods of a
	// rollout arrive within seconds.
	idleConnections = 64
	idleTimeout     = 30 * time.Second
)
