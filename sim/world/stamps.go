// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package world

import (
	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/api"
)

// StampOf returns the stamp of a Lease.
func StampOf(l *kube.Lease) api.Stamp { return api.ParseStamp(l.Annotations[api.StampAnnotation]) }

// restamped reports whether the update of a Lease matters to enroll. Such an update
// changes the stamp, or the holder of a Lease whose stamp is closed.
func restamped(was, is *kube.Lease) bool {
	before, after := StampOf(was), StampOf(is)
	return before != after || after.Closed && was.Holder != is.Holder
}
