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
