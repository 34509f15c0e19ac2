// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package enroll

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
)

// objectsPerPage bounds the number of objects in one answer to a list. Most objects have about 10 KB.
const objectsPerPage = 32

// maxPage bounds the bytes of a page of several objects. The size of a single object has a bound in the
// API server. Decoded, a page takes up to ten times as much memory, because a label of a few bytes
// becomes an entry of a map. So only one page is in memory at a time.
const maxPage = 2 << 20

var errPage = errors.New("the page is too large")

// turns lets one caller at a time read and decode a page. The channel has one element meanwhile. A nil
// value bounds nothing.
type turns chan struct{}

// process has the turns of all informers and reconciliations of the process.
var process = make(turns, 1)

type pageKey struct{}

// BoundPages returns a transport that enroll needs to bound the memory of its lists. If a page of several
// objects is too large, the body of the answer ends with an error before the client decodes the page.
// All other answers pass unchanged.
func BoundPages(next http.RoundTripper) http.RoundTripper { return pages{next} }

type pages struct{ next http.RoundTripper }

// RoundTrip implements [http.RoundTripper].
func (p pages) RoundTrip(r *http.Request) (*http.Response, error) {
	answer, err := p.next.RoundTrip(r)
	if err == nil && r.Context().Value(pageKey{}) != nil {
		answer.Body = &page{ReadCloser: answer.Body, left: maxPage}
	}
	return answer, err
}

// page is the body of an answer with several objects.
type page struct {
	io.ReadCloser
	left int
}

// Read implements [io.Reader].
func (p *page) Read(b []byte) (int, error) {
	n, err := p.ReadCloser.Read(b)
	if p.left -= n; p.left < 0 {
		return 0, fmt.Errorf("%w: more than %d bytes", errPage, maxPage)
	}
	return n, err
}

// pages calls read for each page of a list. The function read gets the page's largest number of
// objects and its token, and returns the token of the next page. If a page is too large, pages asks for
// half as many objects.
func (t turns) pages(ctx context.Context, read func(ctx context.Context, limit int64, page string) (next string, err error)) error {
	several := context.WithValue(ctx, pageKey{}, true)
	page := ""
	for limit := int64(objectsPerPage); ; {
		asked := several
		if limit == 1 {
			asked = ctx
		}
		next, err := t.take(asked, func() (string, error) { return read(asked, limit, page) })
		switch {
		case errors.Is(err, errPage) && limit > 1:
			limit /= 2
			continue
		case err != nil || next == "":
			return err
		}
		page, limit = next, min(2*limit, objectsPerPage)
	}
}

// take calls read while no other page is read.
func (t turns) take(ctx context.Context, read func() (next string, err error)) (next string, err error) {
	if t == nil {
		return read()
	}
	select {
	case t <- struct{}{}:
		defer func() { <-t }()
		return read()
	case <-ctx.Done():
		return "", ctx.Err()
	}
}
