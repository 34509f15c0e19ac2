// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package api

import "time"

// ServesInHold reports whether the value of [ServingAnnotation] belongs to the hold that began at
// the time "acquired". A client that is no agent can acquire the Lease, and leave the annotation
// unchanged. So a time before the acquisition belongs to an earlier hold. The value may lack
// fractions of a second, so ServesInHold ignores the fraction in the time of the acquisition.
func ServesInHold(serving string, acquired time.Time) bool {
	since, err := time.Parse(time.RFC3339, serving)
	return err == nil && !acquired.IsZero() && !since.Before(acquired.Truncate(time.Second))
}
