// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package elector

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/agent/lease"
	"github.com/metaparticle-io/metaparticle/api"
)

func TestMalformedRevisionAnnotationMeansNoRevision(t *testing.T) {
	for _, text := range []string{"", "u/7", "u/seven/5d4f", "u/0/5d4f"} {
		l := &kube.Lease{Annotations: map[string]string{api.RevisionAnnotation: text}}
		assert.Zero(t, RecordOf(l).Profile.Revision, text)
	}
}

func TestServingAnnotationOlderThanTheHoldIsIgnored(t *testing.T) {
	// The leader election of client-go does not know the annotation. So a holder by that election
	// leaves the annotation of an earlier holder in the Lease.
	acquired := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	l := &kube.Lease{AcquireTime: acquired, Annotations: map[string]string{
		api.ServingAnnotation: acquired.Add(-time.Second).Format(time.RFC3339Nano),
	}}
	assert.True(t, RecordOf(l).Profile.Serving.IsZero())
	l.AcquireTime = acquired.Add(-time.Second)
	assert.False(t, RecordOf(l).Profile.Serving.IsZero())
}

func TestJobAnnotationOfAnEarlierHoldIsIgnored(t *testing.T) {
	r := RecordOf(&kube.Lease{UID: "u", Holder: "a_u", Annotations: map[string]string{api.HoldAnnotation: "h1"}})
	r.Profile.Job = "job-1"
	l := LeaseOf(&kube.Lease{}, r)
	assert.Equal(t, "job-1", RecordOf(l).Profile.Job)
	// The hold h2 is of an older agent, which does not know the Job's annotation. So the Job's
	// annotation of the hold h1 stays in the Lease.
	l.Annotations[api.HoldAnnotation] = "h2"
	assert.Empty(t, RecordOf(l).Profile.Job)
}

func TestLeaseRecordSurvivesARoundTrip(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 678_901_000, time.UTC)
	r := lease.Record{
		UID: "u", Version: "7", Holder: "a_u", Duration: 30 * time.Second, AcquireTime: at, RenewTime: at.Add(time.Second), Transitions: 3,
		Hold: "h1", Token: "6", BootID: "b",
		Profile: lease.Profile{
			Address: "10.0.0.1", Workload: "Deployment/biller", Job: "j", Revision: api.Revision{Workload: "u", Number: 7, Hash: "5d4f"},
			Serving: at, Leaving: "soon", Leave: "h1.1",
		},
		Yield: api.Yield{Hold: "h1", Successor: "b_u"}, Successor: "c_u", Rollout: "{}", Done: "7", Failures: "7=2@1",
	}
	base := &kube.Lease{Name: "lock.a", Annotations: map[string]string{"other": "stays", api.PausedAnnotation: "x", api.DoneAnnotation: "6"}}
	l := LeaseOf(base, r)
	assert.Equal(t, "stays", l.Annotations["other"])
	assert.Equal(t, "x", l.Annotations[api.PausedAnnotation], "only a person writes the pause")
	assert.Equal(t, "6", base.Annotations[api.DoneAnnotation], "the Lease that was read stays as it is")
	r.Paused = RecordOf(l).Paused
	assert.Equal(t, r, RecordOf(l))

	empty := LeaseOf(l, lease.Record{UID: "u", Version: "8"})
	assert.Equal(t, map[string]string{"other": "stays", api.PausedAnnotation: "x"}, empty.Annotations)
}
