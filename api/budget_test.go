// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestBudgetMatchesTheDocumentedTable compares NewBudget with the table in
// docs/reference/annotations.md.
func TestBudgetMatchesTheDocumentedTable(t *testing.T) {
	const s = time.Second
	tests := []struct {
		duration, renew, renewDeadline, drain, margin, outage time.Duration
	}{
		{30 * s, 5 * s, 15 * s, 9 * s, 5 * s, 9 * s},
		{15 * s, 2500 * time.Millisecond, 7500 * time.Millisecond, 4 * s, 2500 * time.Millisecond, 4 * s},
		{60 * s, 10 * s, 30 * s, 19 * s, 10 * s, 19 * s},
	}
	for _, test := range tests {
		t.Run(test.duration.String(), func(t *testing.T) {
			b, err := NewBudget(test.duration)
			require.NoError(t, err)
			assert.Equal(t, test.renew, b.Renew)
			assert.Equal(t, test.renewDeadline, b.RenewDeadline)
			assert.Equal(t, test.drain, b.Drain)
			assert.Equal(t, time.Second, b.Kill)
			assert.Equal(t, test.margin, b.Margin)
			assert.Equal(t, test.outage, b.Outage())
		})
	}
}

func TestBudgetPartsFitIntoEveryLeaseDuration(t *testing.T) {
	for d := MinLeaseDuration; d <= MaxLeaseDuration; d += time.Second {
		checkBudget(t, d)
	}
}

func TestBudgetForInvalidLeaseDurationIsRefused(t *testing.T) {
	for _, d := range []time.Duration{0, -time.Minute, MinLeaseDuration - 1, MinLeaseDuration + 1, MaxLeaseDuration + time.Second} {
		_, err := NewBudget(d)
		assert.Error(t, err, d)
	}
}

func FuzzBudgetPartsFitIntoTheLeaseDuration(f *testing.F) {
	f.Add(int64(30 * time.Second))
	f.Add(int64(time.Hour))
	f.Add(int64(-1))
	f.Fuzz(func(t *testing.T, n int64) {
		d := time.Duration(n)
		if _, err := NewBudget(d); err == nil {
			checkBudget(t, d)
		}
	})
}

// The Lease's duration becomes longer with an outage that the lease duration does not cover, and nothing else
// does; for a holder that needs supporters, only while it has them.
func TestFailsafeBudgetCoversTheOutage(t *testing.T) {
	for d := MinLeaseDuration; d <= 10*time.Minute; d += 7 * time.Second {
		ordinary, err := NewBudget(d)
		require.NoError(t, err)
		for outage := time.Duration(0); outage <= maxFailsafe; outage += 13 * time.Second {
			b, err := ordinary.Failsafe(outage)
			if err != nil {
				require.Greater(t, outage*6/5+d, MaxLeaseDuration, "%v with %v", outage, d)
				continue
			}
			checkParts(t, b)
			require.GreaterOrEqual(t, b.Outage(), outage, "%v with %v", outage, d)
			require.GreaterOrEqual(t, b.Duration, d)
			require.LessOrEqual(t, b.Duration, MaxLeaseDuration)
			require.Zero(t, b.Duration%time.Second, "a Lease has whole seconds")
			supported, err := ordinary.WithSupporters(outage)
			require.NoError(t, err)
			require.Equal(t, b.Duration, supported.Longest())
			require.Equal(t, b.Deadline() > ordinary.Deadline(), supported.Supported != 0)
			if supported.Supported != 0 {
				require.Equal(t, b.Deadline(), supported.SupportedDeadline())
			}
			for _, stated := range []time.Duration{d, b.Duration} {
				require.Equal(t, ordinary.Renew, supported.PeriodOf(stated), "a holder without supporters, or with some")
			}
			supported.Supported = 0
			require.Equal(t, ordinary, supported, "without supporters everything is as without the annotation")
			require.Zero(t, supported.PeriodOf(0))
			b.Duration, b.Margin, b.RenewDeadline = ordinary.Duration, ordinary.Margin, ordinary.RenewDeadline
			require.Equal(t, ordinary, b)
			require.Equal(t, d, b.LeaseDuration())
		}
	}
}

func TestFailsafeStatesItsDuration(t *testing.T) {
	const s, m = time.Second, time.Minute
	for _, c := range []struct{ lease, outage, want time.Duration }{
		{30 * s, 10 * m, 12*m + 30*s},
		{0, 10 * m, 12*m + 30*s},
		{0, 0, 0},
		{30 * s, 0, 30 * s},
		{30 * s, m, 102 * s},
		{30 * s, 45 * m, 54*m + 30*s},
		{10 * m, m, 10 * m},
		{10 * m, 45 * m, MaxLeaseDuration},
		{time.Nanosecond, m, MaxLeaseDuration},
	} {
		for _, alone := range []bool{false, c.outage != 0} {
			assert.Equal(t, c.want, Failsafe{Outage: c.outage, Alone: alone}.Stated(c.lease), "%v with %v, alone %v", c.outage, c.lease, alone)
		}
	}
}

func checkBudget(t *testing.T, d time.Duration) {
	t.Helper()
	b, err := NewBudget(d)
	require.NoError(t, err)
	checkParts(t, b)
}

func checkParts(t *testing.T, b Budget) {
	t.Helper()
	d := b.Duration
	require.LessOrEqual(t, b.RenewDeadline+b.Drain+b.Kill+b.Margin, d, "the parts fit into the lease")
	require.Equal(t, b.Deadline(), b.RenewDeadline+b.Drain+b.Kill, "everything is dead at the deadline")
	require.GreaterOrEqual(t, b.Margin, 2*time.Second)
	require.GreaterOrEqual(t, b.Margin, d/6)
	require.GreaterOrEqual(t, b.Drain, 2*time.Second, "an application has time to stop")
	require.GreaterOrEqual(t, b.Outage(), 2*time.Second, "a hiccup stops nothing")
	require.GreaterOrEqual(t, b.RenewDeadline, 2*b.Renew, "one lost renewal stops nothing")
	require.Less(t, b.RequestTimeout, b.Renew)
}
