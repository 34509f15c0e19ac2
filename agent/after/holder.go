// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package after

import (
	"fmt"
	"strings"

	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/api"
)

// isIdentity reports whether an agent may have written the holder. Enroll writes "unknown",
// and a release writes nothing.
func isIdentity(holder string) bool { return strings.Contains(holder, "_") }

// holder returns the name of the holder's pod, for people. Any program may have written that
// text.
func holder(l *kube.Lease) string { return fmt.Sprintf("%.253q", api.PodOf(l.Holder)) }
