// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
)

// nextPrefix begins the names of all next Leases.
const nextPrefix = "next."

// NextLease returns the name of the next Lease of a slot. A pod of a newer revision writes
// its identity into the next Lease to ask the holder to yield. No pod holds a slot by a
// next Lease, and no claim can name a next Lease.
func NextLease(slot string) string { return shortName(nextPrefix + slot) }

// IsNextLease reports whether a Lease has the name of a next Lease.
func IsNextLease(lease string) bool { return strings.HasPrefix(lease, nextPrefix) }

// hashMark stands before the hash that ends a shortened name. The letter x keeps the
// name valid if the cut has left a dash or a dot at the end.
const hashMark = "x-"

// hashBytes is the number of bytes that shortName takes from the SHA-256 hash of a name. By chance,
// two names practically never have the same 128 bits. Even if a person finds two such names, the
// only effect is that two workloads share a slot.
const hashBytes = 16

// endLength is the length of the end of a shortened name: hashMark, and two hexadecimal digits for
// each of the hashBytes bytes.
const endLength = len(hashMark) + 2*hashBytes

// shortName keeps a name within the limit for the names of objects, by the hash of
// the whole name. A shortened name has exactly as many bytes as the limit. shortName leaves
// a name unchanged only if the name is shorter than the limit. So an unchanged name never
// equals a shortened one.
func shortName(name string) string { return shorten(name, maxName) }

// shorten keeps a name within the limit as [shortName] does.
func shorten(name string, limit int) string {
	if len(name) < limit {
		return name
	}
	sum := sha256.Sum256([]byte(name))
	return name[:limit-endLength] + hashMark + hex.EncodeToString(sum[:hashBytes])
}
