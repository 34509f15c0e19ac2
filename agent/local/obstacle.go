// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package local

import (
	"slices"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/claim"
	"github.com/metaparticle-io/metaparticle/agent/instant"
	"github.com/metaparticle-io/metaparticle/api"
)

// remembersHold reports whether some Lease still names an ended hold of this pod under which a program
// may be working. Until that Lease expires, the pod acquires no other slot of the claim.
func remembersHold(views []claim.View, now time.Duration, proven func(hold string) bool) bool {
	return slices.ContainsFunc(views, func(v claim.View) bool {
		return v.Mine && v.FreeAt != instant.Never && now < v.ExpiresAt && !proven(v.Record.Hold)
	})
}

// allTaken returns the problem of a bid that needs any one of the slots; nil if one of them may
// be free.
func allTaken(views []claim.View, available func(claim.View) bool) *problem {
	holder := ""
	for _, v := range views {
		free := available(v)
		switch {
		case v.FreeAt == instant.Never || free && v.Record.Paused == "":
			return nil
		case !free && holder == "":
			holder = api.PodOf(v.Record.Holder)
		}
	}
	if holder == "" {
		return pausedProblem
	}
	return busyProblem(holder)
}

// anyTaken returns the problem of a bid that needs all of the slots; nil if all of them may be
// free.
func anyTaken(views []claim.View, available func(claim.View) bool) *problem {
	for _, v := range views {
		switch {
		case v.FreeAt == instant.Never:
		case !available(v):
			return busyProblem(api.PodOf(v.Record.Holder))
		case v.Record.Paused != "" && len(views) > 1:
			return pausedProblem
		}
	}
	return nil
}
