// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package rights

import (
	"context"
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	authenticationv1 "k8s.io/api/authentication/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/retry"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/app"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/cluster"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/lease"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/space"
)

// as returns a client with the rights of a pod. The client uses a service account token that is
// bound to the pod, as the pod's agent and application do.
func as(s *space.Space, pod *corev1.Pod) kubernetes.Interface {
	s.Helper()
	return asAccount(s, pod.Namespace, pod.Spec.ServiceAccountName,
		&authenticationv1.BoundObjectReference{Kind: "Pod", APIVersion: "v1", Name: pod.Name, UID: pod.UID})
}

// asAccount returns a client with a new service account token. The token is bound to an
// object, or to none.
func asAccount(s *space.Space, namespace, account string, bound *authenticationv1.BoundObjectReference) kubernetes.Interface {
	s.Helper()
	request, err := s.Client.CoreV1().ServiceAccounts(namespace).CreateToken(s.Context(), account,
		&authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{BoundObjectRef: bound}}, metav1.CreateOptions{})
	require.NoError(s, err)
	config := rest.AnonymousClientConfig(cluster.Config)
	config.BearerToken = request.Status.Token
	client, err := kubernetes.NewForConfig(config)
	require.NoError(s, err)
	return client
}

// rights has a standby's client, and the pods and Leases that the standby attacks.
type rights struct {
	*space.Space
	client          kubernetes.Interface
	holder, standby *corev1.Pod
	slot, foreign   string
	// elsewhere is another namespace, which also has a Lease with the name in the field "slot".
	elsewhere *space.Space
}

func TestPodsAccountHasOnlyTheAgentsRights(t *testing.T) {
	cluster.NeedLab(t, "it needs the record")
	t.Parallel()
	s, elsewhere := space.New(t), space.New(t)
	a, other := app.Lasting("rights"), app.Lasting("foreign")
	other.Replicas = 1
	other.Edit = func(template *corev1.PodTemplateSpec) { template.Spec.ServiceAccountName = "foreign" }
	_, err := s.Client.CoreV1().ServiceAccounts(s.Namespace).
		Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "foreign"}}, metav1.CreateOptions{})
	require.NoError(t, err)
	app.Deploy(s, a)
	app.Deploy(s, other)
	single := a
	single.Replicas = 1
	app.Deploy(elsewhere, single)
	r := rights{Space: s, slot: lease.OfDeployment(a.Name), foreign: lease.OfDeployment(other.Name), elsewhere: elsewhere}
	r.holder = s.AwaitHolder(r.slot)
	for _, pod := range s.Pods(a.Name) {
		if pod.Name != r.holder.Name {
			r.standby = pod
		}
	}
	r.client = as(s, r.standby)
	t.Run("speaks in its own next Lease", r.speaks)
	for name, test := range r.attempts() {
		t.Run(name, func(t *testing.T) {
			// The holder may renew the Lease between the read and the write of an attempt. So the
			// test repeats the attempt after a conflict.
			err := retry.RetryOnConflict(retry.DefaultBackoff, func() error { return test.attempt(t.Context()) })
			require.Error(t, err)
			assert.True(t, apierrors.IsForbidden(err), "%v", err)
			assert.ErrorContains(t, err, test.message)
		})
	}
	before := app.AwaitRunning(s, a, space.Soon)
	assert.Equal(t, r.holder.Name, before.Pod, "nothing came of it")
}

// speaks checks that a standby may write its wish, and its answers, into the next Lease. The holder can
// read the word, but cannot withdraw the standby's name, nor speak for the standby.
func (r rights) speaks(t *testing.T) {
	next, me := api.NextLease(r.slot), api.Identity(r.standby.Name, string(r.standby.UID))
	text := func(word api.Word) string {
		word.Identity, word.To = me, "h1.7"
		return api.Words{word}.String()
	}
	say := func(by rights, text string) error {
		return retry.RetryOnConflict(retry.DefaultBackoff, func() error { return by.word(next, api.WordsAnnotation, text)(t.Context()) })
	}
	for _, word := range []api.Word{
		{Say: api.WantsNewer, Revision: api.Revision{Workload: "w", Number: 2, Hash: "x"}}, {Say: api.Takes}, {Say: api.Prepared},
	} {
		require.NoError(t, say(r, text(word)))
	}
	holder := rights{Space: r.Space, client: as(r.Space, r.holder), standby: r.holder}
	said, err := holder.client.CoordinationV1().Leases(r.Namespace).Get(t.Context(), next, metav1.GetOptions{})
	require.NoError(t, err)
	assert.Equal(t, text(api.Word{Say: api.Prepared}), said.Annotations[api.WordsAnnotation])
	assert.Equal(t, me, space.IdentityOf(said))
	assert.ErrorContains(t, write(t.Context(), holder.client, r.Namespace, next, ""), "NotYourIdentity")
	assert.ErrorContains(t, say(holder, text(api.Word{Say: api.Stays})), "NotYourIdentity")
	require.NoError(t, say(r, ""))
	assert.NoError(t, write(t.Context(), r.client, r.Namespace, next, ""), "the standby withdraws its name")
}

// write writes an identity into a Lease, with the rights of the client, and removes the given
// annotations. The administrator's client reads the Lease first.
func write(ctx context.Context, client kubernetes.Interface, namespace, slot, identity string, remove ...string) error {
	lease, err := cluster.Client.CoordinationV1().Leases(namespace).Get(ctx, slot, metav1.GetOptions{})
	if err != nil {
		return err
	}
	lease.Spec.HolderIdentity = &identity
	for _, key := range remove {
		delete(lease.Annotations, key)
	}
	_, err = client.CoordinationV1().Leases(namespace).Update(ctx, lease, metav1.UpdateOptions{})
	return err
}

// attempt has a forbidden request, and a text that the refusal must contain.
type attempt struct {
	attempt func(context.Context) error
	message string
}

// attempts lists requests that a pod must not make: each right that its Role lacks, and one request for each
// policy. Package test/policies evaluates many more requests by the same policies.
func (r rights) attempts() map[string]attempt {
	me, ghost := api.Identity(r.standby.Name, string(r.standby.UID)), api.Identity("ghost", "1")
	identity := func(namespace, slot, identity string, remove ...string) func(context.Context) error {
		return func(ctx context.Context) error { return write(ctx, r.client, namespace, slot, identity, remove...) }
	}
	status := func(namespace string, pod *corev1.Pod, patch string) func(context.Context) error {
		return func(ctx context.Context) error {
			_, err := r.client.CoreV1().Pods(namespace).Patch(ctx, pod.Name, types.StrategicMergePatchType, []byte(patch),
				metav1.PatchOptions{}, "status")
			return err
		}
	}
	ready := fmt.Sprintf(`{"status":{"conditions":[{"type":%q,"status":"True"}]}}`, api.ReadyCondition)
	const notYours, none = "NotYours", "cannot"
	return map[string]attempt{
		"take a slot in another's name":       {identity(r.Namespace, r.slot, ghost, api.HoldAnnotation, api.BootAnnotation), "NotYourIdentity"},
		"take a slot and keep its hold":       {identity(r.Namespace, r.slot, ghost), "denied request"}, // by two policies, in any order
		"a Lease that is not its workload's":  {identity(r.Namespace, r.foreign, me), none},
		"a Lease of another namespace":        {identity(r.elsewhere.Namespace, r.slot, me), none},
		"a word with another's name":          {identity(r.Namespace, api.NextLease(r.slot), ghost), "NotYourIdentity"},
		"a word in another's name":            {r.word(api.NextLease(r.slot), api.WordsAnnotation, "takes:"+ghost+":h1.7"), "NotYourIdentity"},
		"a word to another workload's holder": {identity(r.Namespace, api.NextLease(r.foreign), me), none},
		"delete a Lease":                      {r.deleteLease, none},
		"create a Lease":                      {r.createLease, none},
		"list Leases":                         {r.listLeases, none},
		"read pods":                           {r.readPods, none},
		"another pod's condition":             {status(r.Namespace, r.holder, ready), "NotYourself"},
		"another namespace's pod":             {status(r.elsewhere.Namespace, r.elsewhere.Pods("rights")[0], ready), none},
		"a label of its own that is not ours": {status(r.Namespace, r.standby, `{"metadata":{"labels":{"app":"other"}}}`), notYours},
		"finalizers of its own":               {status(r.Namespace, r.standby, `{"metadata":{"finalizers":["a.b/c"]}}`), ""},
		"an Event about another pod":          {r.event(r.holder), "NotYourself"},
		"a Secret, a Role, another's token":   {r.readSecrets, none},
		"the spec of itself":                  {r.patchSelf, none},
		"apply its own status":                {r.applySelf, "an agent applies no pod"},
	}
}

// event returns a request that creates an Event about a pod.
func (r rights) event(about *corev1.Pod) func(context.Context) error {
	return func(ctx context.Context) error {
		event := &corev1.Event{
			ObjectMeta:     metav1.ObjectMeta{GenerateName: "rights.", Namespace: r.Namespace},
			InvolvedObject: corev1.ObjectReference{APIVersion: "v1", Kind: "Pod", Namespace: r.Namespace, Name: about.Name, UID: about.UID},
			Reason:         "Test", Message: "hello", Type: corev1.EventTypeNormal,
		}
		_, err := r.client.CoreV1().Events(r.Namespace).Create(ctx, event, metav1.CreateOptions{})
		return err
	}
}

func (r rights) deleteLease(ctx context.Context) error {
	return r.client.CoordinationV1().Leases(r.Namespace).Delete(ctx, r.slot, metav1.DeleteOptions{})
}

func (r rights) createLease(ctx context.Context) error {
	lease := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: "new"}}
	_, err := r.client.CoordinationV1().Leases(r.Namespace).Create(ctx, lease, metav1.CreateOptions{})
	return err
}

func (r rights) listLeases(ctx context.Context) error {
	_, err := r.client.CoordinationV1().Leases(r.Namespace).List(ctx, metav1.ListOptions{})
	return err
}

func (r rights) readPods(ctx context.Context) error {
	_, err := r.client.CoreV1().Pods(r.Namespace).Get(ctx, r.holder.Name, metav1.GetOptions{})
	return err
}

func (r rights) readSecrets(ctx context.Context) error {
	_, err := r.client.CoreV1().Secrets(r.Namespace).List(ctx, metav1.ListOptions{})
	return err
}

func (r rights) patchSelf(ctx context.Context) error {
	_, err := r.client.CoreV1().Pods(r.Namespace).Patch(ctx, r.standby.Name, types.MergePatchType,
		[]byte(`{"metadata":{"labels":{"app":"other"}}}`), metav1.PatchOptions{})
	return err
}

// applySelf writes the pod's own status by server-side apply, as another field manager.
func (r rights) applySelf(ctx context.Context) error {
	own := fmt.Sprintf(`{"apiVersion":"v1","kind":"Pod","status":{"conditions":[{"type":%q,"status":"False"}]}}`, api.ReadyCondition)
	_, err := r.client.CoreV1().Pods(r.Namespace).Patch(ctx, r.standby.Name, types.ApplyPatchType, []byte(own),
		metav1.PatchOptions{FieldManager: "thief", Force: new(true)}, "status")
	return err
}

// word returns a request that writes an annotation into a Lease, and makes the standby the holder
// of the Lease.
func (r rights) word(slot, key, value string) func(context.Context) error {
	return func(ctx context.Context) error {
		lease, err := cluster.Client.CoordinationV1().Leases(r.Namespace).Get(ctx, slot, metav1.GetOptions{})
		if err != nil {
			return err
		}
		lease.Spec.HolderIdentity = new(api.Identity(r.standby.Name, string(r.standby.UID)))
		metav1.SetMetaDataAnnotation(&lease.ObjectMeta, key, value)
		_, err = r.client.CoordinationV1().Leases(r.Namespace).Update(ctx, lease, metav1.UpdateOptions{})
		return err
	}
}
