// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"fmt"
	"time"
)

// These constants are the default lease duration and its bounds.
const (
	DefaultLeaseDuration = 30 * time.Second
	// MinLeaseDuration is the shortest duration whose budget survives an outage of two
	// seconds, and still leaves the child two seconds to stop.
	MinLeaseDuration = 10 * time.Second
	// MaxLeaseDuration bounds how long a vanished holder can block the standbys.
	MaxLeaseDuration = time.Hour
)

// Budget divides the duration in a Lease, counted from the instant at which the last
// successful renewal was sent:
//
//	|—— RenewDeadline ——|—— Drain ——|—— Kill ——|—— Margin ——|
//	sent                drain       SIGKILL     deadline     others may acquire
//
// The sum is exactly the duration. A child is dead at the deadline. A standby counts the
// whole duration from the moment at which the standby saw that renewal, which is after the
// sending. So a standby starts its child a Margin after the deadline at the earliest. The Margin
// covers two clocks that run at different rates, and a watchdog that is scheduled late.
type Budget struct {
	// Duration is the duration that the holder writes into the Lease: the lease duration, or a longer one
	// with [Budget.Failsafe]. A holder with supporters writes Supported instead.
	Duration time.Duration
	// Renew is the period of a holder's renewals: a sixth of the lease duration.
	Renew time.Duration
	// RequestTimeout bounds one request: half a renewal period.
	RequestTimeout time.Duration
	// Retry bounds the wait before a failed request is tried again.
	Retry time.Duration
	// RenewDeadline is the time from the last successful renewal to the beginning of the
	// drain.
	RenewDeadline time.Duration
	// Drain is the time from the stop signal to the SIGKILL.
	Drain time.Duration
	// Kill is the time that killing and reaping may take after the drain.
	Kill time.Duration
	// Margin separates the deadline from the end of the lease.
	Margin time.Duration
	// Supported is the duration in the Lease of a holder that has supporters ([Supporters]); zero for a pod that
	// never has any.
	Supported time.Duration
}

// kill is the time that a SIGKILL and the reaping of all descendants may take. Even on a
// node under load, thousands of processes die within that time.
const kill = time.Second

// minMargin is the smallest Margin. On a node under load, the shim's watchdog can act late,
// however short the lease is.
const minMargin = 2 * time.Second

// marginPart is the divisor that gives the Margin: one sixth of the duration covers the
// different rates of two clocks. The daemon chronyd slews a clock by at most a twelfth, up or
// down (maxslewrate 83333 ppm). A shim that counts slowly and a standby that counts fast then
// drift apart by 1 - (11/12)/(13/12) = 2/13 of the duration. A sixth is more than 2/13. The
// rest, a seventy-eighth of the duration, is for late scheduling.
const marginPart = 6

// NewBudget derives every duration from the lease duration d. A d outside of
// [MinLeaseDuration, MaxLeaseDuration] is an error. So is a d with a fraction of a
// second, because a Lease has whole seconds only.
func NewBudget(d time.Duration) (Budget, error) {
	switch {
	case d < MinLeaseDuration || d > MaxLeaseDuration:
		return Budget{}, fmt.Errorf("lease duration %v is not between %v and %v", d, MinLeaseDuration, MaxLeaseDuration)
	case d%time.Second != 0:
		return Budget{}, fmt.Errorf("lease duration %v is not a whole number of seconds", d)
	}
	b := Budget{
		Duration:       d,
		Renew:          RenewPeriod(d),
		RequestTimeout: d / 12,
		Retry:          time.Second,
		Drain:          d/3 - kill,
		Kill:           kill,
		Margin:         max(minMargin, d/marginPart),
	}
	b.RenewDeadline = d - b.Margin - b.Kill - b.Drain
	return b, nil
}

// failsafeSlack is the time for the first requests after an outage, of which some may still fail.
const failsafeSlack = 10 * time.Second

// Failsafe returns the budget of a holder that rides out an outage of the API server of the given length.
// Only the duration in the Lease becomes longer, and with it the time until the drain and the Margin.
// Requests, renewals and the drain keep their times. An outage that the lease duration covers anyway changes
// nothing. If the Lease would get a duration above [MaxLeaseDuration], the result is an error.
func (b Budget) Failsafe(outage time.Duration) (Budget, error) {
	if outage <= b.Outage() {
		return b, nil
	}
	deadline := outage + b.Renew + failsafeSlack + b.Drain + b.Kill
	d := (deadline*marginPart/(marginPart-1) + time.Second - 1).Truncate(time.Second)
	if d > MaxLeaseDuration {
		return Budget{}, fmt.Errorf("to survive an outage of %v, the Lease would need a duration of %v, and the longest is %v", outage, d, MaxLeaseDuration)
	}
	b.Duration, b.Margin = d, d/marginPart
	b.RenewDeadline = d - b.Margin - b.Kill - b.Drain
	return b, nil
}

// WithSupporters returns the budget of a holder that rides out such an outage by the promises of its supporters.
// Without them, the holder keeps the times of its lease duration. The errors are those of [Budget.Failsafe].
func (b Budget) WithSupporters(outage time.Duration) (Budget, error) {
	long, err := b.Failsafe(outage)
	if err == nil && long.Duration > b.Duration {
		b.Supported = long.Duration
	}
	return b, err
}

// Longest returns the longest duration that a holder with this budget writes into its Lease.
func (b Budget) Longest() time.Duration { return max(b.Duration, b.Supported) }

// SupportedDeadline returns the time from the sending of a renewal with the duration [Budget.Supported] to the
// latest deadline, whatever the supporters promise.
func (b Budget) SupportedDeadline() time.Duration { return b.Supported - b.Supported/marginPart }

// LeaseDuration returns the lease duration without [Budget.Failsafe].
func (b Budget) LeaseDuration() time.Duration { return (6 * b.Renew).Round(time.Second) }

// PeriodOf returns the time between two renewals of a holder whose Lease states the duration. A holder that
// states what this budget does has the same budget, so it renews as often, also with [Budget.Failsafe].
func (b Budget) PeriodOf(stated time.Duration) time.Duration {
	if stated == b.Duration || b.Supported != 0 && stated == b.Supported {
		return b.Renew
	}
	return RenewPeriod(stated)
}

// RenewPeriod returns the time between two renewals of a Lease with the duration d: a sixth of d.
func RenewPeriod(d time.Duration) time.Duration { return d / 6 }

// Deadline returns the time from the sending of the last successful renewal to the
// deadline. The promises of supporters put it off.
func (b Budget) Deadline() time.Duration { return b.Duration - b.Margin }

// Outage returns the length of the longest outage of the API server that causes no drain,
// whenever the outage begins.
func (b Budget) Outage() time.Duration { return b.RenewDeadline - b.Renew - b.Retry }
