// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"fmt"
	"strings"
	"time"
)

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
