// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package mutate

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
)

// A call's memory is estimated before it is used: by the length of its body,
// and by what is in it. An empty object or a zero takes a byte or two of text, and
// several hundred bytes as a decoded container.
const (
	// perCall is what a call takes besides, once its body has arrived: buffers, and
	// looking up images. Before that it holds its connection, which is bounded too.
	perCall = 256 << 10
	// perByte counts the body, the objects that are cut out of it, the patch, and
	// room that the collector has not yet taken back.
	perByte = 4
	// perObject is what decoding an empty container takes, with the growth of its
	// list: 1.7 KB were measured, the most of all types in a pod.
	perObject = 2 << 10
	// perMember is what a member takes in the maps that a decoder makes, and in the
	// nodes that a patch is made from, while both grow: 390 bytes were measured.
	perMember = 512
	// perWord is what a short argument takes, decoded, joined to the agent's own and
	// written into a patch: 93 bytes were measured.
	perWord = 128
	// mostDecoded is half of the default load. A workload of 20 containers with 50
	// variables each, with its managed fields, before and after an update, takes less
	// than half of that. So do 3 MB of arguments of a dozen letters.
	mostDecoded = 64 << 20
	// defaultLoad is a quarter of the webhook's memory limit, 512 MiB. About 200
	// ordinary pods have room in it at once.
	defaultLoad = 128 << 20
	// smallCall is several times the body of an ordinary pod's call.
	smallCall = 64 << 10
	// smallDecoded is several times what an ordinary pod of a few containers takes:
	// about twenty objects, and fifty members, for each.
	smallDecoded = 2 << 20
	// forSmall is the part of a load, as its divisor, that large calls leave to
	// small ones: room for about 100 of them.
	forSmall = 4
)

var (
	errOverloaded     = errors.New("too many calls at once")
	errTooManyObjects = fmt.Errorf("a review of so many JSON objects, members and elements that they take more than %d MiB", mostDecoded>>20)
)

// Load bounds what the calls in flight take together. The zero value has room
// for as much as fits into the webhook's memory limit.
type Load struct {
	// Most is an estimate in bytes; zero means 128 MiB.
	Most int64

	mu   sync.Mutex
	used int64
}

// share is one call's part of a load.
type share struct {
	load *Load
	size int64
	// body is what has arrived of it.
	body int
	// large calls do not get all of the load.
	large bool
}

// share makes the share of a call whose body is still to be read. The share is empty:
// a call without a body keeps nobody out. A call that has the load for itself always
// gets what it needs.
func (l *Load) share() *share { return &share{load: l} }

// metered adds a body to the share of its call as it arrives: a length that is only
// announced takes nothing from others.
type metered struct {
	io.Reader
	share *share
}

func (m metered) Read(p []byte) (int, error) {
	n, err := m.Reader.Read(p)
	m.share.body += n
	m.share.large = m.share.large || m.share.body > smallCall
	if !m.share.grow(perByte * int64(n)) {
		return n, errOverloaded
	}
	return n, err
}

// decoded adds to the share what the body will take when it is decoded.
func (s *share) decoded(body []byte) error {
	w := weigh(body)
	size := perObject*int64(w.objects) + perMember*int64(w.members) + perWord*int64(w.words)
	s.large = s.large || size > smallDecoded
	switch {
	case size > mostDecoded:
		return errTooManyObjects
	case !s.grow(perCall + size):
		return errOverloaded
	}
	return nil
}

// fits answers whether a body that is announced has room now. It takes nothing, but
// a body that has none need not be read.
func (s *share) fits(length int64) bool {
	l := s.load
	if l == nil || length <= smallCall {
		return true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return s.room(perByte*length, true)
}

func (s *share) grow(by int64) bool {
	l := s.load
	if l == nil {
		return true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if !s.room(by, s.large) {
		return false
	}
	l.used += by
	s.size += by
	return true
}

// room answers whether so much more fits into the load. The lock is held.
func (s *share) room(by int64, large bool) bool {
	most := s.load.Most
	if most == 0 {
		most = defaultLoad
	}
	if large {
		most -= most / forSmall
	}
	alone := s.load.used == s.size
	return alone || s.load.used+by <= most
}

func (s *share) free() {
	if s.load == nil {
		return
	}
	s.load.mu.Lock()
	defer s.load.mu.Unlock()
	s.load.used -= s.size
	s.size = 0
}

// overloaded has the caller try again. The API server's client obeys
// Retry-After within the time that the webhook's configuration gives a call; a
// pod that is refused after that is tried again by its controller.
func overloaded(w http.ResponseWriter) {
	// The shortest pause that the header can say. A call takes milliseconds, or
	// as long as a registry.
	w.Header().Set("Retry-After", "1")
	http.Error(w, errOverloaded.Error(), http.StatusTooManyRequests)
}
