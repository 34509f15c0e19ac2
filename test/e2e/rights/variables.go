// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package rights

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/app"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/space"
)

// object is a Variable as JSON.
type object = map[string]any

// variables sends requests for the Variables of a namespace, with the rights of the client.
type variables struct {
	*space.Space
	client kubernetes.Interface
}

// send sends a request with the body, and returns the object of the answer.
func (v variables) send(method, name string, kind types.PatchType, body any, query ...string) (answer object, err error) {
	v.Helper()
	path := "/apis/" + api.VariableGroup + "/" + api.VariableVersion + "/namespaces/" + v.Namespace + "/" + api.VariableResource
	request := v.client.CoreV1().RESTClient().Verb(method).AbsPath(strings.TrimSuffix(path+"/"+name, "/")).SetHeader("Content-Type", string(kind))
	for i := 0; i < len(query); i += 2 {
		request = request.Param(query[i], query[i+1])
	}
	if body != nil {
		text, err := json.Marshal(body)
		require.NoError(v, err)
		request = request.Body(text)
	}
	result := request.Do(v.Context())
	if err := result.Error(); err != nil {
		return nil, err
	}
	raw, err := result.Raw()
	require.NoError(v, err)
	require.NoError(v, json.Unmarshal(raw, &answer))
	return answer, nil
}

const (
	plainJSON = types.PatchType("application/json")
	apply     = types.PatchType("application/apply-patch+yaml")
)

// create creates a Variable with the spec.
func (v variables) create(name string, spec object) error {
	v.Helper()
	_, err := v.send(http.MethodPost, "", plainJSON, object{
		"apiVersion": api.VariableGroup + "/" + api.VariableVersion, "kind": api.VariableKind,
		"metadata": object{"name": name}, "spec": spec,
	})
	return err
}

// merge patches the spec of a Variable.
func (v variables) merge(name string, spec object) error {
	v.Helper()
	_, err := v.send(http.MethodPatch, name, types.MergePatchType, object{"spec": spec})
	return err
}

// put reads a Variable, changes its spec, and replaces the Variable.
func (v variables) put(name string, change func(of, spec object)) error {
	v.Helper()
	of, err := variables{v.Space, v.Client}.send(http.MethodGet, name, plainJSON, nil)
	require.NoError(v, err)
	change(of, of["spec"].(object))
	_, err = v.send(http.MethodPut, name, plainJSON, of)
	return err
}

// fenced returns the fence of a Variable's spec, as JSON.
func fenced(lock string, epoch, token int) object {
	return object{"lock": lock, "epoch": epoch, "token": token}
}

// The first process stands still for a while, and writes after the second process. The API server
// refuses the late write as a PUT, as a patch and as an apply.
func TestVariableRefusesLateWriteWithSmallerToken(t *testing.T) {
	t.Parallel()
	s := space.New(t)
	v := variables{s, s.Client}
	require.NoError(t, v.create("ledger", object{}))
	require.NoError(t, v.merge("ledger", object{"value": "first", "fence": fenced("lock.a", 1, 10)}))
	require.NoError(t, v.merge("ledger", object{"value": "second", "fence": fenced("lock.a", 1, 20)}))
	paused := object{"value": "late", "fence": fenced("lock.a", 1, 10)}
	for kind, write := range map[string]func(spec object) error{
		"PUT": func(spec object) error {
			return v.put("ledger", func(_, of object) { of["value"], of["fence"] = spec["value"], spec["fence"] })
		},
		"merge patch": func(spec object) error { return v.merge("ledger", spec) },
		"JSON patch": func(spec object) error {
			_, err := v.send(http.MethodPatch, "ledger", types.JSONPatchType, []object{
				{"op": "replace", "path": "/spec/value", "value": spec["value"]}, {"op": "replace", "path": "/spec/fence", "value": spec["fence"]},
			})
			return err
		},
		"server-side apply": func(spec object) error {
			_, err := v.send(http.MethodPatch, "ledger", apply, object{
				"apiVersion": api.VariableGroup + "/" + api.VariableVersion, "kind": api.VariableKind,
				"metadata": object{"name": "ledger"}, "spec": spec,
			}, "fieldManager", "paused", "force", "true")
			return err
		},
	} {
		err := write(paused)
		assert.True(t, apierrors.IsInvalid(err), "%s: %v", kind, err)
		assert.ErrorContains(t, err, "FencedOff: ", kind)
		assert.NoError(t, write(object{"value": kind, "fence": fenced("lock.a", 1, 20)}), "%s with the same token", kind)
	}
	require.NoError(t, v.merge("ledger", object{"fence": fenced("lock.a", 2, 3)}), "a larger epoch begins with any token")
	assert.ErrorContains(t, v.merge("ledger", object{"fence": fenced("lock.a", 1, 99)}), "FencedOff: ")
}

func TestAgentMayNotImpersonateOtherPodsInVariables(t *testing.T) {
	t.Parallel()
	s := space.New(t)
	admin := variables{s, s.Client}
	require.NoError(t, admin.create("other", object{}))
	pod, err := s.Client.CoreV1().Pods(s.Namespace).Create(t.Context(),
		app.Bare(s, "writer", map[string]string{api.LocalAnnotation: "lock/a, variable/hits"}), metav1.CreateOptions{})
	require.NoError(t, err)
	assert.Equal(t, "lock.a,variable.hits", pod.Annotations[api.SlotsAnnotation])
	v := variables{s, as(s, pod)}
	s.Await(space.StartTimeout, "the pod may read", func() bool {
		_, err := v.send(http.MethodGet, "hits", plainJSON, nil)
		return err == nil
	})
	mine := string(pod.UID) + ".1"
	key := object{"key": "k", "add": 1, "result": 1, "pod": string(pod.UID), "at": 1}
	require.NoError(t, v.put("hits", func(_, spec object) {
		spec["integer"], spec["write"], spec["keyed"], spec["keys"] = 1, mine, 1, []object{key}
	}))
	set := func(field string, value any) func(of, spec object) {
		return func(_, spec object) { spec["write"], spec[field] = mine, value }
	}
	require.ErrorContains(t, v.put("hits", set("fence", fenced("lock.b", 1, 99))), "NotYourLock: ")
	s.Await(space.StartTimeout, "the pod may write under its lock", func() bool {
		return v.put("hits", func(_, spec object) { spec["fence"] = fenced("lock.a", 1, 10) }) == nil
	})
	assert.ErrorContains(t, v.put("hits", set("write", "other.1")), "NotYourIdentity: ")
	free := variables{s, asAccount(s, s.Namespace, pod.Spec.ServiceAccountName, nil)}
	assert.ErrorContains(t, free.put("hits", set("integer", 2)), "NoIdentity: ")
	_, listed := v.send(http.MethodGet, "", plainJSON, nil)
	_, deleted := v.send(http.MethodDelete, "hits", plainJSON, nil)
	_, read := v.send(http.MethodGet, "other", plainJSON, nil)
	for what, err := range map[string]error{
		"create": v.create("mine", object{}), "list": listed, "delete": deleted, "read another": read, "patch": v.merge("hits", object{"integer": 7}),
		"write another": v.put("other", set("integer", 7)),
	} {
		assert.True(t, apierrors.IsForbidden(err), "%s: %v", what, err)
	}
	// No part of Metaparticle deletes a Variable, even after the last pod that may write the
	// Variable is gone.
	require.NoError(t, s.Client.CoreV1().Pods(s.Namespace).Delete(t.Context(), pod.Name, metav1.DeleteOptions{GracePeriodSeconds: new(int64)}))
	s.Await(space.StartTimeout, "the account has no right any more", func() bool {
		roles, err := s.Client.RbacV1().Roles(s.Namespace).List(t.Context(), metav1.ListOptions{})
		require.NoError(t, err)
		for _, role := range roles.Items {
			if strings.HasPrefix(role.Name, "metaparticle-variable:") {
				return false
			}
		}
		return true
	})
	left, err := admin.send(http.MethodGet, "hits", plainJSON, nil)
	require.NoError(t, err)
	assert.EqualValues(t, 1, left["spec"].(object)["integer"])
}

func TestWebhookAccountMayOnlyCreateEmptyVariables(t *testing.T) {
	t.Parallel()
	s := space.New(t)
	admin := variables{s, s.Client}
	v := variables{s, asAccount(s, "metaparticle-system", "metaparticle-webhook", nil)}
	require.NoError(t, v.create("empty", object{}))
	require.NoError(t, admin.create("hits", object{"integer": 7}))
	assert.ErrorContains(t, v.create("full", object{"integer": 7}), "NotYours: enroll creates Variables without a value")
	assert.ErrorContains(t, v.put("hits", func(_, spec object) { spec["integer"] = 8 }), "NotYours: enroll creates Variables without a value")
	_, deleted := v.send(http.MethodDelete, "hits", plainJSON, nil)
	for what, err := range map[string]error{"delete": deleted, "patch": v.merge("hits", object{"integer": 8})} {
		assert.True(t, apierrors.IsForbidden(err), "%s: %v", what, err)
	}
}
