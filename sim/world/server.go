// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package world

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

// server is the API server, with the objects of one namespace. Its semantics are those
// of a real server, as far as the agent depends on them.
type server struct {
	engine *engine.Engine
	rng    *rand.Rand
	// weather has the faults of requests.
	weather weather
	// latest bounds the time from the sending of a request to its arrival.
	latest time.Duration
	// stored is called at each stored write of a Lease, before any watch shows the write.
	stored  func(by, lease string, sent time.Duration, before, after version)
	rv      int64
	names   []string // the keys of all objects, deleted ones too, in the order of creation
	objects map[string]*object
	changes []change // the stored changes, which watches read
	// compacted is the oldest version from which a watch can resume.
	compacted int64
	away      bool
	// lost reports that a person keeps the server stopped.
	lost    bool
	watches []*watch
	// informed has the functions that [server.inform] calls.
	informed []func()
	rights   map[string]rights // the decoded Roles, by name
	// variables has the Variables; nil in a world without Variables.
	variables *variables
	// sent is the instant at which a client sent the last write of a Lease.
	sent time.Duration
}

// object has all states that the object of one kind and name ever had. The last state is the
// current one.
type object struct {
	kind, name string
	versions   []version
}

// version is one state of an object. A version without a body records that the object
// does not exist.
type version struct {
	at   time.Duration
	uid  string
	rv   int64
	body map[string]any
	// canon is the body without the resourceVersion, for comparison.
	canon []byte
	raw   []byte
	// lease is the decoded body, if the object is a Lease.
	lease *kube.Lease
}

// change is one stored change, which the server sends to all watches of the object.
type change struct {
	rv   int64
	kind kube.WatchType
	name string
	raw  []byte
}

// newServer returns a server without objects, in fair weather. At each stored write of a Lease the
// server calls the function "stored". The argument "sent" of that function is the instant at which
// a client sent the last write of a Lease.
func newServer(e *engine.Engine, stored func(by, lease string, sent time.Duration, before, after version)) *server {
	// Fencing tokens are numbers. The first versions are below 1000, so a program that
	// compares tokens as text fails when the versions reach 1000.
	return &server{
		engine: e, rng: e.Source("server"), weather: fair, latest: latest, stored: stored,
		rv: 990, objects: map[string]*object{}, rights: map[string]rights{},
	}
}

// object returns the object of a key, without a state if the key is new.
func (s *server) object(kind, name string) *object {
	key := kind + "/" + name
	o := s.objects[key]
	if o == nil {
		o = &object{kind: kind, name: name}
		s.objects[key] = o
		s.names = append(s.names, key)
	}
	return o
}

// last returns the current state.
func (o *object) last() version {
	if len(o.versions) == 0 {
		return version{}
	}
	return o.versions[len(o.versions)-1]
}

// asOf returns the state at the instant; without a body if the object did not exist.
func (o *object) asOf(at time.Duration) version {
	for _, v := range slices.Backward(o.versions) {
		if v.at <= at {
			return v
		}
	}
	return version{}
}

// since returns the state of the object at the instant, and all later states.
func (o *object) since(at time.Duration) []version {
	later, _ := slices.BinarySearchFunc(o.versions, at+1, func(v version, at time.Duration) int { return cmp.Compare(v.at, at) })
	return o.versions[max(0, later-1):]
}

// get returns the current state of an object.
func (s *server) get(kind, name string) ([]byte, error) {
	v := s.object(kind, name).last()
	if v.body == nil {
		return nil, status(404, "NotFound", kind+" "+name)
	}
	return v.raw, nil
}

// exists reports whether the object exists.
func (s *server) exists(kind, name string) bool { return s.object(kind, name).last().body != nil }

// create stores a new object, and fails if the object exists.
func (s *server) create(by, kind, name string, raw []byte) ([]byte, error) {
	o := s.object(kind, name)
	if o.last().body != nil {
		return nil, status(409, "AlreadyExists", kind+" "+name)
	}
	return s.store(by, o, decode(raw), fmt.Sprintf("uid-%d", s.engine.Number())), nil
}

// put replaces an object as the real server does. The server compares the uid and the
// resourceVersion if the body names them. A body without a uid creates a missing Lease.
// A body that changes nothing is not stored.
func (s *server) put(by, kind, name string, raw []byte) ([]byte, error) {
	o, body := s.object(kind, name), decode(raw)
	before := o.last()
	uid, rv := meta(body, "uid"), meta(body, "resourceVersion")
	switch {
	case before.body == nil && kind == "Lease" && uid == "":
		return s.store(by, o, body, fmt.Sprintf("uid-%d", s.engine.Number())), nil
	case before.body == nil && uid != "":
		return nil, status(409, "Conflict", "uid of an object that is gone")
	case before.body == nil:
		return nil, status(404, "NotFound", kind+" "+name)
	case uid != "" && uid != before.uid:
		return nil, status(409, "Conflict", "another uid")
	case rv != "" && rv != strconv.FormatInt(before.rv, 10):
		return nil, status(409, "Conflict", "another resourceVersion")
	}
	metadata(body)["uid"] = before.uid
	if bytes.Equal(canonical(body), before.canon) {
		return before.raw, nil
	}
	return s.store(by, o, body, before.uid), nil
}

// remove deletes the object if uid and resourceVersion match. An empty text matches any
// object.
func (s *server) remove(by, kind, name, uid, rv string) error {
	o := s.object(kind, name)
	before := o.last()
	switch {
	case before.body == nil:
		return status(404, "NotFound", kind+" "+name)
	case uid != "" && uid != before.uid, rv != "" && rv != strconv.FormatInt(before.rv, 10):
		return status(409, "Conflict", "another object")
	}
	s.next()
	last := decode(before.raw)
	metadata(last)["resourceVersion"] = strconv.FormatInt(s.rv, 10)
	o.versions = append(o.versions, version{at: s.engine.Now(), rv: s.rv})
	s.engine.Note(by, "deletes %s %s", kind, name)
	s.changed(kube.Deleted, o, encode(last))
	return nil
}

// store makes the body the current state of the object.
func (s *server) store(by string, o *object, body map[string]any, uid string) []byte {
	s.next()
	m := metadata(body)
	m["uid"], m["resourceVersion"], m["name"] = uid, strconv.FormatInt(s.rv, 10), o.name
	before, how := o.last(), kube.Modified
	if before.body == nil {
		how = kube.Added
	}
	v := version{at: s.engine.Now(), uid: uid, rv: s.rv, body: body, canon: canonical(body), raw: encode(body)}
	if o.kind == "Lease" {
		v.lease = leaseFrom(v.raw)
	}
	o.versions = append(o.versions, v)
	if o.kind == "Lease" {
		s.stored(by, o.name, s.sent, before, v)
	}
	s.changed(how, o, v.raw)
	return v.raw
}

// subscribe lets [server.inform] call f.
func (s *server) subscribe(f func()) { s.informed = append(s.informed, f) }

// inform reports a change to all subscribers.
func (s *server) inform() {
	for _, f := range s.informed {
		f()
	}
}

// next advances the resourceVersion. Other objects of the cluster use some versions up.
func (s *server) next() { s.rv += 1 + int64(s.rng.IntN(3)) }

// changed reports a change to the watches and to the subscribers. An update of a Lease goes to the
// watches alone. The caller of [newServer] decides which of these updates the subscribers learn.
func (s *server) changed(how kube.WatchType, o *object, raw []byte) {
	if o.kind != "Lease" || how != kube.Modified {
		s.inform()
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

// goDown makes the API server unreachable.
func (s *server) goDown() {
	s.engine.Note("API", "goes away")
	s.away = true
	s.severed()
}

// comeUp makes the API server reachable again.
func (s *server) comeUp() {
	if s.away && !s.lost {
		s.engine.Note("API", "is back")
		s.away = false
	}
}

// lease returns the current state of a Lease; false if there is none.
func (s *server) lease(name string) (*kube.Lease, bool) {
	v := s.object("Lease", name).last()
	if v.body == nil {
		return nil, false
	}
	return v.lease, true
}

func leaseFrom(raw []byte) *kube.Lease {
	l := new(kube.Lease)
	engine.Must(l.UnmarshalJSON(raw))
	return l
}

func status(code int, reason, message string) error {
	return &kube.StatusError{Code: code, Reason: reason, Message: message}
}

func decode(raw []byte) map[string]any {
	var body map[string]any
	engine.Must(json.Unmarshal(raw, &body))
	return body
}

func encode(body any) []byte {
	raw, err := json.Marshal(body)
	engine.Must(err)
	return raw
}

func metadata(body map[string]any) map[string]any {
	m, ok := body["metadata"].(map[string]any)
	if !ok {
		m = map[string]any{}
		body["metadata"] = m
	}
	return m
}

func meta(body map[string]any, key string) string {
	value, _ := metadata(body)[key].(string)
	return value
}

// canonical returns the body without the resourceVersion.
func canonical(body map[string]any) []byte {
	m := metadata(body)
	rv, ok := m["resourceVersion"]
	delete(m, "resourceVersion")
	raw := encode(body)
	if ok {
		m["resourceVersion"] = rv
	}
	return raw
}
