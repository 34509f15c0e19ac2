// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package policies

import (
	"math"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apiserver/pkg/authentication/user"

	"github.com/metaparticle-io/metaparticle/api"
)

// attempt is a write of the Lease "slot" by a standby.
type attempt struct {
	slot string
	edit func(*coordinationv1.Lease)
	// refused has a text of each refusal.
	refused []string
}

// word returns an edit that acquires a Lease, and sets one of its annotations.
func word(key, value string) func(*coordinationv1.Lease) {
	return func(l *coordinationv1.Lease) {
		*l.Spec.HolderIdentity = "till-b_b"
		delete(l.Annotations, api.HoldAnnotation)
		metav1.SetMetaDataAnnotation(&l.ObjectMeta, key, value)
	}
}

// identified returns an edit that writes an identity into a Lease, and removes some annotations.
func identified(identity string, remove ...string) func(*coordinationv1.Lease) {
	return func(l *coordinationv1.Lease) {
		*l.Spec.HolderIdentity = identity
		for _, key := range remove {
			delete(l.Annotations, key)
		}
	}
}

// A stranger with the token of a standby can write what the agent of the standby writes, and nothing else.
func TestStandbyWritesOnlyWhatItsAgentWrites(t *testing.T) {
	const slot, next, me, ghost = "singleton.deployment.till", "next.singleton.deployment.till", "till-b_b", "ghost_1"
	const notYours, identity, once = "NotYours: ", "NotYourIdentity: ", "only the holder of a once claim"
	hold := []string{api.HoldAnnotation, api.BootAnnotation}
	contact := ":h1:" + strings.Repeat("0b", 32) + "0a000001334c:3"
	for what, a := range map[string]attempt{
		"offer its support":           {next, word(api.WordsAnnotation, "supports:till-b_b"+contact), nil},
		"offer in another's name":     {next, word(api.WordsAnnotation, "supports:ghost_1"+contact), []string{identity}},
		"offer on a slot's own Lease": {slot, word(api.WordsAnnotation, "supports:till-b_b"+contact), []string{identity}},
		"list itself as a supporter": {slot, func(l *coordinationv1.Lease) {
			metav1.SetMetaDataAnnotation(&l.ObjectMeta, api.SupportersAnnotation, "web-0_1 h1 9 10 key till-b_b/01")
		}, []string{identity}},
		"take a slot and list supporters":     {slot, word(api.SupportersAnnotation, "till-b_b h2 0 30 key web-0_1/01"), nil},
		"take a slot":                         {slot, identified(me, hold...), nil},
		"wish":                                {next, word(api.WordsAnnotation, "newer:till-b_b:h1:a/2/b:1"), nil},
		"answer":                              {next, word(api.WordsAnnotation, "takes:till-b_b:h1.7"), nil},
		"take a slot in another's name":       {slot, identified(ghost, hold...), []string{identity}},
		"take a slot and keep its hold":       {slot, identified(ghost), []string{"HoldForged: ", identity}},
		"free another's slot":                 {slot, identified("", hold...), []string{identity}},
		"speak and name another holder":       {next, identified(ghost, hold...), []string{identity}},
		"a label of a Lease":                  {slot, func(l *coordinationv1.Lease) { word("", "")(l); l.Labels["a"] = "b"; delete(l.Annotations, "") }, []string{notYours}},
		"pause a slot in its own name":        {slot, word(api.PausedAnnotation, string(api.PauseHold)), []string{notYours, notYours}},
		"count a failure that it has not had": {slot, word(api.FailuresAnnotation, "7 9"), []string{once}},
		"record work that it has not done":    {slot, word(api.DoneAnnotation, "7"), []string{once}},
		"an instant that JSON refuses":        {slot, word(api.ServingAnnotation, "2026-11-23T00:00:00+24:00"), []string{"serving-since is an instant"}},
		"ask a holder to yield":               {slot, word(api.YieldAnnotation, "4711"), []string{notYours}},
		"stamp the Lease of a shard":          {slot, word(api.StampAnnotation, "1/3"), []string{notYours, "EnrollStamps: "}},
		"open a barrier by another Lease":     {slot, word(api.OpenedAnnotation, "3"), []string{notYours}},
		"an annotation of a Lease, not ours":  {slot, word("example.com/word", "a"), []string{notYours}},
		"a Lease full of text":                {slot, word(api.AddressAnnotation, strings.Repeat("a", 100_000)), []string{notYours, notYours}},
		"a Lease full of long characters":     {slot, word(api.AddressAnnotation, strings.Repeat("𝄞", 8000)), []string{notYours, notYours}},
		"a wish in another's name":            {next, word(api.WordsAnnotation, "newer:ghost_1:h1:a/2/b:1"), []string{identity}},
		"an answer in another's name":         {next, word(api.WordsAnnotation, "prepared:ghost_1:h1.7"), []string{identity}},
		"a word on a slot's own Lease":        {slot, word(api.WordsAnnotation, "takes:till-b_b:h1.7"), []string{identity}},
		"the last possible transition": {slot, func(l *coordinationv1.Lease) {
			identified(me, hold...)(l)
			l.Spec.LeaseTransitions = new(int32(math.MaxInt32))
		}, []string{notYours}},
	} {
		t.Run(what, func(t *testing.T) {
			before := lease("true")
			before.Name, before.Annotations = a.slot, map[string]string{api.HoldAnnotation: "h1"}
			after := before.DeepCopy()
			a.edit(after)
			write := request{
				by: pod("till-b", "b"), may: isAgent, resource: coordinationv1.SchemeGroupVersion.WithResource("leases"),
				in: namespace(shop, true), object: after, old: before,
			}
			refused := refusals(t, write)
			require.Len(t, refused, len(a.refused), refused)
			for i, text := range a.refused {
				assert.Contains(t, refused[i], text)
			}
			write.by = &user.DefaultInfo{Name: "system:serviceaccount:shop:till"}
			assert.Contains(t, strings.Join(refusals(t, write), ""), "NoIdentity: ", "a token that is bound to no pod")
		})
	}
}

func TestAgentWritesOnlyTheStatusOfItsOwnPod(t *testing.T) {
	own := gatedPod("web")
	own.Status.Conditions = []corev1.PodCondition{{Type: "Initialized", Status: "True"}}
	for what, test := range map[string]struct {
		change func(*corev1.Pod)
		reason string
	}{
		"another pod's condition":              {showing(own.Status.Conditions[0], ready("Holding", "a")), ""},
		"read another pod by changing nothing": {func(*corev1.Pod) {}, ""},
		"another pod's label":                  {func(pod *corev1.Pod) { pod.Labels[api.RoleLabel] = api.RoleHolder }, ""},
		"a label of its own that is not ours":  {func(pod *corev1.Pod) { pod.Labels["app"] = "other" }, "NotYours: "},
		"an annotation of its own, not ours":   {func(pod *corev1.Pod) { pod.Annotations["a"] = "b" }, "NotYours: "},
		"a condition of its own, not ours":     {showing(corev1.PodCondition{Type: "Initialized", Status: "False"}), "NotYours: "},
		"the rest of its own status":           {func(pod *corev1.Pod) { pod.Status.Message = "hello" }, "NotYours: "},
		"finalizers of its own":                {func(pod *corev1.Pod) { pod.Finalizers = []string{"a.b/c"} }, "NotYours: "},
		"a shard's label that is no number":    {func(pod *corev1.Pod) { pod.Labels[api.ShardLabel] = "x" }, "NotYours: "},
	} {
		of := func(name string, uid types.UID) []string {
			changed := own.DeepCopy()
			test.change(changed)
			return refusals(t, request{
				by: pod(name, string(uid)), may: isAgent, resource: podResource, subresource: "status", in: namespace(shop, true), object: changed, old: own,
			})
		}
		refused := of(own.Name, own.UID)
		if test.reason == "" {
			assert.Empty(t, refused, what)
		} else {
			require.Len(t, refused, 1, what)
			assert.Contains(t, refused[0], "metaparticle-status: "+test.reason, what)
		}
		for name, uid := range map[string]types.UID{"other": own.UID, own.Name: "2", "": ""} {
			assert.Contains(t, strings.Join(of(name, uid), ""), "metaparticle-status: NotYourself: a pod changes only its own status", what)
		}
	}
	for what, change := range map[string]func(*corev1.Event){
		"an Event about another pod": func(e *corev1.Event) { e.InvolvedObject.Name = "web-1" },
		"an earlier pod of the name": func(e *corev1.Event) { e.InvolvedObject.UID = "2" },
		"another kind of object":     func(e *corev1.Event) { e.InvolvedObject.Kind = "Deployment" },
	} {
		refused := reported(t, change)
		require.Len(t, refused, 1, what)
		assert.Contains(t, refused[0], "metaparticle-events: NotYourself: ", what)
	}
}

// Only enroll writes stamps, whatever the rights of the user.
func TestOnlyEnrollStampsLeases(t *testing.T) {
	stamped := func(stamp string) *coordinationv1.Lease {
		l := lease("true")
		l.Name, l.Spec.HolderIdentity, l.Annotations = "shards.job.count.0", nil, map[string]string{api.StampAnnotation: stamp}
		if stamp == "" {
			l.Annotations = nil
		}
		return l
	}
	for what, test := range map[string]struct {
		before, after string
		refused       bool
	}{
		"a stamp": {"", "1/3", true}, "another stamp": {"1/3", "1/4", true}, "a later run": {"1/3", "2/3", true}, "no stamp any more": {"1/3", "", true},
		"the same stamp": {"1/3", "1/3", false}, "none": {"", "", false},
	} {
		for _, by := range []user.Info{&user.DefaultInfo{Name: "person"}, &user.DefaultInfo{Name: "admin", Groups: []string{user.SystemPrivilegedGroup}}, webhookAccount} {
			write := request{by: by, resource: coordinationv1.SchemeGroupVersion.WithResource("leases"), in: namespace(shop, true), object: stamped(test.after), old: stamped(test.before)}
			create := write
			create.old = nil
			refused, made := refusals(t, write), refusals(t, create)
			if by == webhookAccount || !test.refused {
				assert.Empty(t, refused, "%s by %s", what, by.GetName())
				continue
			}
			require.Len(t, refused, 1, "%s by %s", what, by.GetName())
			assert.Contains(t, refused[0], "metaparticle-stamp: EnrollStamps: ")
			assert.Equal(t, test.after != "", len(made) == 1, "a Lease with %q is made by %s: %v", test.after, by.GetName(), made)
		}
	}
}
