// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"fmt"
	"strconv"
	"strings"
)

// ShardsAnnotation is the key of the annotation for shards.
const ShardsAnnotation = Prefix + "shards"

const shardPrefix = "shards."

// maxShards bounds the shards of a workload, because a standby watches all of them.
const maxShards = maxAnyOne

// Shards claims any one of several slots, for which the pods of a workload compete. The
// number of a slot selects the part of the work that its holder does.
var Shards = &Kind{
	Key: ShardsAnnotation, Ask: ShardsAnnotation, Scope: ScopeWorkload, Sole: true, AnyOne: true,
	parse:  parseShards,
	slots:  shardSlots,
	isSlot: isShardSlot,
}

// maxShardBase bounds the text that [ShardGroup] returns. The bound leaves room for the last dot
// and the number of a shard.
const maxShardBase = maxName - len(".31")

// ShardGroup returns the part that the names of the Leases of a workload's shards have in common.
// The part follows the rules of [SingletonLease], and leaves room for the number of the shard.
func ShardGroup(of Workload) string {
	return shorten(shardPrefix+of.kindPart()+"."+of.Name, maxShardBase)
}

// ShardLease returns the name of the Lease of one shard. The name does not contain the
// number of shards. So even two pods that expect different numbers of shards never hold one
// shard together.
func ShardLease(group string, shard int) string { return group + "." + strconv.Itoa(shard) }

// ReadShard returns the group and the number of the shard whose Lease has the name. The
// last result is false for any other Lease. Only one spelling of a number is valid, because
// a shard with two Leases could have two holders.
func ReadShard(lease string) (group string, shard int, ok bool) {
	dot := strings.LastIndexByte(lease, '.')
	if dot < 0 || !strings.HasPrefix(lease, shardPrefix) {
		return "", 0, false
	}
	n, err := strconv.Atoi(lease[dot+1:])
	ok = err == nil && n >= 0 && n < maxShards && strconv.Itoa(n) == lease[dot+1:] && isShortenedTo(lease[:dot], maxShardBase, isShardGroup)
	return lease[:dot], n, ok
}

// isShardSlot reports whether the text can be the name of a shard's Lease. In a shortened name,
// isShardSlot can judge only the part before the hash.
func isShardSlot(lease string) bool {
	_, _, ok := ReadShard(lease)
	return ok
}

// isShardGroup reports whether [ShardGroup] can return the name without shortening it.
func isShardGroup(group string) bool {
	rest, ok := strings.CutPrefix(group, shardPrefix)
	return ok && isWorkload(rest)
}

// isRunGroup reports whether the text is the [ShardGroup] of a workload whose pods can belong to
// a Job. Such a workload is a Job, a CronJob, or an object of an API group outside of
// Kubernetes.
func isRunGroup(text string) bool {
	rest, _ := strings.CutPrefix(text, shardPrefix)
	kind, _, _ := strings.Cut(rest, ".")
	of, _ := readKind(kind)
	return isShardGroup(text) && (of.Group != "" || of.Kind == "job" || of.Kind == "cronjob")
}

// ShardsOf returns the group of the shards that the slots name, and how many shards there are.
// The slots must be all shards of one group, from number 0 on. For any other slots, the results
// are zero.
func ShardsOf(slots []string) (group string, count int) {
	seen := map[int]bool{}
	for i, slot := range slots {
		of, shard, ok := ReadShard(slot)
		if !ok || shard >= len(slots) || seen[shard] || i > 0 && of != group {
			return "", 0
		}
		group, seen[shard] = of, true
	}
	return group, len(slots)
}

func parseShards(value string) ([]Claim, string) {
	count, err := strconv.Atoi(value)
	if err != nil || count < 1 || count > maxShards || strconv.Itoa(count) != value {
		return nil, fmt.Sprintf("write how many shards the work has: a number from 1 to %d", maxShards)
	}
	return []Claim{{Size: count}}, ""
}

func shardSlots(c Claim, of Workload) []string {
	var slots []string
	for i := range c.Size {
		slots = append(slots, ShardLease(ShardGroup(of), i))
	}
	return slots
}

// Stamp names the number of shards, and the run, for which the Lease of a shard may be
// acquired. An agent acquires, and keeps, only a Lease whose stamp admits its own pod. The
// zero value stands for a Lease without a stamp.
type Stamp struct {
	// Epoch counts the changes of Count and of Run.
	Epoch int64
	// Count is the number of shards.
	Count int
	// Run is the UID of the Job whose pods do the work; empty if no Job does the work.
	Run string
	// Closed reports that no pod may acquire the Lease, and that its holder has to release.
	Closed bool
}

// lastEpoch is the largest valid epoch. Enroll adds one at each change, and so never reaches this
// bound.
const lastEpoch = 1 << 53

// stampClosed is the last word of a closed stamp.
const stampClosed = "closed"

// Admits reports whether a pod of the given run may acquire and keep the Lease, if the pod expects
// the given number of shards. A closed stamp admits no pod.
func (s Stamp) Admits(count int, run string) bool {
	return count > 0 && s.Count == count && s.Run == run && !s.Closed
}

// String returns the text of the annotation: EPOCH/COUNT or EPOCH/COUNT/RUN. The text of a closed
// stamp ends with a space and the word "closed". The text of the zero value is empty.
func (s Stamp) String() string {
	if s == (Stamp{}) {
		return ""
	}
	text := strconv.FormatInt(s.Epoch, 10) + "/" + strconv.Itoa(s.Count)
	if s.Run != "" {
		text += "/" + s.Run
	}
	if s.Closed {
		text += " " + stampClosed
	}
	return text
}

// ParseStamp reads the text of [Stamp.String]. For any other text, the result is the zero value,
// which admits no pod.
func ParseStamp(text string) Stamp {
	numbers, word, closed := strings.Cut(text, " ")
	first, rest, _ := strings.Cut(numbers, "/")
	second, run, runs := strings.Cut(rest, "/")
	epoch, err := strconv.ParseInt(first, 10, 64)
	count, wrong := strconv.Atoi(second)
	s := Stamp{Epoch: epoch, Count: count, Run: run, Closed: closed}
	if err != nil || wrong != nil || closed && word != stampClosed || epoch < 1 || epoch > lastEpoch || count < 1 || count > maxShards ||
		runs && !IsRun(run) || s.String() != text {
		return Stamp{}
	}
	return s
}

// IsRun reports whether the text can be the UID of a Job (RFC 9562). The check is necessary,
// because a person may write any text into an owner reference. The webhook copies the UID into
// an argument, in which the kubelet would expand $(NAME).
func IsRun(text string) bool {
	return text != "" && len(text) <= maxRun && strings.Trim(text, "0123456789abcdef-") == ""
}
