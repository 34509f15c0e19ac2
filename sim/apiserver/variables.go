// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"cmp"
	"encoding/json"
	"math/rand/v2"
	"strconv"

	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/sim/engine"
)

// Variables are the Variables in the API server. Variables have a separate random source and a
// separate sequence of resourceVersions. So a write of a Variable changes no draw and no
// resourceVersion of other objects.
type Variables struct {
	rng *rand.Rand
	rv  int64
	of  map[string]*kube.Variable
	// gone has the last state of each deleted Variable, as a watch shows it.
	gone map[string]*kube.Variable
	// stored is called at each stored write of a Variable.
	stored func(name string, v *Variable)
	// changed is a channel. Each change of a Variable closes this channel and makes a new channel.
	changed chan struct{}
	// Repeated has, for each Variable, the name of the last write whose PUT arrived twice.
	Repeated map[string]string
}

// Variable is the part of a stored Variable that the checks read.
type Variable struct {
	Integer *int64
	Fence   *Fence
	Write   string
	Keyed   int64
}

// Fence names the hold under which a Variable was written.
type Fence struct {
	Lock         string
	Epoch, Token int64
}

// NewVariables returns Variables of the names. At each stored write of a Variable the function
// "stored" is called.
func NewVariables(e *engine.Engine, names []string, stored func(name string, v *Variable)) *Variables {
	v := &Variables{
		rng: e.Source("variables"), rv: 990, of: map[string]*kube.Variable{}, gone: map[string]*kube.Variable{}, stored: stored, changed: make(chan struct{}),
		Repeated: map[string]string{},
	}
	for i, name := range names {
		v.rv++
		v.of[name] = &kube.Variable{Name: name, UID: "variable-" + strconv.Itoa(i), ResourceVersion: text(v.rv)}
	}
	return v
}

// Integer returns the integer of the named Variable.
func (v *Variables) Integer(name string) int64 {
	if n := v.of[name].Integer; n != nil {
		return *n
	}
	return 0
}

// put stores the Variable as the API server does. By the schema's rules, the method refuses a write
// that removes the fence, changes the lock of the fence, or has an older fence.
func (v *Variables) put(next *kube.Variable) (*kube.Variable, error) {
	before := v.of[next.Name]
	if before == nil {
		return nil, Status(404, "NotFound", next.Name)
	}
	if next.UID != before.UID || next.ResourceVersion != before.ResourceVersion {
		return nil, Status(409, "Conflict", "another resourceVersion")
	}
	if f := before.Fence; f != nil {
		switch n := next.Fence; {
		case n == nil || n.Lock != f.Lock, cmp.Or(cmp.Compare(n.Epoch, f.Epoch), cmp.Compare(n.Token, f.Token)) < 0:
			return nil, Status(422, "Invalid", "FencedOff")
		}
	}
	return v.store(next), nil
}

// store stores the Variable with the next resourceVersion.
func (v *Variables) store(next *kube.Variable) *kube.Variable {
	v.rv += step(v.rng)
	stored := next.Clone()
	stored.ResourceVersion = text(v.rv)
	v.of[next.Name] = stored
	var is struct{ Spec Variable }
	engine.Must(json.Unmarshal(Encode(stored), &is))
	v.stored(next.Name, &is.Spec)
	v.wake()
	return stored.Clone()
}

// remove deletes the Variable.
func (v *Variables) remove(name string) {
	v.rv += step(v.rng)
	v.gone[name] = &kube.Variable{Name: name, UID: v.of[name].UID, ResourceVersion: text(v.rv)}
	delete(v.of, name)
	v.wake()
}

func (v *Variables) wake() {
	close(v.changed)
	v.changed = make(chan struct{})
}

// get returns a copy of the Variable, or nil.
func (v *Variables) get(name string) *kube.Variable {
	if now := v.of[name]; now != nil {
		return now.Clone()
	}
	return nil
}
