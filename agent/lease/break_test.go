// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package lease

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/metaparticle-io/metaparticle/api"
)

// A person, a GitOps tool or a restore can replace a held Lease by a free Lease. The holder may be cut
// off, so its application can run until its deadline.
func TestReplacedLeaseStaysHeldUntilSeenHoldExpires(t *testing.T) {
	const own = 30 * time.Second
	held := Record{UID: "uid", Version: "7", Holder: "b_u", Hold: "h1", Duration: own, Transitions: 5}
	recreated := Record{UID: "uid-2", Version: "9"}
	for name, c := range map[string]struct {
		do func(o *Observer)
		at time.Duration
	}{
		"recreated between two reads": {func(o *Observer) { o.Read(at(20), recreated) }, at(35)},
		"deletion seen":               {func(o *Observer) { o.Gone(); o.Read(at(20), recreated) }, at(35)},
		"creation seen by the watch":  {func(o *Observer) { o.Gone(); o.Watched(at(20), recreated) }, at(35)},
		"recreated, then written": {func(o *Observer) {
			o.Read(at(20), recreated)
			o.Watched(at(21), Record{UID: "uid-2", Version: "10"})
		}, at(35)},
		"recreated with an old holder": {func(o *Observer) {
			old := Record{UID: "uid-2", Version: "9", Holder: "c_u", Hold: "h0", Duration: 10 * time.Second}
			o.Read(at(6), old)
			o.Watched(at(7), Record{UID: "uid-2", Version: "10"})
		}, at(35)},
		"recreated by a person": {func(o *Observer) {
			o.Read(at(20), Record{UID: "uid-2", Version: "9", Holder: api.UnknownPerson, Duration: 10 * time.Second})
		}, at(35)},
		"recreated after the expiry": {func(o *Observer) { o.Read(at(50), recreated) }, at(50)},
		"restored etcd":              {func(o *Observer) { o.Read(at(20), Record{UID: "uid", Version: "3", Transitions: 5}) }, at(35)},
		"restored etcd with a bump":  {func(o *Observer) { o.Read(at(20), Record{UID: "uid", Version: "1000", Transitions: 4}) }, at(35)},
		"released":                   {func(o *Observer) { o.Read(at(20), Record{UID: "uid", Version: "8", Transitions: 5}) }, at(20)},
		"released, seen by a watch":  {func(o *Observer) { o.Watched(at(20), Record{UID: "uid", Version: "8", Transitions: 5}) }, at(20)},
		"absent for a moment": {func(o *Observer) {
			o.Gone() // a proxy has answered 404
			o.Read(at(20), Record{UID: "uid", Version: "8", Transitions: 5})
		}, at(20)},
		"old event": {func(o *Observer) {
			o.Watched(at(18), Record{UID: "uid", Version: "6", Transitions: 4})
			o.Watched(at(19), held)
			o.Watched(at(20), Record{UID: "uid", Version: "8", Transitions: 5})
		}, at(20)},
		"renewed, then released": {func(o *Observer) {
			o.Watched(at(10), stored(held, "8"))
			o.Watched(at(20), Record{UID: "uid", Version: "9", Transitions: 5})
		}, at(20)},
	} {
		t.Run(name, func(t *testing.T) {
			var o Observer
			o.Read(at(5), held)
			c.do(&o)
			free, sees := o.FreeAt(own)
			assert.True(t, sees)
			assert.Equal(t, c.at, free)
		})
	}
}

func TestNewStandbyBelievesItsFirstRead(t *testing.T) {
	var o Observer
	o.Gone()
	o.Read(at(5), Record{UID: "uid-2", Version: "9"})
	free, sees := o.FreeAt(30 * time.Second)
	assert.True(t, sees)
	assert.Equal(t, at(5), free)
	assert.Zero(t, o.DoubtedUntil())
}

// An administrator deletes a Lease that a person made by hand, and enroll makes a new one.
// Roles remember for how long pods held, and no person's duration.
func TestNewLeaseOfEnrollEndsNoHoldOfAPerson(t *testing.T) {
	var o Observer
	o.Read(at(5), Record{UID: "uid", Version: "7", Holder: "person:0123456789abcdef_ci", Hold: "h1", Duration: 5 * time.Minute})
	o.Gone()
	o.Read(at(20), Record{UID: "uid-2", Version: "9", Holder: "unknown", Duration: 30 * time.Second})
	free, _ := o.FreeAt(30 * time.Second)
	assert.Equal(t, at(305), free)
}

func TestNewLeaseOfEnrollEndsALongDuration(t *testing.T) {
	var o Observer
	o.Read(at(5), Record{UID: "uid", Version: "7", Holder: "b_u", Hold: "h1", Duration: time.Hour})
	o.Gone()
	o.Read(at(20), Record{UID: "uid-2", Version: "9", Holder: "unknown", Duration: 30 * time.Second})
	free, sees := o.FreeAt(30 * time.Second)
	assert.True(t, sees)
	assert.Equal(t, at(50), free)
	o.Watched(at(60), Record{UID: "uid-2", Version: "11", Transitions: 1})
	free, _ = o.FreeAt(30 * time.Second)
	assert.Equal(t, at(60), free, "a pod has held and released the new Lease")
}
