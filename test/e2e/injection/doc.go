// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package injection protects admission: which pods the webhook gates, which pods
// the webhook and the policies refuse, and the words of each refusal.
//
// No pod that claims a slot gets in without its gate: not as a copy, not forged,
// not through a later webhook, not without the webhook.
package injection
