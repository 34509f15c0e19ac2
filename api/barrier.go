// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

const barrierPrefix = "barrier."

// maxBarrier bounds the number of pods of a barrier, because one pod reads the Leases of all
// others.
const maxBarrier = maxListed

// maxRun bounds the length of a run, which is the UID of a Job. A UID has 36 characters.
const maxRun = 36

// maxBarrierName bounds the length of a barrier's name. A Lease's name also has the prefix, the
// run, and the number of the Lease.
const maxBarrierName = maxName - len(barrierPrefix) - len(".") - maxRun - len(".31")

// Arrivals is the kind of a barrier. A pod arrives by a Lease, either in an init container or
// through the local API. The name of that Lease contains the UID of the pod's Job. No annotation
// contains that UID, so the claim itself names no slot.
var Arrivals = &Kind{
	Key: LocalAnnotation, Word: "barrier", Ask: LocalAnnotation, Scope: ScopeWorkload, Sized: true,
	parse: func(value string) ([]Claim, string) {
		b, problem := parseBarrier(value)
		return []Claim{{Name: b.Name, Size: b.Size}}, problem
	},
	slots:  func(Claim, Workload) []string { return nil },
	isSlot: isArrival,
}

// Leases returns the names of the Leases by which pods of the run arrive. The run is a part of
// each name, so two runs have no Lease in common. The record of an open barrier is in the first
// Lease.
func (b Barrier) Leases(run string) []string {
	var leases []string
	for i := range b.Size {
		leases = append(leases, barrierPrefix+b.Name+"."+run+"."+strconv.Itoa(i))
	}
	return leases
}

// RunOf returns the run in the name of a barrier's Lease. The result is empty if the text cannot be
// the name of a barrier's Lease.
func RunOf(lease string) string {
	rest, ok := strings.CutPrefix(lease, barrierPrefix)
	rest, number, numbered := cutLast(rest)
	name, run, named := cutLast(rest)
	n, err := strconv.Atoi(number)
	if !ok || !numbered || !named || err != nil || n < 0 || n >= maxBarrier || strconv.Itoa(n) != number ||
		len(run) > maxRun || !isLabel(run) || !isBarrier(name) {
		return ""
	}
	return run
}

// isArrival reports whether the text can be the name of a barrier's Lease.
func isArrival(lease string) bool { return RunOf(lease) != "" }

// cutLast cuts a text at its last dot.
func cutLast(text string) (before, after string, found bool) {
	i := strings.LastIndexByte(text, '.')
	if i < 0 {
		return text, "", false
	}
	return text[:i], text[i+1:], true
}

// Opened reads a value of [OpenedAnnotation], and returns how many pods had arrived when the
// barrier was opened. The result is zero for a barrier that is not open.
func Opened(value string) int {
	n, err := strconv.Atoi(value)
	if err != nil || n < 1 || n > maxBarrier || strconv.Itoa(n) != value {
		return 0
	}
	return n
}

// parseBarrier reads the text of [Barrier.String], or says what is wrong with the text.
func parseBarrier(text string) (Barrier, string) {
	name, number, sized := strings.Cut(text, "=")
	size, err := strconv.Atoi(number)
	switch {
	case strings.Contains(text, ","):
		return Barrier{}, "name one barrier: a pod can have no other"
	case !sized:
		return Barrier{}, "write a name and how many pods must wait, as in warm=5"
	case err != nil || size < 1 || size > maxBarrier || strconv.Itoa(size) != number:
		return Barrier{}, fmt.Sprintf("after the = write how many pods must wait: a number from 1 to %d", maxBarrier)
	case !isBarrier(name):
		return Barrier{}, fmt.Sprintf("a barrier's name is at most %d lower-case letters, digits, dashes and dots, with a letter or digit at both ends", maxBarrierName)
	}
	return Barrier{Name: name, Size: size}, ""
}

// isBarrier reports whether a barrier can have the name.
func isBarrier(name string) bool { return len(name) <= maxBarrierName && isSubdomain(name) }

func setBarrier(r *Request, value string) string {
	b, problem := parseBarrier(strings.TrimSpace(value))
	if problem == "" {
		r.Barrier = b
	}
	return problem
}

// BarrierArgs are the arguments of the role "barrier". The webhook writes all of them except
// Credentials, which only tests set.
type BarrierArgs struct {
	Barrier Barrier
	// Run is the UID of the pod's Job.
	Run           string
	LeaseDuration time.Duration
	// WaitAtMost bounds the wait at the barrier; zero for no bound.
	WaitAtMost time.Duration
	// Credentials is the directory of the service account token and the cluster's CA.
	Credentials string
}

var barrierArguments = arguments[BarrierArgs]{
	{
		name: "barrier", meaning: "the barrier, as NAME=SIZE",
		text: func(of BarrierArgs) string { return of.Barrier.String() },
		read: func(into *BarrierArgs, value string) error {
			b, problem := parseBarrier(value)
			if problem != "" {
				return fmt.Errorf("barrier: %s", problem)
			}
			into.Barrier = b
			return nil
		},
	},
	textArg("run", "the UID of the pod's Job", func(r *BarrierArgs) *string { return &r.Run }),
	durationArg("lease-duration", "the time after which a vanished pod no longer counts", func(r *BarrierArgs) *time.Duration { return &r.LeaseDuration }),
	durationArg("wait-at-most", "the bound of the wait", func(r *BarrierArgs) *time.Duration { return &r.WaitAtMost }).
		written(func(of BarrierArgs) bool { return of.WaitAtMost > 0 }),
	textArg("credentials", "directory of the service account token and the cluster's CA", func(r *BarrierArgs) *string { return &r.Credentials }).
		written(func(of BarrierArgs) bool { return of.Credentials != CredentialsPath }),
}

// Args returns the words of the container [BarrierContainer], as a pod's spec has them.
func (a BarrierArgs) Args() []string {
	return append([]string{BarrierRole}, barrierArguments.words(a)...)
}

// Leases returns the names of the Leases by which the pod may arrive. The result is empty if these
// names are not valid for a barrier.
func (a BarrierArgs) Leases() []string {
	leases := a.Barrier.Leases(a.Run)
	if len(leases) == 0 || a.Run == "" || RunOf(leases[0]) != a.Run {
		return nil
	}
	return leases
}

// ParseBarrierArgs reads the words that follow the role.
func ParseBarrierArgs(words []string) (BarrierArgs, error) {
	a := BarrierArgs{Credentials: CredentialsPath}
	rest, err := barrierArguments.parse(BarrierRole, &a, words)
	switch {
	case err != nil:
	case len(rest) > 0:
		err = fmt.Errorf("agent %s: unexpected arguments %q", BarrierRole, rest)
	case len(a.Leases()) == 0:
		err = fmt.Errorf("agent %s: need -barrier and -run", BarrierRole)
	default:
		_, err = NewBudget(a.LeaseDuration)
	}
	return a, err
}

// RecallBarrier reads the arguments back from the words of [BarrierArgs.Args]. For any other
// words, the result has no barrier.
func RecallBarrier(words []string) BarrierArgs {
	a := BarrierArgs{Credentials: CredentialsPath}
	if len(words) == 0 || words[0] != BarrierRole {
		return a
	}
	barrierArguments.recall(&a, words[1:])
	return a
}
