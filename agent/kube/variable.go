// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"

	"github.com/metaparticle-io/metaparticle/api"
)

// Variable is a metaparticle.io Variable. Variable keeps the fields that it does not declare, and
// writes them back unchanged, except for managedFields.
type Variable struct {
	Name            string
	UID             string
	ResourceVersion string

	// Value is the Variable's text. Integer is the Variable's integer. At most one of the two is
	// set; both are nil in a new Variable.
	Value   *string
	Integer *int64
	// Fence names the hold under which an agent last wrote the Variable; nil for none.
	Fence *Fence
	// Write is the id of the last write of an agent.
	Write string
	// Keyed is the number of all adds that had an idempotency key. Keys has the records of the
	// latest of these adds.
	Keyed int64
	Keys  []Key

	// raw, metadata and spec contain the object as it was read. They never
	// change, so clones share them.
	raw, metadata, spec object
}

// Fence names a hold by its lock and a token. After a restore of the cluster, tokens may begin anew
// under a higher epoch. Within an epoch, a later hold of the same lock has a larger token.
type Fence struct {
	Lock  string `json:"lock"`
	Epoch int64  `json:"epoch"`
	Token int64  `json:"token"`
}

// Key is the record of one add with an idempotency key.
type Key struct {
	Key    string `json:"key"`
	Add    int64  `json:"add"`
	Result int64  `json:"result"`
	// Pod is the uid of the pod that made this add. The field "At" is the value of
	// [Variable.Keyed] after this add.
	Pod string `json:"pod"`
	At  int64  `json:"at"`
}

// Clone returns a copy that can be changed without changing the original.
func (v *Variable) Clone() *Variable {
	clone := *v
	if v.Value != nil {
		clone.Value = new(*v.Value)
	}
	if v.Integer != nil {
		clone.Integer = new(*v.Integer)
	}
	if v.Fence != nil {
		clone.Fence = new(*v.Fence)
	}
	clone.Keys = slices.Clone(v.Keys)
	return &clone
}

// UnmarshalJSON decodes a Variable from the API server.
func (v *Variable) UnmarshalJSON(data []byte) error {
	var of Variable
	r := reader{of: "variable"}
	of.raw = r.whole(data)
	r.read(of.raw, "metadata", &of.metadata)
	r.read(of.raw, "spec", &of.spec)
	r.read(of.metadata, "name", &of.Name)
	r.read(of.metadata, "uid", &of.UID)
	r.read(of.metadata, "resourceVersion", &of.ResourceVersion)
	r.read(of.spec, "value", &of.Value)
	r.read(of.spec, "integer", &of.Integer)
	r.read(of.spec, "fence", &of.Fence)
	r.read(of.spec, "write", &of.Write)
	r.read(of.spec, "keyed", &of.Keyed)
	r.read(of.spec, "keys", &of.Keys)
	if r.err != nil {
		return r.err
	}
	*v = of
	return nil
}

// MarshalJSON encodes the object as it was read, but with the present values of the fields of v.
func (v *Variable) MarshalJSON() ([]byte, error) {
	w := writer{}
	fields := map[string]any{
		"value": nil, "integer": nil, "fence": nil, "keys": nil,
		"write": unlessZero(v.Write), "keyed": unlessZero(v.Keyed),
	}
	if v.Value != nil {
		fields["value"] = *v.Value
	}
	if v.Integer != nil {
		fields["integer"] = *v.Integer
	}
	if v.Fence != nil {
		fields["fence"] = *v.Fence
	}
	if len(v.Keys) > 0 {
		fields["keys"] = v.Keys
	}
	whole := w.over(v.raw, map[string]any{
		"apiVersion": api.VariableGroup + "/" + api.VariableVersion,
		"kind":       api.VariableKind,
		"metadata": w.metadata(v.metadata, map[string]any{
			"name": unlessZero(v.Name), "uid": unlessZero(v.UID), "resourceVersion": unlessZero(v.ResourceVersion),
		}),
		"spec": w.over(v.spec, fields),
	})
	if w.err != nil {
		return nil, fmt.Errorf("variable: %w", w.err)
	}
	return json.Marshal(whole)
}

// decodeVariable decodes a Variable from the API server. A Variable with a name other than the
// argument "name" is an error. A Variable without a uid or a resourceVersion is also an error,
// because the agent could not write that Variable.
func decodeVariable(data []byte, name string) (*Variable, error) {
	v := new(Variable)
	if err := v.UnmarshalJSON(data); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	if v.Name != name || v.UID == "" || v.ResourceVersion == "" {
		return nil, fmt.Errorf("%w: variable %q without uid or resource version, or of another name", ErrMalformed, v.Name)
	}
	return v, nil
}

// GetVariable reads a Variable consistently: the answer is not older than the request.
func (c *Client) GetVariable(ctx context.Context, name string) (*Variable, error) {
	body, err := c.call(ctx, request{method: http.MethodGet, path: variablePath(c.config.Namespace, name)})
	if err != nil {
		return nil, fmt.Errorf("get variable %s: %w", name, err)
	}
	v, err := decodeVariable(body, name)
	if err != nil {
		return nil, fmt.Errorf("get variable %s: %w", name, err)
	}
	return v, nil
}

// UpdateVariable writes the Variable, and returns the stored Variable. If the Variable has
// changed since it was read, the API server refuses the write. [Refused] reports whether an
// error proves that the API server stored nothing.
func (c *Client) UpdateVariable(ctx context.Context, v *Variable) (*Variable, error) {
	stored, err := updateVariable(ctx, c, v)
	if err != nil {
		return nil, fmt.Errorf("update variable %s: %w", v.Name, err)
	}
	return stored, nil
}

func updateVariable(ctx context.Context, c *Client, v *Variable) (*Variable, error) {
	if v.UID == "" || v.ResourceVersion == "" {
		return nil, ErrNoUID
	}
	data, err := v.MarshalJSON()
	if err != nil {
		return nil, err
	}
	body, err := c.call(ctx, request{
		method: http.MethodPut, path: variablePath(c.config.Namespace, v.Name), contentType: "application/json", body: data,
	})
	if err != nil {
		return nil, err
	}
	stored, err := decodeVariable(body, v.Name)
	switch {
	case err != nil:
		return nil, err
	case stored.UID != v.UID:
		return nil, fmt.Errorf("%w: it is about uid %s", ErrMalformed, stored.UID)
	case stored.ResourceVersion == v.ResourceVersion:
		return nil, ErrUnchanged
	}
	return stored, nil
}

// WatchVariable calls fn with each event of the Variable after resourceVersion, oldest first, until
// the watch ends. The argument "gone" of fn reports that somebody has deleted the Variable.
// WatchVariable returns nil or [ErrGone] in the same cases as [Client.WatchLease].
func (c *Client) WatchVariable(ctx context.Context, name, resourceVersion string, fn func(v *Variable, gone bool)) error {
	err := c.watch(ctx, variablesPath(c.config.Namespace), name, resourceVersion, func(kind WatchType, object []byte) error {
		if kind != Added && kind != Modified && kind != Deleted {
			_, err := decodeBookmark(kind, object)
			return err
		}
		v, err := decodeVariable(object, name)
		if err == nil {
			fn(v, kind == Deleted)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("watch variable %s: %w", name, err)
	}
	return nil
}

func variablesPath(namespace string) string {
	return "/apis/" + api.VariableGroup + "/" + api.VariableVersion + "/namespaces/" + url.PathEscape(namespace) + "/" + api.VariableResource
}

func variablePath(namespace, name string) string {
	return variablesPath(namespace) + "/" + url.PathEscape(name)
}
