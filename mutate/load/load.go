// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package load bounds the memory of the calls in flight.
//
// Guarantee: a call reserves its share of the load before it uses the memory: while its body
// arrives, and again before the body is decoded. A call also reserves memory for each owner that the
// call reads, for each command of an image, and for the encoding of the patch. A call that is alone in flight is refused only if
// its decoded body would need more than 64 MiB. Large calls leave room for small ones. The calls
// of one namespace leave as much of the load free as they use.
//
// Not guaranteed: that a share is exact. A share is an estimate, which tests compare with
// the memory that decoding allocates.
package load

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
)

const (
	// perCall is the memory that each call needs beside its body: buffers, and the look-ups of
	// images. A call reserves perCall once its body has arrived. Before that, the call needs only
	// its connection, and another bound limits the connections.
	perCall = 256 << 10
	// perByte is the memory for each byte of a body: the body itself, JSON objects cut out
	// of the body, the patch, and garbage.
	perByte = 4
	// perObject is the memory for each JSON object, and for each element of a list. A decoder may
	// allocate a whole Container for a tiny element, in a list that grows by copying. The measured
	// maximum for any type of element in a pod was 1.7 KB.
	perObject = 2 << 10
	// perMember is the memory for each member of a JSON object, in the map of a decoder. The measured
	// maximum was 390 bytes.
	perMember = 512
	// perWord is the memory for each short argument of a container: decoded, joined to the
	// container's command, and written into a patch. The measured maximum was 93 bytes.
	perWord = 128
	// perNested is the memory for each element and each member of JSON inside a string, such as
	// the agent's argument -probes. The webhook decodes that JSON, and encodes the JSON anew for
	// the patch. About a third of the bytes that the webhook allocates for an element is in use
	// at one time. That third is at most 190 bytes, or 280 with the race detector.
	perNested = 320
	// perEscape is the memory for each of the characters "<", ">" and "&". The encoder of
	// JSON writes six letters for such a character. A probe's command is in the patch twice: in
	// the probe, and as JSON in an argument of the agent.
	perEscape = 24
	// perCommand is the memory for each byte that an image's command may have in the patch. The
	// webhook joins the command to the container's arguments, and writes both into an operation.
	perCommand = 4
	// perPatch is the memory for each byte of the operations while the answer is encoded. The text
	// of the patch, its base64 and the encoder's growing buffer take that memory.
	perPatch = 5
	// perRead is the memory for each byte of an owner that a call reads from the API server. The text,
	// the buffer that grows, and the decoded fields take that memory. The measured maximum was 15.8
	// bytes, for an owner with very many annotations.
	perRead = 16
	// maxDecoded bounds the estimate for one decoded body to half of the default load. The update
	// of a workload with managed fields and 20 containers, each with 50 environment variables, takes
	// less than half of maxDecoded. So does a workload with 3 MB of arguments, of a dozen letters each.
	maxDecoded = 64 << 20
	// defaultLoad is a quarter of the webhook's memory limit of 512 MiB. The calls of at least 200
	// ordinary pods together fit into the load, if each pod is in another namespace. One namespace
	// alone may use half of the load.
	defaultLoad = 128 << 20
	// smallCall is the share up to which a call counts as small. An ordinary pod has a few containers,
	// each with about twenty JSON objects and fifty members, and takes several times less.
	smallCall = 2 << 20
	// smallBody is the size up to which a call counts as small while its body arrives: several times the
	// body of a call for an ordinary pod. Otherwise a few dozen callers with unfinished bodies could fill what
	// is kept free for small calls.
	smallBody = 64 << 10
	// forSmall divides the bound of the load: large calls leave a quarter of this bound to
	// small calls. That quarter has room for the calls of at least 50 ordinary pods.
	forSmall = 4
)

var (
	// ErrOverloaded reports that the load has no room for a further call.
	ErrOverloaded     = errors.New("too many calls at once")
	errTooManyObjects = fmt.Errorf("a review of so many JSON objects, members and elements that they take more than %d MiB", maxDecoded>>20)
)

// Limit bounds the memory of all calls in flight. With the zero value, these calls fit into the
// webhook's memory limit. A nil Limit bounds only the decoded body of each single call, to
// maxDecoded.
type Limit struct {
	// Max bounds the estimated memory of all calls together, in bytes; zero means 128 MiB.
	Max int64

	mu   sync.Mutex
	used int64
	// namespaces has the estimated memory of the calls of each namespace, and under "" that of the calls
	// whose body is still being read.
	namespaces map[string]int64
}

// Used returns the estimated memory of all calls in flight, in bytes.
func (l *Limit) Used() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.used
}

// count adds bytes, which may be negative, to the calls of a namespace. The caller has locked mu.
func (l *Limit) count(namespace string, by int64) {
	if l.namespaces == nil {
		l.namespaces = map[string]int64{}
	}
	if l.namespaces[namespace] += by; l.namespaces[namespace] == 0 {
		delete(l.namespaces, namespace)
	}
}

// Share is one call's part of the load. Only one goroutine at a time may use a Share. A nil Share has
// no bound but that of [Share.Decode].
type Share struct {
	limit     *Limit
	size      int64
	namespace string
}

// Share returns the empty share of a call whose body is still to be read. An empty share
// takes no room from other calls.
func (l *Limit) Share() *Share {
	if l == nil {
		return nil
	}
	return &Share{limit: l}
}

// Fits reports whether a body of the announced length would have room now, and reserves nothing. The
// caller need not read a body that does not fit.
func (s *Share) Fits(length int64) bool {
	if s == nil {
		return true
	}
	s.limit.mu.Lock()
	defer s.limit.mu.Unlock()
	return s.room(perByte*length, perByte*smallBody)
}

// Meter returns a reader that adds a body to the share as the body arrives. A length that
// is only announced reserves nothing.
func (s *Share) Meter(body io.Reader) io.Reader {
	return metered{body, s, perByte, perByte * smallBody}
}

type metered struct {
	io.Reader

	share   *Share
	perByte int64
	small   int64
}

func (m metered) Read(p []byte) (int, error) {
	n, err := m.Reader.Read(p)
	if full := m.share.add(m.perByte*int64(n), m.small); full != nil {
		return n, full
	}
	return n, err
}

// Decode adds to the share the memory that the decoded body will use.
func (s *Share) Decode(body []byte) error {
	size := estimate(body)
	if size > maxDecoded {
		return errTooManyObjects
	}
	return s.add(perCall+size, smallCall)
}

// estimate returns the memory that a decoded text takes beside the text. The length alone says little: an
// empty JSON object or a zero is a byte or two of text, and up to 1.7 KB in memory. Malformed JSON may
// have any estimate, because a decoder refuses the text before it decodes a part.
func estimate(text []byte) int64 {
	var objects, members, words, nested int64
	var last []byte    // the last string
	inCommand := false // in a list of strings, as far as it has only strings
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case ',': // an element begins here, or a member, which has a colon
			if inCommand {
				words++
			} else {
				objects++
			}
		case '[':
			objects++
			inCommand = string(last) == "args" || string(last) == "command"
		case '{':
			objects++
			inCommand = false
		case ']':
			inCommand = false
		case ':':
			objects--
			members++
		case '"':
			begin := i + 1
			for i = begin; i < len(text) && text[i] != '"'; i++ {
				if text[i] == '\\' {
					i++
				}
			}
			last = text[begin:min(i, len(text))]
			nested += countNested(last)
		default:
			inCommand = inCommand && text[i] <= ' '
		}
	}
	escapes := bytes.Count(text, []byte("<")) + bytes.Count(text, []byte(">")) + bytes.Count(text, []byte("&"))
	return max(0, perObject*objects+perMember*members+perWord*words+perNested*nested+perEscape*int64(escapes))
}

// countNested counts the elements and the members of the JSON that a string may contain, by the
// commas between them. The gate's own arguments contain JSON, which the webhook decodes if a gated
// pod passes the webhook again. Each such argument begins with a dash. A caller may write the dash
// or a comma as an escape, so each escape counts as a comma.
func countNested(word []byte) int64 {
	if len(word) == 0 || word[0] != '-' && word[0] != '\\' {
		return 0
	}
	return int64(bytes.Count(word, []byte(",")) + bytes.Count(word, []byte(`\u`)))
}

// Join adds the share to the shares of a namespace. If the load has no room for a further call of this
// namespace, Join returns [ErrOverloaded]. [Share.Free] removes the share in both cases.
func (s *Share) Join(namespace string) error {
	if s == nil {
		return nil
	}
	s.limit.mu.Lock()
	defer s.limit.mu.Unlock()
	s.limit.count(s.namespace, -s.size)
	s.limit.count(namespace, s.size)
	s.namespace = namespace
	if !s.room(0, smallCall) {
		return ErrOverloaded
	}
	return nil
}

// shareKey is the key of the share in a call's context.
type shareKey struct{}

// Within returns a context from which the functions of this package take the share.
func (s *Share) Within(ctx context.Context) context.Context {
	return context.WithValue(ctx, shareKey{}, s)
}

// of returns the share of the context's call, or nil.
func of(ctx context.Context) *Share {
	s, _ := ctx.Value(shareKey{}).(*Share)
	return s
}

// AddCommand adds the command of an image to the share of the context's call. The argument is the
// number of bytes that the command may have in the patch.
func AddCommand(ctx context.Context, bytes int) error {
	return of(ctx).add(perCommand*int64(bytes), smallCall)
}

// AddPatch adds the encoding of an answer to the share of the context's call. The argument is the
// number of bytes of the operations.
func AddPatch(ctx context.Context, bytes int) error {
	return of(ctx).add(perPatch*int64(bytes), smallCall)
}

// MeterObject returns a reader that adds an object of the API server to the share of the context's
// call, as the object's text arrives.
func MeterObject(ctx context.Context, text io.Reader) io.Reader {
	return metered{text, of(ctx), perRead, smallCall}
}

// add adds bytes to the share if the load has room for them. A share above "small" must leave a quarter of the
// load's bound to small calls.
func (s *Share) add(by, small int64) error {
	if s == nil {
		return nil
	}
	s.limit.mu.Lock()
	defer s.limit.mu.Unlock()
	if !s.room(by, small) {
		return ErrOverloaded
	}
	s.limit.used += by
	s.limit.count(s.namespace, by)
	s.size += by
	return nil
}

// room reports whether the load has room for more bytes of this share. A share that is alone
// always has room. The calls of a namespace leave as much of the load free as they use. So one
// namespace uses at most half of the load, and a second namespace at most half of the rest. A call
// that is alone in its namespace need not leave so much. The caller has locked limit.mu.
func (s *Share) room(by, small int64) bool {
	if s.limit.used == s.size {
		return true
	}
	free := cmp.Or(s.limit.Max, defaultLoad) - s.limit.used - by
	if s.size+by > small {
		free -= cmp.Or(s.limit.Max, defaultLoad) / forSmall
	}
	its := s.limit.namespaces[s.namespace]
	return free >= 0 && (s.namespace == "" || its == s.size || its+by <= free)
}

// Free gives the memory of the share back to the load.
func (s *Share) Free() {
	if s == nil {
		return
	}
	s.limit.mu.Lock()
	defer s.limit.mu.Unlock()
	s.limit.used -= s.size
	s.limit.count(s.namespace, -s.size)
	s.size = 0
}
