// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package injection protects admission: which pods the webhook gates, which pods the
// webhook and the policies refuse, and the text of each refusal.
//
// No pod that claims a slot is admitted without its gate. This rule also applies to
// copies, forged pods, later webhooks and a missing webhook.
package injection
