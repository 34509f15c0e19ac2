// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/sim/engine"
)

// Server is the API server, with the objects of one namespace. Its semantics are those
// of a real server, as far as the agent depends on them.
type Server struct {
	engine *engine.Engine
	rng    *rand.Rand
	// Weather has the faults of requests.
	Weather Weather
	// Latest bounds the time from the sending of a request to its arrival.
	Latest time.Duration
	// stored is called at each stored write of a Lease, before any watch shows the write.
	stored  func(by, lease string, sent time.Duration, before, after Version)
	rv      int64
	names   []string // the keys of all objects, deleted ones too, in the order of creation
	objects map[string]*Object
	changes []change // the stored changes, which watches read
	// compacted is the oldest version from which a watch can resume.
	compacted int64
	// Away reports that no packet reaches the server. [Server.GoDown] and [Server.ComeUp] set it.
	Away bool
	// lost reports that a person keeps the server stopped.
	lost    bool
	watches []*Watch
	// informed has the functions that [Server.Inform] calls.
	informed []func()
	rights   map[string]rights // the decoded Roles, by name
	// variables has the Variables; nil in a world without Variables.
	variables *variables
	// sent is the instant at which a client sent the last write of a Lease.
	sent time.Duration
}

// Object has all states that the object of one kind and name ever had. The last state is the
// current one.
type Object struct {
	kind, name string
	versions   []Version
}

// Version is one state of an object. A version without a body records that the object
// does not exist.
type Version struct {
	// At is the instant at which the server stored the state.
	At time.Duration
	// UID and RV are the uid and the resourceVersion of the object.
	UID string
	RV  int64
	// Body is the decoded JSON of the object, and Raw the encoded one.
	Body map[string]any
	Raw  []byte
	// canon is the body without the resourceVersion, for comparison.
	canon []byte
	// Lease is the decoded body, if the object is a Lease.
	Lease *kube.Lease
}

// change is one stored change, which the server sends to all watches of the object.
type change struct {
	rv   int64
	kind kube.WatchType
	name string
	raw  []byte
}

// New returns a server without objects, in fair weather. At each stored write of a Lease the
// server calls the function "stored". The argument "sent" of that function is the instant at which
// a client sent the last write of a Lease.
func New(e *engine.Engine, stored func(by, lease string, sent time.Duration, before, after Version)) *Server {
	// Fencing tokens are numbers. The first versions are below 1000, so a program that
	// compares tokens as text fails when the versions reach 1000.
	return &Server{
		engine: e, rng: e.Source("server"), Weather: Fair, Latest: latest, stored: stored,
		rv: 990, objects: map[string]*Object{}, rights: map[string]rights{},
	}
}

// Object returns the object of a key, without a state if the key is new.
func (s *Server) Object(kind, name string) *Object {
	key := kind + "/" + name
	o := s.objects[key]
	if o == nil {
		o = &Object{kind: kind, name: name}
		s.objects[key] = o
		s.names = append(s.names, key)
	}
	return o
}

// Last returns the current state.
func (o *Object) Last() Version {
	if len(o.versions) == 0 {
		return Version{}
	}
	return o.versions[len(o.versions)-1]
}

// AsOf returns the state at the instant; without a body if the object did not exist.
func (o *Object) AsOf(at time.Duration) Version {
	for _, v := range slices.Backward(o.versions) {
		if v.At <= at {
			return v
		}
	}
	return Version{}
}

// Since returns the state of the object at the instant, and all later states.
func (o *Object) Since(at time.Duration) []Version {
	later, _ := slices.BinarySearchFunc(o.versions, at+1, func(v Version, at time.Duration) int { return cmp.Compare(v.At, at) })
	return o.versions[max(0, later-1):]
}

// Get returns the current state of an object.
func (s *Server) Get(kind, name string) ([]byte, error) {
	v := s.Object(kind, name).Last()
	if v.Body == nil {
		return nil, Status(404, "NotFound", kind+" "+name)
	}
	return v.Raw, nil
}

// Exists reports whether the object exists.
func (s *Server) Exists(kind, name string) bool { return s.Object(kind, name).Last().Body != nil }

// Create stores a new object, and fails if the object exists.
func (s *Server) Create(by, kind, name string, raw []byte) ([]byte, error) {
	o := s.Object(kind, name)
	if o.Last().Body != nil {
		return nil, Status(409, "AlreadyExists", kind+" "+name)
	}
	return s.store(by, o, Decode(raw), fmt.Sprintf("uid-%d", s.engine.Number())), nil
}

// Put replaces an object as the real server does. The server compares the uid and the
// resourceVersion if the body names them. A body without a uid creates a missing Lease.
// A body that changes nothing is not stored.
func (s *Server) Put(by, kind, name string, raw []byte) ([]byte, error) {
	o, body := s.Object(kind, name), Decode(raw)
	before := o.Last()
	uid, rv := Meta(body, "uid"), Meta(body, "resourceVersion")
	switch {
	case before.Body == nil && kind == "Lease" && uid == "":
		return s.store(by, o, body, fmt.Sprintf("uid-%d", s.engine.Number())), nil
	case before.Body == nil && uid != "":
		return nil, Status(409, "Conflict", "uid of an object that is gone")
	case before.Body == nil:
		return nil, Status(404, "NotFound", kind+" "+name)
	case uid != "" && uid != before.UID:
		return nil, Status(409, "Conflict", "another uid")
	case rv != "" && rv != strconv.FormatInt(before.RV, 10):
		return nil, Status(409, "Conflict", "another resourceVersion")
	}
	Metadata(body)["uid"] = before.UID
	if bytes.Equal(canonical(body), before.canon) {
		return before.Raw, nil
	}
	return s.store(by, o, body, before.UID), nil
}

// Remove deletes the object if uid and resourceVersion match. An empty text matches any
// object.
func (s *Server) Remove(by, kind, name, uid, rv string) error {
	o := s.Object(kind, name)
	before := o.Last()
	switch {
	case before.Body == nil:
		return Status(404, "NotFound", kind+" "+name)
	case uid != "" && uid != before.UID, rv != "" && rv != strconv.FormatInt(before.RV, 10):
		return Status(409, "Conflict", "another object")
	}
	s.next()
	last := Decode(before.Raw)
	Metadata(last)["resourceVersion"] = strconv.FormatInt(s.rv, 10)
	o.versions = append(o.versions, Version{At: s.engine.Now(), RV: s.rv})
	s.engine.Note(by, "deletes %s %s", kind, name)
	s.changed(kube.Deleted, o, Encode(last))
	return nil
}

// store makes the body the current state of the object.
func (s *Server) store(by string, o *Object, body map[string]any, uid string) []byte {
	s.next()
	m := Metadata(body)
	m["uid"], m["resourceVersion"], m["name"] = uid, strconv.FormatInt(s.rv, 10), o.name
	before, how := o.Last(), kube.Modified
	if before.Body == nil {
		how = kube.Added
	}
	v := Version{At: s.engine.Now(), UID: uid, RV: s.rv, Body: body, canon: canonical(body), Raw: Encode(body)}
	if o.kind == "Lease" {
		v.Lease = LeaseFrom(v.Raw)
	}
	o.versions = append(o.versions, v)
	if o.kind == "Lease" {
		s.stored(by, o.name, s.sent, before, v)
	}
	s.changed(how, o, v.Raw)
	return v.Raw
}

// Subscribe lets [Server.Inform] call f.
func (s *Server) Subscribe(f func()) { s.informed = append(s.informed, f) }

// Inform reports a change to all subscribers.
func (s *Server) Inform() {
	for _, f := range s.informed {
		f()
	}
}

// next advances the resourceVersion. Other objects of the cluster use some versions up.
func (s *Server) next() { s.rv += 1 + int64(s.rng.IntN(3)) }

// changed reports a change to the watches and to the subscribers. An update of a Lease goes to the
// watches alone. The caller of [New] decides which of these updates the subscribers learn.
func (s *Server) changed(how kube.WatchType, o *Object, raw []byte) {
	if o.kind != "Lease" || how != kube.Modified {
		s.Inform()
	}
	if o.kind != "Lease" {
		return
	}
	c := change{rv: s.rv, kind: how, name: o.name, raw: raw}
	s.changes = append(s.changes, c)
	for _, watch := range s.watches {
		watch.offer(c)
	}
}

// GoDown makes the API server unreachable.
func (s *Server) GoDown() {
	s.engine.Note("API", "goes away")
	s.Away = true
	s.Severed()
}

// ComeUp makes the API server reachable again.
func (s *Server) ComeUp() {
	if s.Away && !s.lost {
		s.engine.Note("API", "is back")
		s.Away = false
	}
}

// Lease returns the current state of a Lease; false if there is none.
func (s *Server) Lease(name string) (*kube.Lease, bool) {
	v := s.Object("Lease", name).Last()
	if v.Body == nil {
		return nil, false
	}
	return v.Lease, true
}

// LeaseFrom decodes the JSON of a Lease.
func LeaseFrom(raw []byte) *kube.Lease {
	l := new(kube.Lease)
	engine.Must(l.UnmarshalJSON(raw))
	return l
}

// Status returns the error of a client whose request the server answers with an HTTP status.
func Status(code int, reason, message string) error {
	return &kube.StatusError{Code: code, Reason: reason, Message: message}
}

// Decode returns the fields of an object's JSON.
func Decode(raw []byte) map[string]any {
	var body map[string]any
	engine.Must(json.Unmarshal(raw, &body))
	return body
}

// Encode returns the JSON of an object.
func Encode(body any) []byte {
	raw, err := json.Marshal(body)
	engine.Must(err)
	return raw
}

// Metadata returns the metadata of an object. An object without metadata gets empty metadata.
func Metadata(body map[string]any) map[string]any {
	m, ok := body["metadata"].(map[string]any)
	if !ok {
		m = map[string]any{}
		body["metadata"] = m
	}
	return m
}

// Meta returns a field of the metadata as text; empty without the field.
func Meta(body map[string]any, key string) string {
	value, _ := Metadata(body)[key].(string)
	return value
}

// canonical returns the body without the resourceVersion.
func canonical(body map[string]any) []byte {
	m := Metadata(body)
	rv, ok := m["resourceVersion"]
	delete(m, "resourceVersion")
	raw := Encode(body)
	if ok {
		m["resourceVersion"] = rv
	}
	return raw
}
