// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
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
	Network
	Objects
	// Watches has the streams of all watches.
	Watches Watches
	// Variables has the Variables; nil in a world without Variables.
	Variables *Variables
	// stored is called at each stored write of a Lease, before any watch shows the write.
	stored func(by, lease string, sent time.Duration, before, after Version)
	// informed has the functions that [Server.Inform] calls.
	informed []func()
	// sent is the instant at which a [Client] sent the write of a Lease that arrived last.
	sent time.Duration
	rng  *rand.Rand
	rv   int64
	// changes has the stored changes, which watches read. The field "compacted" is the lowest
	// resourceVersion from which a watch can resume.
	changes   []change
	compacted int64
	// lost reports that a person keeps the server stopped.
	lost bool
	// script decides about requests in a test that has no weather; nil in the simulation.
	script *Scripted
}

// New returns a server without objects, in fair weather. At each stored write of a Lease the
// server calls the function "stored". If a [Client] made that write, the argument "sent" is the
// instant at which the Client sent the request.
func New(e *engine.Engine, stored func(by, lease string, sent time.Duration, before, after Version)) *Server {
	// Fencing tokens are numbers. The first resourceVersions are below 1000, so a program that
	// compares tokens as text fails when the resourceVersions reach 1000.
	return &Server{Network: newNetwork(e), Objects: newObjects(), rng: e.Source("server"), rv: 990, stored: stored}
}

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

// Rewrite changes a Lease in the name of a person; without the Lease it does nothing.
func (s *Server) Rewrite(by, name string, change func(*Lease)) {
	raw, err := s.Get("Lease", name)
	if err != nil {
		return
	}
	l, body := LeaseFrom(raw), Decode(raw)
	change(l)
	is, m := Decode(Encode(l)), Metadata(body)
	delete(m, "labels")
	delete(m, "annotations")
	maps.Copy(m, Metadata(is))
	body["apiVersion"], body["kind"], body["spec"] = "coordination.k8s.io/v1", "Lease", is["spec"]
	_, err = s.Put(by, "Lease", name, Encode(body))
	engine.Must(err)
}

// Remove deletes the object if uid and resourceVersion match. An empty uid or resourceVersion matches
// any object.
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

// next advances the resourceVersion. Other objects of the cluster use up some
// resourceVersions.
func (s *Server) next() { s.rv += step(s.rng) }

func step(r *rand.Rand) int64 {
	if r == nil {
		return 1
	}
	return 1 + int64(r.IntN(3))
}

// changed reports a change of a Lease to the watches, and reports each change to the functions
// that [Server.Subscribe] got. Only an update of a Lease is not reported to these functions. For
// such an update, the function "stored" that [New] got decides whether to call [Server.Inform].
func (s *Server) changed(how kube.WatchType, o *Object, raw []byte) {
	if o.kind != "Lease" || how != kube.Modified {
		s.Inform()
	}
	if o.kind != "Lease" {
		return
	}
	c := change{rv: s.rv, kind: how, name: o.name, raw: raw}
	s.changes = append(s.changes, c)
	s.Watches.offer(c)
}

// GoDown makes the API server unreachable.
func (s *Server) GoDown() {
	s.engine.Note("API", "goes away")
	s.Away = true
	s.Watches.Severed()
}

// ComeUp makes the API server reachable again.
func (s *Server) ComeUp() {
	if s.Away && !s.lost {
		s.engine.Note("API", "is back")
		s.Away = false
	}
}

// open starts a stream of the events after the resourceVersion.
func (s *Server) open(w *Watch, resourceVersion string) error {
	w.rng, w.strange = w.c.source("stream "+w.name), w.c.source("strange stream "+w.name)
	if s.Weather.Watches == Empty && w.c.Allowed != nil {
		w.Ended = true
		return nil
	}
	if resourceVersion == "" {
		s.begin(w)
		s.Watches.add(w)
		return nil
	}
	from := number(resourceVersion)
	if from < s.compacted || engine.Chance(w.strange, s.Weather.forgotten) {
		return Status(410, "Expired", "too old resource version")
	}
	s.follow(w, from)
	s.Watches.add(w)
	return nil
}

// mostBehind bounds the number of versions by which a watch cache is behind.
const mostBehind = 40

// begin offers a stream without a resourceVersion its first events. Usually the stream begins with the
// present state. If the server's watch cache is behind, the stream begins with an old state, and the
// later changes follow.
func (s *Server) begin(w *Watch) {
	o := s.Object("Lease", w.name)
	v, rv := o.Last(), s.rv
	if n := len(o.versions); n > 1 && engine.Chance(w.strange, s.Weather.behind) {
		v = o.versions[n-1-w.strange.IntN(min(n, mostBehind))]
		rv = v.RV
	} else if s.script != nil && n > 0 {
		v = o.versions[max(0, n-1-s.script.Behind)]
		rv = v.RV
	}
	if v.Body != nil {
		w.offer(change{rv: rv, kind: kube.Added, name: w.name, raw: v.Raw})
	}
	s.follow(w, rv)
}

// follow offers the stream all changes after the resourceVersion.
func (s *Server) follow(w *Watch, from int64) {
	since, _ := slices.BinarySearchFunc(s.changes, from+1, func(c change, rv int64) int { return cmp.Compare(c.rv, rv) })
	for _, change := range s.changes[since:] {
		w.offer(change)
	}
}

// Compact forgets the history, as a restart of the server does. Then no watch can begin at a
// resourceVersion that is below the present one.
func (s *Server) Compact() {
	s.engine.Note("script", "history is compacted")
	s.compacted = s.rv
}

// BreakWatches ends all watches. This function may also compact the history.
func (s *Server) BreakWatches(r *rand.Rand) {
	orderly := engine.Chance(r, .5)
	if engine.Chance(r, .5) {
		s.Compact()
	}
	s.engine.Note("script", "all watches end (orderly %v)", orderly)
	for _, stream := range slices.Clone(s.Watches.all) {
		if orderly {
			stream.finish(nil)
		} else {
			stream.finish(ErrBroken)
		}
	}
}
