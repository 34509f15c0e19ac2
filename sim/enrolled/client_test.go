// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package enrolled

import (
	"context"
	"encoding/json"
	"errors"
	"reflect"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	cachepkg "sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/enroll"
	"github.com/metaparticle-io/metaparticle/sim/world"
)

// kubeClient is controller-runtime's client of the simulated API server. The client has
// the methods that enroll uses, and panics in all other methods.
type kubeClient struct {
	client.Client
	to *world.Enroller
	// cached reports that the client reads from a cache, which may be behind the API server.
	cached bool
}

// kindOf returns the kind of an object, or of the items of a list.
func kindOf(o any) string {
	return strings.TrimSuffix(reflect.TypeOf(o).Elem().Name(), "List")
}

// Get implements client.Reader.
func (k *kubeClient) Get(ctx context.Context, at client.ObjectKey, into client.Object, _ ...client.GetOption) error {
	kind := kindOf(into)
	if kind == "Namespace" {
		into.SetName(at.Name)
		if !k.to.OptedOut() {
			into.SetLabels(map[string]string{api.InjectionLabel: api.InjectionEnabled})
		}
		return nil
	}
	if k.cached {
		raw, err := k.to.Cached(kind, at.Name)
		if err != nil {
			return translate(kind, at.Name, err)
		}
		if err := json.Unmarshal(raw, into); err != nil {
			return err
		}
		return stripped(into)
	}
	raw, err := k.to.Get(ctx, kind, at.Name)
	if err != nil {
		return translate(kind, at.Name, err)
	}
	return json.Unmarshal(raw, into)
}

// List implements client.Reader.
func (k *kubeClient) List(ctx context.Context, into client.ObjectList, opts ...client.ListOption) error {
	var options client.ListOptions
	options.ApplyOptions(opts)
	selects := func(set map[string]string) bool {
		return options.LabelSelector == nil || options.LabelSelector.Matches(labels.Set(set))
	}
	kind := kindOf(into)
	if k.cached {
		raw, err := k.to.ListCached(kind, selects)
		if err != nil {
			return err
		}
		if err := json.Unmarshal(raw, into); err != nil {
			return err
		}
		return apimeta.EachListItem(into, stripped)
	}
	raw, err := k.to.List(ctx, kind, selects)
	if err != nil {
		return translate(kind, "", err)
	}
	return json.Unmarshal(raw, into)
}

// stripped drops from an object the fields that the manager's cache drops, too.
func stripped(o runtime.Object) error {
	for of, by := range transforms {
		if reflect.TypeOf(of) == reflect.TypeOf(o) && by.Transform != nil {
			_, err := by.Transform(o)
			return err
		}
	}
	return nil
}

// transforms has the functions by which the manager's cache drops fields.
var transforms = func() map[client.Object]cachepkg.ByObject {
	all, err := enroll.Cache()
	if err != nil {
		panic(err)
	}
	return all
}()

// Create implements client.Writer.
func (k *kubeClient) Create(ctx context.Context, o client.Object, _ ...client.CreateOption) error {
	return k.write(ctx, o, k.to.Create)
}

// Update implements client.Writer.
func (k *kubeClient) Update(ctx context.Context, o client.Object, _ ...client.UpdateOption) error {
	return k.write(ctx, o, k.to.Update)
}

// write sends an object, and overwrites it with the object that the server has stored.
func (k *kubeClient) write(ctx context.Context, o client.Object,
	send func(ctx context.Context, kind, name string, body []byte) ([]byte, error),
) error {
	body, err := json.Marshal(o)
	if err != nil {
		return err
	}
	raw, err := send(ctx, kindOf(o), o.GetName(), body)
	if err != nil {
		return translate(kindOf(o), o.GetName(), err)
	}
	return json.Unmarshal(raw, o)
}

// Delete implements client.Writer.
func (k *kubeClient) Delete(ctx context.Context, o client.Object, opts ...client.DeleteOption) error {
	var options client.DeleteOptions
	options.ApplyOptions(opts)
	uid, rv := "", ""
	if p := options.Preconditions; p != nil {
		if p.UID != nil {
			uid = string(*p.UID)
		}
		if p.ResourceVersion != nil {
			rv = *p.ResourceVersion
		}
	}
	kind, name := kindOf(o), o.GetName()
	return translate(kind, name, k.to.Delete(ctx, kind, name, uid, rv))
}

// translate converts errors of the simulated server to errors of client-go.
func translate(kind, name string, err error) error {
	var s *kube.StatusError
	if !errors.As(err, &s) {
		return err
	}
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: int32(s.Code), Reason: metav1.StatusReason(s.Reason),
		Message: kind + " " + name + ": " + s.Message,
	}}
}
