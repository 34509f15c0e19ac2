// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package step

import (
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/metaparticle-io/metaparticle/api"
)

// The Role of an account without a claim has the only record of the Lease's duration. The Role
// of the account that still claims the Lease lacks this record, because a write of that Role
// failed.
func TestEnrollKeepsLastDurationRecordOfClaimedLease(t *testing.T) {
	const slot = "once.schema"
	due := Right{Lease: slot, Role: "r"}
	for name, test := range map[string]struct {
		claims, live Claims
		forgotten    []string
		claimed      []Right
	}{
		"claimed by another account": {Claims{slot: {Accounts: map[string]string{"other": "biller"}}}, nil, nil, nil},
		"claimed again":              {nil, Claims{slot: {Accounts: map[string]string{"till": "till"}}}, nil, []Right{due}},
		"unclaimed":                  {nil, nil, []string{slot}, nil},
	} {
		f := one(&Lease{Name: slot, Annotations: map[string]string{api.DoneAnnotation: "7"}}, slot)
		f.Claims = test.claims
		removals, claimed := f.Remove(Due{Rights: map[Right]bool{due: true}}, test.live, f.Roles)
		assert.Equal(t, []Removal{{Rights: test.forgotten}}, removals, name)
		assert.Equal(t, test.claimed, claimed, name)
	}
}

// one returns facts with one Role, and without claims.
func one(lease *Lease, slots ...string) *Facts {
	f := &Facts{Claims: Claims{}, Leases: map[string]*Lease{}, Roles: &Roles{}}
	role := &Role{Name: "r", Key: "till", Memories: map[string]Memory{}}
	for _, slot := range slots {
		role.Memories[slot] = Memory{Seconds: 60}
	}
	f.Roles.Add(role)
	if lease != nil {
		f.Leases[lease.Name] = lease
	}
	return f
}

func TestPausesAndRecordsKeepUnclaimedLeases(t *testing.T) {
	const lock, once, revision = "lock.x", "once.schema", "once-revision.deployment.shop"
	barrier := api.Barrier{Name: "warm", Size: 2}.Leases("0b1c2d3e")[0]
	noted := func(name, key, value string) *Lease {
		return &Lease{Name: name, Annotations: map[string]string{key: value}}
	}
	owned := func(l *Lease) *Lease { l.Owned = true; return l }
	whole := func(slot string) []Right { return []Right{{Lease: slot}} }
	right := func(slot string) []Right { return []Right{{Lease: slot, Role: "r"}} }
	for name, test := range map[string]struct {
		facts *Facts
		want  []Right
	}{
		"free":                        {one(&Lease{Name: lock}, lock), whole(lock)},
		"held by a person":            {one(&Lease{Name: lock, Holder: api.PersonIdentity("0123456789abcdef", "ann")}, lock), whole(lock)},
		"that no Role names":          {one(&Lease{Name: lock}), whole(lock)},
		"that is gone":                {one(nil, lock), whole(lock)},
		"paused":                      {one(noted(lock, api.PausedAnnotation, string(api.PauseHold)), lock), nil},
		"with done keys":              {one(noted(once, api.DoneAnnotation, "7"), once), right(once)},
		"with done keys and no right": {one(noted(once, api.DoneAnnotation, "7")), nil},
		"with the revisions that ran": {one(noted(revision, api.DoneAnnotation, "6d4b.5b7e0a11"), revision), whole(revision)},
		"of an open barrier":          {one(owned(noted(barrier, api.OpenedAnnotation, "2")), barrier), right(barrier)},
		"of a closed barrier":         {one(owned(noted(barrier, api.OpenedAnnotation, "")), barrier), whole(barrier)},
		"of an open barrier, no Job":  {one(noted(barrier, api.OpenedAnnotation, "2"), barrier), whole(barrier)},
		"of a malformed record":       {one(owned(noted(barrier, api.OpenedAnnotation, "two")), barrier), whole(barrier)},
		"next Lease of a known slot":  {one(&Lease{Name: api.NextLease(lock)}, lock), whole(lock)},
		"next Lease of no known slot": {one(&Lease{Name: api.NextLease(lock)}), whole(api.NextLease(lock))},
	} {
		assert.Equal(t, test.want, slices.Collect(maps.Keys(test.facts.Unclaimed())), name)
	}
}

func TestSweepWaitsForTheWholeDurationSinceTheLastChange(t *testing.T) {
	const slot = "lock.x"
	start := time.Unix(0, 0)
	later := func(d time.Duration) time.Time { return start.Add(d) }
	f := one(&Lease{Name: slot, Version: "1", Duration: 30 * time.Second}, slot)
	seen := Observe(nil, f.Unclaimed(), start)
	due, again := f.Expire(seen, later(59*time.Second))
	assert.True(t, due.Empty())
	assert.Equal(t, time.Second, again, "the Role remembers a longer duration")
	due, _ = f.Expire(seen, later(time.Minute))
	assert.Equal(t, map[string]bool{slot: true}, due.Leases)

	seen = Observe(seen, f.Unclaimed(), later(time.Minute))
	due, _ = f.Expire(seen, later(time.Minute))
	assert.False(t, due.Empty(), "the Lease has not changed")
	f.Leases[slot] = &Lease{Name: slot, Version: "2"}
	seen = Observe(seen, f.Unclaimed(), later(time.Minute))
	due, again = f.Expire(seen, later(time.Minute))
	assert.True(t, due.Empty(), "a renewal restarts the wait")
	assert.Equal(t, time.Minute, again)
	due, _ = f.Expire(Observe(nil, f.Unclaimed(), later(time.Hour)), later(time.Hour))
	assert.True(t, due.Empty(), "a new process has not seen the Lease before")
}

func TestLockOfPeopleIsSweptAfterADay(t *testing.T) {
	start := time.Unix(1_800_000_000, 0)
	const day = 24 * time.Hour
	for name, test := range map[string]struct {
		facts *Facts
		// renewed is the writer's clock, and seen the time for which this process has seen no write.
		renewed time.Time
		seen    time.Duration
		left    time.Duration
	}{
		"just released":             {one(nil), start, 0, day},
		"after a lease duration":    {one(nil), start.Add(-time.Minute), time.Minute, day - time.Minute},
		"of yesterday":              {one(nil), start.Add(-day), day, 0},
		"seen late":                 {one(nil), start.Add(-23 * time.Hour), 0, time.Hour},
		"of last week, seen late":   {one(nil), start.Add(-7 * day), 0, 30 * time.Second},
		"of last week, seen":        {one(nil), start.Add(-7 * day), 30 * time.Second, 0},
		"without an instant":        {one(nil), time.Time{}, 30 * time.Second, 0},
		"by a clock that is ahead":  {one(nil), start.Add(7 * day), 23 * time.Hour, time.Hour},
		"by that clock, for a day":  {one(nil), start.Add(7 * day), day, 0},
		"that pods had claimed":     {one(nil, "lock.x"), start.Add(-time.Minute), time.Minute, 0},
		"that pods had just left":   {one(nil, "lock.x"), start, 0, time.Minute},
		"beside a lock of pods":     {one(nil, "lock.y"), start, 0, day},
		"that somebody still waits": {one(nil), start, 29 * time.Second, day - 29*time.Second},
	} {
		f := test.facts
		f.Claims.Add("till", "till", 0, "lock.y")
		f.Leases["lock.x"] = &Lease{Name: "lock.x", Version: "1", Duration: 30 * time.Second, Renewed: test.renewed}
		due, again := f.Expire(Observe(nil, f.Unclaimed(), start.Add(-test.seen)), start)
		assert.Equal(t, test.left == 0, due.Leases["lock.x"], name)
		assert.Equal(t, test.left, again, name)
	}
	f := one(nil)
	f.Leases["once.x"] = &Lease{Name: "once.x", Version: "1", Duration: 30 * time.Second, Renewed: start}
	due, _ := f.Expire(Observe(nil, f.Unclaimed(), start.Add(-30*time.Second)), start)
	assert.True(t, due.Leases["once.x"], "no person holds a slot but a lock")
}

// Pods may have held the lock for longer than the person thinks who makes its Lease again.
func TestClaimantsAdoptTheLeaseOfAPerson(t *testing.T) {
	claim := &Claim{Duration: 30 * time.Second}
	for name, test := range map[string]struct {
		lease Lease
		roles *Roles
		want  Lease
	}{
		"that enroll made":             {Lease{Holder: Unknown, Duration: time.Minute}, one(nil).Roles, Lease{Duration: time.Minute}},
		"that a person made":           {Lease{Holder: api.UnknownPerson, Duration: time.Minute}, one(nil).Roles, Lease{Holder: api.UnknownPerson, Duration: time.Minute}},
		"with a shorter duration":      {Lease{Holder: api.UnknownPerson, Duration: 10 * time.Second}, one(nil).Roles, Lease{Holder: api.UnknownPerson, Duration: 30 * time.Second}},
		"than a Role remembers":        {Lease{Holder: api.UnknownPerson, Duration: 30 * time.Second}, one(nil, "lock.x").Roles, Lease{Holder: api.UnknownPerson, Duration: time.Minute}},
		"that a person holds":          {Lease{Holder: api.PersonIdentity("0", "ann"), Duration: 10 * time.Second}, one(nil, "lock.x").Roles, Lease{Holder: api.PersonIdentity("0", "ann"), Duration: 10 * time.Second}},
		"that enroll made, once named": {Lease{Holder: Unknown, Duration: time.Minute}, one(nil, "lock.x").Roles, Lease{Holder: Unknown, Duration: time.Minute}},
		"that is free":                 {Lease{Duration: 10 * time.Second}, one(nil).Roles, Lease{Duration: 10 * time.Second}},
	} {
		test.lease.Name, test.want.Name = "lock.x", "lock.x"
		assert.Equal(t, test.want, test.lease.Adopted(claim, test.roles), name)
	}
}

func TestNewLeaseIsFreeOnlyIfNoRoleEverNamedIt(t *testing.T) {
	for name, test := range map[string]struct {
		roles    *Roles
		duration time.Duration
		fresh    bool
	}{
		"never named":             {one(nil).Roles, 30 * time.Second, true},
		"named for a longer time": {one(nil, "lock.x").Roles, time.Minute, false},
		"another Lease was named": {one(nil, "lock.y").Roles, 30 * time.Second, true},
	} {
		lease := NewLease("lock.x", &Claim{Duration: 30 * time.Second}, test.roles)
		assert.Equal(t, Lease{Name: "lock.x", Holder: Unknown, Duration: test.duration}, lease, name)
		assert.Equal(t, test.fresh, lease.Fresh(test.roles), name)
		assert.EqualValues(t, test.duration/time.Second, test.roles.Memory("lock.x", "", &Claim{Duration: 30 * time.Second}).Seconds, name)
	}
}
