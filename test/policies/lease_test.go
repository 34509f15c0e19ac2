// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package policies

import (
	"encoding/json"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	coordinationv1 "k8s.io/api/coordination/v1"
	"k8s.io/apimachinery/pkg/api/validate/content"
	"k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/user"

	"github.com/metaparticle-io/metaparticle/api"
)

// lease returns a held Lease with the value of enroll's label; without the label if the value is empty.
func lease(label string) *coordinationv1.Lease {
	l := &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{Name: "lock.a", Namespace: shop},
		Spec:       coordinationv1.LeaseSpec{HolderIdentity: new("web-0_1"), LeaseDurationSeconds: new(int32(30))},
	}
	if label != "" {
		l.Labels = map[string]string{api.ManagedLabel: label, "team": "till"}
	}
	return l
}

// The policies select Leases by this label. Without the label, a user could write any duration, and
// could delete a held Lease.
func TestNoUserRemovesTheLabelOfALease(t *testing.T) {
	leases := coordinationv1.SchemeGroupVersion.WithResource("leases")
	masters := &user.DefaultInfo{Name: "admin", Groups: []string{user.SystemPrivilegedGroup}}
	for _, by := range []user.Info{&user.DefaultInfo{Name: "person"}, masters} {
		write := func(before, after *coordinationv1.Lease) []string {
			return refusals(t, request{by: by, resource: leases, in: namespace(shop, true), object: after, old: before})
		}
		released := lease("")
		released.Spec.HolderIdentity = nil
		for what, after := range map[string]*coordinationv1.Lease{"removed": lease(""), "changed": lease("false"), "released": released} {
			refused := write(lease("true"), after)
			require.Len(t, refused, 1, what)
			assert.Contains(t, refused[0], "ManagedLabelChanged: ", what)
		}
		other := lease("true")
		delete(other.Labels, "team")
		assert.Empty(t, write(lease("true"), other), "another label is removed")
		assert.Empty(t, write(lease(""), lease("true")), "the label comes back")
		assert.Empty(t, write(lease("false"), lease("true")), "the label is repaired")
		assert.Empty(t, write(lease("false"), lease("false")), "a Lease from before this policy is renewed")
		assert.Empty(t, write(lease(""), lease("")), "the Lease of another elector is renewed")
		long := lease("")
		long.Spec.LeaseDurationSeconds = new(int32(1 << 30))
		assert.Len(t, write(lease("true"), long), 2, "the label is removed together with a long duration")
		assert.NotEmpty(t, refusals(t, request{by: by, resource: leases, in: namespace(shop, true), old: lease("true")}), "a held Lease is deleted")
	}
}

// A Lease of a longer duration would block its slot for longer than an hour, if its holder never existed.
func TestLeaseOfASlotLastsAnHourAtMost(t *testing.T) {
	const hour = int32(api.MaxLeaseDuration / time.Second)
	lasting := func(label string, seconds int32) *coordinationv1.Lease {
		l := lease(label)
		l.Spec.LeaseDurationSeconds = &seconds
		return l
	}
	for what, test := range map[string]struct {
		now, old *coordinationv1.Lease
		refused  bool
	}{
		"an hour":                      {lasting("true", hour), nil, false},
		"more":                         {lasting("true", hour+1), nil, true},
		"for ever":                     {lasting("true", math.MaxInt32), nil, true},
		"another elector's":            {lasting("", math.MaxInt32), nil, false},
		"prolonged":                    {lasting("true", hour+1), lasting("true", hour), true},
		"shortened":                    {lasting("true", 30), lasting("true", hour+1), false},
		"kept, from before the policy": {lasting("true", hour+1), lasting("true", hour+1), false},
	} {
		write := request{by: &user.DefaultInfo{Name: "person"}, resource: coordinationv1.SchemeGroupVersion.WithResource("leases"), in: namespace(shop, true), object: test.now}
		if test.old != nil {
			write.old = test.old
		}
		if refused := refusals(t, write); test.refused {
			require.Len(t, refused, 1, what)
			assert.Contains(t, refused[0], "metaparticle-lease-duration: DurationTooLong: ", what)
		} else {
			assert.Empty(t, refused, what)
		}
	}
}

// applied returns an entry of managedFields of this operation. The entry has a field with a name of
// this size.
func applied(by string, operation metav1.ManagedFieldsOperationType, size int) metav1.ManagedFieldsEntry {
	return metav1.ManagedFieldsEntry{
		Manager: by, Operation: operation, FieldsType: "FieldsV1",
		FieldsV1: metav1.NewFieldsV1(`{"f:metadata":{"f:annotations":{"f:` + strings.Repeat("x", size) + `":{}}}}`),
	}
}

// A full Lease would make the writes of all other agents invalid for ever.
func TestAgentNeverFillsALease(t *testing.T) {
	before := lease("true")
	before.ManagedFields = []metav1.ManagedFieldsEntry{applied("gitops", metav1.ManagedFieldsOperationApply, 40)}
	before.Spec.PreferredHolder, before.Spec.Strategy = new("pod-b"), new(coordinationv1.OldestEmulationVersion)
	write := func(edit func(*coordinationv1.Lease)) []string {
		after := before.DeepCopy()
		edit(after)
		return refusals(t, request{
			by:  pod("web-0", "1"),
			may: isAgent, resource: coordinationv1.SchemeGroupVersion.WithResource("leases"), in: namespace(shop, true), object: after, old: before,
		})
	}
	for what, edit := range map[string]func(*coordinationv1.Lease){
		"an applied list": func(l *coordinationv1.Lease) {
			l.ManagedFields = append(l.ManagedFields, applied("m", metav1.ManagedFieldsOperationApply, 10_000))
		},
		"preferredHolder":    func(l *coordinationv1.Lease) { l.Spec.PreferredHolder = new(strings.Repeat("x", 1_400_000)) },
		"no preferredHolder": func(l *coordinationv1.Lease) { l.Spec.PreferredHolder = nil },
		"strategy": func(l *coordinationv1.Lease) {
			l.Spec.Strategy = new(coordinationv1.CoordinatedLeaseStrategy("example.com/Any"))
		},
	} {
		refused := write(edit)
		require.Len(t, refused, 1, what)
		assert.Contains(t, refused[0], "NotYours: an agent applies no Lease", what)
	}
	named := before.DeepCopy()
	named.GenerateName, named.UID, named.ResourceVersion = strings.Repeat("x", 1_400_000), "u", "1"
	segment := func(name string, _ bool) []string { return content.IsPathSegmentName(name) }
	require.Empty(t, validation.ValidateObjectMetaAccessor(named, true, segment, nil), "the API server accepts the name")
	refused := write(func(l *coordinationv1.Lease) { l.GenerateName = named.GenerateName })
	require.Len(t, refused, 1)
	assert.Contains(t, refused[0], "NotYours: a pod changes no labels, owners, finalizers or generateName")
	for what, edit := range map[string]func(*coordinationv1.Lease){
		"nothing":        func(*coordinationv1.Lease) {},
		"a cleared list": func(l *coordinationv1.Lease) { l.ManagedFields = nil },
		"a shorter entry": func(l *coordinationv1.Lease) {
			l.ManagedFields = []metav1.ManagedFieldsEntry{applied("gitops", metav1.ManagedFieldsOperationApply, 4)}
		},
		"its own entry": func(l *coordinationv1.Lease) {
			l.ManagedFields = append(l.ManagedFields, applied("agent", metav1.ManagedFieldsOperationUpdate, 40))
		},
	} {
		assert.Empty(t, write(edit), what)
	}
}

// The API server stores the character "<" as one byte, and answers with six bytes for it. Agents read
// no answer above 2 MiB, so they could not clear the list.
func TestAgentNeverMakesALeaseUnreadable(t *testing.T) {
	before := lease("true")
	before.ManagedFields = []metav1.ManagedFieldsEntry{applied("gitops", metav1.ManagedFieldsOperationApply, 40)}
	write := func(list ...metav1.ManagedFieldsEntry) (*coordinationv1.Lease, []string) {
		after := before.DeepCopy()
		after.ManagedFields = list
		return after, refusals(t, request{
			by:  pod("web-0", "1"),
			may: isAgent, resource: coordinationv1.SchemeGroupVersion.WithResource("leases"), in: namespace(shop, true), object: after, old: before,
		})
	}
	entry := func(by string, operation metav1.ManagedFieldsOperationType, fields string) metav1.ManagedFieldsEntry {
		return metav1.ManagedFieldsEntry{
			Manager: by, Operation: operation, APIVersion: "coordination.k8s.io/v1", FieldsType: "FieldsV1", FieldsV1: metav1.NewFieldsV1(fields),
		}
	}
	const update, apply = metav1.ManagedFieldsOperationUpdate, metav1.ManagedFieldsOperationApply
	escaped := strings.Repeat("<", 1_000_000)
	after, _ := write(entry("m", update, `{"f:metadata":{"f:annotations":{"f:`+escaped+`":{}}}}`))
	stored, err := after.Marshal()
	require.NoError(t, err)
	answer, err := json.Marshal(after)
	require.NoError(t, err)
	require.Less(t, len(stored), 1_500_000, "etcd stores the Lease")
	require.Greater(t, len(answer), 2<<20, "agents cannot read the Lease")
	for what, e := range map[string]metav1.ManagedFieldsEntry{
		"an annotation":      entry("m", update, `{"f:metadata":{"f:annotations":{"f:`+escaped+`":{}}}}`),
		"a part":             entry("m", update, `{"f:`+escaped+`":{}}`),
		"a field":            entry("m", update, `{"f:spec":{"f:`+escaped+`":{}}}`),
		"an owner":           entry("m", update, `{"f:metadata":{"f:ownerReferences":{"k:{\"uid\":\"u\"}":{"f:`+escaped+`":{}}}}}`),
		"a deep field":       entry("m", update, `{"f:metadata":{"f:a":{"f:b":{"f:c":{"f:`+escaped+`":{}}}}}}`),
		"many fields":        entry("m", update, `{"f:metadata":{"f:annotations":{`+fields(40_000)+`}}}`),
		"the applied fields": entry("gitops", apply, `{"f:metadata":{"f:annotations":{"f:`+escaped+`":{}}}}`),
	} {
		_, refused := write(e)
		require.Len(t, refused, 1, what)
		assert.Contains(t, refused[0], "NotYours: an agent fills no list", what)
	}
	many := make([]metav1.ManagedFieldsEntry, 4)
	for i := range many {
		many[i] = entry("gitops", apply, `{"f:metadata":{"f:annotations":{"f:`+strings.Repeat("<", 10_000)+`":{}}}}`)
		many[i].Subresource = strings.Repeat("s", i)
	}
	_, refused := write(many...)
	assert.Len(t, refused, 1, "entries that are small one by one")
	_, refused = write(
		entry("gitops", apply, `{"f:metadata":{"f:annotations":{`+fields(1000)+`},"f:ownerReferences":{"k:{\"uid\":\"u\"}":{".":{},"f:name":{}}}}}`),
		entry("agent", update, `{"f:metadata":{"f:annotations":{".":{},"f:metaparticle.io/hold":{}}},"f:spec":{"f:holderIdentity":{}}}`),
	)
	assert.Empty(t, refused, "a list that agents keep")
}

// A pod of a semaphore looks at up to 64 Leases. With all annotations at their own bound, these Leases
// took 120 MiB of an agent, whose container may use 64 MiB.
func TestAnnotationsOfAgentsFitIntoMemoryOfAgents(t *testing.T) {
	keys := []string{
		api.HoldAnnotation, api.TokenAnnotation, api.BootAnnotation, api.AddressAnnotation, api.WorkloadAnnotation, api.JobAnnotation,
		api.RevisionAnnotation, api.RolloutAnnotation, api.SuccessorAnnotation, api.LeavingAnnotation, api.SupportersAnnotation,
	}
	filled := func(bytes int) map[string]string {
		annotations := map[string]string{}
		for _, key := range keys {
			annotations[key] = strings.Repeat("<", bytes)
		}
		return annotations
	}
	write := func(before, after map[string]string) []string {
		old := lease("true")
		old.Annotations = before
		l := old.DeepCopy()
		l.Annotations = after
		return refusals(t, request{
			by:  pod("web-0", "1"),
			may: isAgent, resource: coordinationv1.SchemeGroupVersion.WithResource("leases"), in: namespace(shop, true), object: l, old: old,
		})
	}
	refused := write(nil, filled(8192))
	require.Len(t, refused, 1)
	assert.Contains(t, refused[0], "NotYours: an agent's annotations on a Lease have at most 16384 bytes together")
	assert.Empty(t, write(nil, filled(1480)))
	assert.Empty(t, write(filled(8192), filled(8000)), "an agent makes a filled Lease smaller")
}

// A standby in the list takes the slot before its Lease expires, so nobody lists himself.
func TestOnlyTheHolderListsSupporters(t *testing.T) {
	list := func(identity string, ids int) string {
		s := api.Supporters{Number: 7, Wait: api.DefaultLeaseDuration, Key: strings.Repeat("0b", 32)}
		for i := range ids {
			s.IDs = append(s.IDs, api.SupporterID(api.Identity(strings.Repeat(string("ab"[i]), 253), strings.Repeat("u", 36)), s.Key))
		}
		return s.Text(identity, "h1")
	}
	for what, c := range map[string]struct {
		by            *user.DefaultInfo
		from, to      string
		before, after string
		refused       bool
	}{
		"the holder lists two":                     {pod("web-0", "1"), "web-0_1", "web-0_1", "", list("web-0_1", 2), false},
		"the holder leaves one out":                {pod("web-0", "1"), "web-0_1", "web-0_1", list("web-0_1", 2), list("web-0_1", 1), false},
		"the holder releases":                      {pod("web-0", "1"), "web-0_1", "", list("web-0_1", 2), "", false},
		"a pod takes the slot with a list":         {pod("web-1", "2"), "", "web-1_2", "", list("web-1_2", 1), false},
		"a pod takes the slot and keeps the list":  {pod("web-1", "2"), "web-0_1", "web-1_2", list("web-0_1", 1), list("web-0_1", 1), false},
		"a standby lists itself":                   {pod("web-1", "2"), "web-0_1", "web-0_1", list("web-0_1", 0), list("web-0_1", 1), true},
		"a standby removes the other":              {pod("web-1", "2"), "web-0_1", "web-0_1", list("web-0_1", 2), list("web-0_1", 1), true},
		"a standby empties the list":               {pod("web-1", "2"), "web-0_1", "web-0_1", list("web-0_1", 2), "", true},
		"a standby releases":                       {pod("web-1", "2"), "web-0_1", "", list("web-0_1", 2), "", true},
		"a standby lists the supporters of nobody": {pod("web-1", "2"), "", "", "", list("web-0_1", 1), true},
	} {
		before := lease("true")
		before.Spec.HolderIdentity, before.Annotations = &c.from, map[string]string{api.SupportersAnnotation: c.before}
		after := before.DeepCopy()
		after.Spec.HolderIdentity, after.Annotations[api.SupportersAnnotation] = &c.to, c.after
		refused := refusals(t, request{
			by: c.by, may: isAgent, resource: coordinationv1.SchemeGroupVersion.WithResource("leases"), in: namespace(shop, true), object: after, old: before,
		})
		if c.refused {
			require.Len(t, refused, 1, what)
			assert.Contains(t, refused[0], "NotYourIdentity: ", what)
		} else {
			assert.Empty(t, refused, what)
		}
	}
}

// pod returns the user whose token is bound to a pod.
func pod(name, uid string) *user.DefaultInfo {
	return &user.DefaultInfo{Name: "system:serviceaccount:shop:web", Extra: map[string][]string{
		"authentication.kubernetes.io/pod-name": {name}, "authentication.kubernetes.io/pod-uid": {uid},
	}}
}

// An agent that has just started believes the hold and the boot id in its own Lease.
func TestOnlyHoldersPodWritesHoldAndBoot(t *testing.T) {
	before := lease("true")
	before.Annotations = map[string]string{api.HoldAnnotation: "h1", api.BootAnnotation: "b1"}
	write := func(by user.Info, may may, holder string, annotations map[string]string) []string {
		after := before.DeepCopy()
		after.Annotations, after.Spec.HolderIdentity = annotations, &holder
		return refusals(t, request{
			by: by, may: may, resource: coordinationv1.SchemeGroupVersion.WithResource("leases"), in: namespace(shop, true), object: after, old: before,
		})
	}
	forged := []map[string]string{
		{api.HoldAnnotation: "h1", api.BootAnnotation: "b2"}, {api.HoldAnnotation: "h2", api.BootAnnotation: "b1"}, {api.BootAnnotation: "b2"},
	}
	person, masters := &user.DefaultInfo{Name: "person"}, &user.DefaultInfo{Name: "admin", Groups: []string{user.SystemPrivilegedGroup}}
	for _, by := range []user.Info{person, masters, pod("other-0", "2")} {
		for _, annotations := range forged {
			refused := write(by, nil, "web-0_1", annotations)
			require.Len(t, refused, 1, "%s %v", by.GetName(), annotations)
			assert.Contains(t, refused[0], "HoldForged: ")
		}
		assert.Empty(t, write(by, nil, "web-0_1", before.Annotations))
		assert.Empty(t, write(by, nil, "", nil), "the slot is freed")
	}
	for _, annotations := range forged {
		assert.Empty(t, write(pod("web-0", "1"), isAgent, "web-0_1", annotations))
		assert.Empty(t, write(pod("other-0", "2"), isAgent, "other-0_2", annotations), "a takeover")
	}
	assert.Empty(t, write(pod("web-0", "1"), isAgent, "", nil), "a release")
}

// A user who may patch Leases could otherwise forge the annotations while another name is the holder's,
// and then name the pod whose agent restarts.
func TestHoldIsNeverForgedInTwoWrites(t *testing.T) {
	forged := map[string]string{api.HoldAnnotation: "h2", api.BootAnnotation: "b2"}
	write := func(by user.Info, from, to string, before, after map[string]string) []string {
		old := lease("true")
		old.Annotations, old.Spec.HolderIdentity = before, &from
		changed := old.DeepCopy()
		changed.Annotations, changed.Spec.HolderIdentity = after, &to
		return refusals(t, request{
			by: by, resource: coordinationv1.SchemeGroupVersion.WithResource("leases"), in: namespace(shop, true), object: changed, old: old,
		})
	}
	person := &user.DefaultInfo{Name: "person"}
	refused := write(person, "web-0_1", "_", nil, forged)
	require.Len(t, refused, 2, "a person has the identity of no pod")
	assert.Contains(t, refused[0], "HoldForged: ")
	assert.Contains(t, refused[1], "PersonForged: ", "and the text reads like one")
	refused = write(person, "other-0_2", "web-0_1", forged, forged)
	require.Len(t, refused, 2, "the annotations of another pod become those of web-0")
	assert.Contains(t, refused[0], "HoldForged: ")
	assert.Contains(t, refused[1], "PersonForged: ", "and a person holds in the name of a pod")
	elector := write(pod("app-0", "3"), "web-0_1", "app-0_0a1b2c3d-1111-2222-3333-444455556666", forged, forged)
	assert.Empty(t, elector, "the leader election of client-go keeps annotations that it does not know")
	assert.Len(t, write(pod("app-0", "3"), "other-0_2", "app-0_7", nil, forged), 1, "an election writes no hold")
	assert.Len(t, write(pod("app-0", "3"), "other-0_2", "web-0_1", forged, forged), 1, "a pod names another pod")
	assert.Len(t, write(person, "other-0_2", "web-0_1", forged, nil), 1, "a person names a pod, without its hold (PersonForged)")
	assert.Empty(t, write(person, "other-0_2", "", forged, forged))
	assert.Empty(t, write(person, "other-0_2", "thief", forged, forged))
}

// BenchmarkPoliciesOfARelease measures what all policies together cost the API server in one write
// of a Lease.
func BenchmarkPoliciesOfARelease(b *testing.B) {
	held := &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{
			Name: "singleton.deployment.web", Namespace: shop, Labels: map[string]string{api.ManagedLabel: "true"},
			Annotations: map[string]string{
				api.HoldAnnotation: "3a9cf1d2", api.TokenAnnotation: "42", api.AddressAnnotation: "10.244.1.17",
				api.BootAnnotation: "9f1cdd6c-9e26-4c3f-9a39-0a2f6c1f1a0b", api.ServingAnnotation: "2026-11-26T20:00:00.123456Z",
			},
		},
		Spec: coordinationv1.LeaseSpec{
			HolderIdentity: new("web-0_0b3b7a0e-1111-2222-3333-444455556666"), LeaseDurationSeconds: new(int32(30)), LeaseTransitions: new(int32(42)),
		},
	}
	released := held.DeepCopy()
	released.Spec.HolderIdentity = new("")
	delete(released.Annotations, api.ServingAnnotation)
	write := request{
		by:  pod("web-0", "0b3b7a0e-1111-2222-3333-444455556666"),
		may: isAgent, resource: coordinationv1.SchemeGroupVersion.WithResource("leases"), in: namespace(shop, true), object: released, old: held,
	}
	for b.Loop() {
		require.Empty(b, refusals(b, write))
	}
}
