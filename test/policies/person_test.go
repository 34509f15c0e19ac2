// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package policies

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	coordinationv1 "k8s.io/api/coordination/v1"
	"k8s.io/apiserver/pkg/authentication/user"

	"github.com/metaparticle-io/metaparticle/api"
)

// A person holds a lock under the person's own name, and nobody holds in another's.
func TestPeopleHoldLocksInTheirOwnNames(t *testing.T) {
	const process = "0123456789abcdef"
	ann, pat := &user.DefaultInfo{Name: "ann_lee@example.com"}, &user.DefaultInfo{Name: "pat"}
	masters := &user.DefaultInfo{Name: "admin", Groups: []string{user.SystemPrivilegedGroup}}
	account := &user.DefaultInfo{Name: "system:serviceaccount:shop:web"}
	own := func(u user.Info) string { return api.PersonIdentity(process, u.GetName()) }
	hold := map[string]string{api.HoldAnnotation: "h2", api.BootAnnotation: "b2"}
	for name, c := range map[string]struct {
		by           user.Info
		may          may
		lease        string
		before, next string
		annotations  map[string]string
		refused      string
	}{
		"a free lock":                   {ann, nil, "lock.a", "", own(ann), hold, ""},
		"an expired pod's lock":         {ann, nil, "lock.a", "web-0_1", own(ann), hold, ""},
		"a renewal":                     {ann, nil, "lock.a", own(ann), own(ann), hold, ""},
		"a release":                     {ann, nil, "lock.a", own(ann), "", nil, ""},
		"a service account":             {account, nil, "lock.a", "", own(account), hold, ""},
		"an administrator":              {masters, nil, "lock.a", "", own(masters), hold, ""},
		"a pod after a person":          {pod("web-0", "1"), isAgent, "lock.a", own(ann), "web-0_1", hold, ""},
		"another's name":                {pat, nil, "lock.a", "", own(ann), nil, "PersonForged: a user names only itself"},
		"another's name and hold":       {pat, nil, "lock.a", "", own(ann), hold, "HoldForged: "},
		"another's hold":                {pat, nil, "lock.a", own(ann), own(ann), hold, "HoldForged: "},
		"the end of another's name":     {&user.DefaultInfo{Name: "lee@example.com"}, nil, "lock.a", "", own(ann), nil, "PersonForged: a user names only itself"},
		"no process":                    {ann, nil, "lock.a", "", "person:_" + ann.Name, nil, "PersonForged: a user names only itself"},
		"a short text":                  {ann, nil, "lock.a", "", "person:", hold, "HoldForged: "},
		"an administrator for another":  {masters, nil, "lock.a", "", own(ann), nil, "PersonForged: a user names only itself"},
		"a singleton":                   {ann, nil, "singleton.deployment.web", "", own(ann), hold, "PersonForged: a user names only itself"},
		"a pod's name":                  {ann, nil, "lock.a", "", "web-0_1", nil, "PersonForged: only a pod holds"},
		"a pod's name after one's own":  {ann, nil, "lock.a", own(ann), "web-0_1", nil, "PersonForged: only a pod holds"},
		"an agent as a person":          {pod("web-0", "1"), isAgent, "lock.a", "", own(account), hold, "NotYourIdentity: "},
		"an agent frees a person's":     {pod("web-0", "1"), isAgent, "lock.a", own(ann), "", nil, "NotYourIdentity: "},
		"text that reads like a person": {pat, nil, "lock.a", "", "person ann_lee@example.com", nil, "PersonForged: a user names only itself"},
		"an odd space, in a pod":        {pod("evil", "9"), nil, "lock.a", "", "person\u00a0" + ann.Name + "_1", nil, "PersonForged: a user names only itself"},
		"on a singleton, too":           {pat, nil, "singleton.deployment.web", "", "person " + ann.Name + "_1", nil, "PersonForged: a user names only itself"},
		"a text that reads like a pod":  {pat, nil, "lock.a", "", "web-0_X", nil, "PersonForged: only a pod holds"},
		"a pod's name, and a space":     {pat, nil, "lock.a", "", "web-0_1 ", nil, "PersonForged: "},
		"a name of no pod":              {ann, nil, "lock.a", "", "gone", nil, ""},
		"an elector in a pod":           {pod("app-0", "3"), nil, "lock.a", "", "app-0_0a1b2c3d-1111-2222-3333-444455556666", nil, ""},
		"an elector of another kind":    {ann, nil, "election.main", "", "host_0a1b2c3d-1111", nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			old := lease("true")
			old.Name, old.Spec.HolderIdentity = c.lease, &c.before
			after := old.DeepCopy()
			after.Spec.HolderIdentity, after.Annotations = &c.next, c.annotations
			refused := refusals(t, request{by: c.by, may: c.may, resource: coordinationv1.SchemeGroupVersion.WithResource("leases"), in: namespace(shop, true), object: after, old: old})
			if c.refused == "" {
				assert.Empty(t, refused)
				return
			}
			require.NotEmpty(t, refused)
			assert.Contains(t, refused[0]+refused[len(refused)-1], c.refused)
		})
	}
	for name, c := range map[string]struct {
		change  func(l *coordinationv1.Lease)
		refused bool
	}{
		"as hold makes it":       {func(*coordinationv1.Lease) {}, false},
		"with a foreign note":    {func(l *coordinationv1.Lease) { l.Annotations = map[string]string{"example.com/owner": "ci"} }, false},
		"of the longest lease":   {func(l *coordinationv1.Lease) { l.Spec.LeaseDurationSeconds = new(int32(3600)) }, false},
		"of a longer lease":      {func(l *coordinationv1.Lease) { l.Spec.LeaseDurationSeconds = new(int32(3601)) }, true},
		"that ends at once":      {func(l *coordinationv1.Lease) { l.Spec.LeaseDurationSeconds = new(int32(9)) }, true},
		"without a duration":     {func(l *coordinationv1.Lease) { l.Spec.LeaseDurationSeconds = nil }, true},
		"with a hold":            {func(l *coordinationv1.Lease) { l.Annotations = hold }, true},
		"of a singleton":         {func(l *coordinationv1.Lease) { l.Name = "singleton.deployment.web" }, true},
		"of the lock's talk":     {func(l *coordinationv1.Lease) { l.Name = "next.lock.a" }, true},
		"in the name of a pod":   {func(l *coordinationv1.Lease) { l.Spec.HolderIdentity = new("person web-0") }, true},
		"in the name of another": {func(l *coordinationv1.Lease) { l.Spec.HolderIdentity = new(own(pat)) }, true},
	} {
		l := lease("true")
		l.Name, l.Spec.HolderIdentity, l.Spec.LeaseDurationSeconds = "lock.a", new(api.UnknownPerson), new(int32(10))
		c.change(l)
		for _, by := range []user.Info{ann, account, pod("job-0", "1")} {
			refused := refusals(t, request{by: by, resource: coordinationv1.SchemeGroupVersion.WithResource("leases"), in: namespace(shop, false), object: l})
			assert.Equal(t, c.refused, len(refused) > 0, "%s by %s: %q", name, by.GetName(), refused)
		}
		unlabelled := l.DeepCopy()
		delete(unlabelled.Labels, api.ManagedLabel)
		refused := refusals(t, request{by: ann, resource: coordinationv1.SchemeGroupVersion.WithResource("leases"), in: namespace(shop, false), object: l, old: unlabelled})
		assert.Equal(t, c.refused, len(refused) > 0, "%s, by a label: %q", name, refused)
	}

	made := lease("true")
	made.Spec.HolderIdentity = new(own(ann))
	assert.Len(t, refusals(t, request{by: pat, resource: coordinationv1.SchemeGroupVersion.WithResource("leases"), in: namespace(shop, true), object: made}), 1, "a new Lease in another's name")
	assert.Empty(t, refusals(t, request{by: ann, resource: coordinationv1.SchemeGroupVersion.WithResource("leases"), in: namespace(shop, true), object: made}))

	unmanaged := made.DeepCopy()
	delete(unmanaged.Labels, api.ManagedLabel)
	assert.Len(t, refusals(t, request{by: pat, resource: coordinationv1.SchemeGroupVersion.WithResource("leases"), in: namespace(shop, true), object: made, old: unmanaged}), 1, "another's name from before the label")
}
