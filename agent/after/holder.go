// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package after

import (
	"fmt"

	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/api"
)

// holder returns the name of the holder's pod, for people. Any client may have written that name,
// so holder quotes the name and bounds its length.
func holder(l *kube.Lease) string { return fmt.Sprintf("%.253q", api.PodOf(l.Holder)) }
