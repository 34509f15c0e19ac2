// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package leave

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/metaparticle-io/metaparticle/agent/pace"
	"github.com/metaparticle-io/metaparticle/api"
)

func TestStandbyAnswersAnAnnouncement(t *testing.T) {
	const now, soon = time.Minute, time.Minute + time.Second
	able := Standby{Able: true, Free: true, Soon: true, Serves: true, PreparedAt: pace.Never}
	with := func(change func(*Standby)) Standby {
		s := able
		change(&s)
		return s
	}
	for name, c := range map[string]struct {
		facts Standby
		say   api.Say
		wake  time.Duration
	}{
		"of a holder that asks another pod":       {able, "", pace.Never},
		"Ready, of the same revision":             {with(func(s *Standby) { s.Stays, s.SameRevision = true, true }), api.Either, pace.Never},
		"Ready, of another revision":              {with(func(s *Standby) { s.Stays = true }), api.Stays, pace.Never},
		"Ready, and cannot start":                 {with(func(s *Standby) { s.Stays, s.SameRevision, s.Able = true, true, false }), api.Stays, pace.Never},
		"deleted, before a successor is named":    {with(func(s *Standby) { s.Lingers = true }), "", pace.Never},
		"deleted, after it":                       {with(func(s *Standby) { s.Lingers, s.Soon = true, false }), api.Stays, pace.Never},
		"of an application that hangs":            {with(func(s *Standby) { s.Serves, s.Hangs = false, true }), api.Takes, pace.Never},
		"of one that hangs, and may not":          {with(func(s *Standby) { s.Serves, s.Hangs, s.Free = false, true, false }), "", pace.Never},
		"of one that hangs, in a rollout":         {with(func(s *Standby) { s.Serves, s.Hangs, s.Turns = false, true, true }), "", pace.Never},
		"of one that hangs, without a start lock": {with(func(s *Standby) { s.Serves, s.Hangs, s.Hindered = false, true, true }), "", pace.Never},
		"asked, and wishes":                       {with(func(s *Standby) { s.Asked, s.Wishes, s.PreparedAt = true, true, soon }), api.Takes, soon},
		"asked, wishes, and is Ready":             {with(func(s *Standby) { s.Asked, s.Wishes, s.Stays, s.PreparedAt = true, true, true, soon }), api.Either, soon},
		"asked, and wishes no more":               {with(func(s *Standby) { s.Asked = true }), "", pace.Never},
		"asked by a person":                       {with(func(s *Standby) { s.Asked, s.ByPerson = true, true }), api.Takes, pace.Never},
		"asked, and has no connections":           {with(func(s *Standby) { s.Asked, s.Wishes, s.PreparedAt = true, true, now }), api.Prepared, pace.Never},
		"asked, and has answered":                 {with(func(s *Standby) { s.Asked, s.Said, s.PreparedAt = true, api.Either, soon }), api.Either, soon},
		"named successor, and has answered":       {with(func(s *Standby) { s.Follows, s.Said, s.PreparedAt = true, api.Either, now }), api.Prepared, pace.Never},
		"named successor, unasked":                {with(func(s *Standby) { s.Follows, s.Soon = true, false }), "", pace.Never},
		"said that it stays":                      {with(func(s *Standby) { s.Said, s.Soon = api.Stays, false }), api.Stays, pace.Never},
		"stays, and the application has stopped":  {with(func(s *Standby) { s.Said, s.Soon, s.Serves = api.Stays, false, false }), api.Prepared, pace.Never},
		"said that it takes a slot that hangs":    {with(func(s *Standby) { s.Said, s.Serves = api.Takes, false }), api.Takes, pace.Never},
	} {
		t.Run(name, func(t *testing.T) {
			say, wake := Answer(now, c.facts)
			assert.Equal(t, c.say, say)
			assert.Equal(t, c.wake, wake)
		})
	}
}
