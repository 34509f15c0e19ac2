// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package space

import (
	"fmt"
	"strings"
	"sync"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"

	"github.com/metaparticle-io/metaparticle/api"
)

// history has the versions of the namespace's Leases that the test's watch has shown. Some
// tests go on for minutes after a failure. At the end of such a test the Leases no longer show
// what happened.
type history struct {
	mu       sync.Mutex
	versions []version
}

// version is one version of a Lease. The informer never changes the object.
type version struct {
	seen  time.Time
	lease *coordinationv1.Lease
}

// note adds a Lease that the watch shows, with the present time. Other objects are ignored.
func (h *history) note(object any) {
	lease, ok := object.(*coordinationv1.Lease)
	if !ok {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.versions = append(h.versions, version{time.Now(), lease})
}

// History returns the versions of a slot's Lease since an instant, one in each line. A line begins
// with the time at which the watch showed the version. If the time after "written at" is much
// earlier than the time at the beginning of its line, the API server was slow.
func (s *Space) History(slot string, since time.Time) string {
	s.history.mu.Lock()
	defer s.history.mu.Unlock()
	var out strings.Builder
	for _, v := range s.history.versions {
		if v.lease.Name != slot || v.seen.Before(since) {
			continue
		}
		fmt.Fprintf(&out, "%8.3f s: version %s of %s, holder %q, hold %q", v.seen.Sub(since).Seconds(),
			v.lease.ResourceVersion, slot, IdentityOf(v.lease), v.lease.Annotations[api.HoldAnnotation])
		if renewed := v.lease.Spec.RenewTime; renewed != nil {
			fmt.Fprintf(&out, ", written at %.3f s", renewed.Sub(since).Seconds())
		}
		if successor := v.lease.Annotations[api.SuccessorAnnotation]; successor != "" {
			fmt.Fprintf(&out, ", successor %q", successor)
		}
		out.WriteByte('\n')
	}
	fmt.Fprintf(&out, "%8.3f s: now\n", time.Since(since).Seconds())
	return out.String()
}
