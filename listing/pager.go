// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package listing

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
)

// PerPage bounds the number of objects in one answer to a list. Most objects have about 10 KB.
const PerPage = 32

// MaxPage bounds the bytes of a page of several objects. The size of a single object has a bound in the
// API server. Decoded, a page takes up to ten times as much memory, because a label of a few bytes
// becomes an entry of a map. So a [Pager] reads only one page at a time.
const MaxPage = 2 << 20

var errPage = errors.New("the page is too large")

type pageKey struct{}

// BoundPages returns a transport that a [Pager] needs to bound the memory of its lists. If a page of
// several objects is too large, the body of the answer ends with an error before the client decodes the
// page. All other answers pass unchanged.
func BoundPages(next http.RoundTripper) http.RoundTripper { return pages{next} }

type pages struct{ next http.RoundTripper }

// RoundTrip implements [http.RoundTripper].
func (p pages) RoundTrip(r *http.Request) (*http.Response, error) {
	answer, err := p.next.RoundTrip(r)
	if err == nil && r.Context().Value(pageKey{}) != nil {
		answer.Body = &page{ReadCloser: answer.Body, left: MaxPage}
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
		return 0, fmt.Errorf("%w: more than %d bytes", errPage, MaxPage)
	}
	return n, err
}

// Pager reads lists page by page, and only one page of all its lists at a time. A nil Pager reads
// pages of several lists at a time.
type Pager struct {
	// reading has one element while a page is read and decoded.
	reading chan struct{}
}

// NewPager returns a Pager. The lists of one process share one Pager, because they share the memory.
func NewPager() *Pager { return &Pager{reading: make(chan struct{}, 1)} }

// Each calls read for each page of a list. The function read gets the page's largest number of
// objects and its token, and returns the token of the next page. If a page is too large, Each asks for
// half as many objects.
func (p *Pager) Each(ctx context.Context, read func(ctx context.Context, limit int64, page string) (next string, err error)) error {
	several := context.WithValue(ctx, pageKey{}, true)
	page := ""
	for limit := int64(PerPage); ; {
		asked := several
		if limit == 1 {
			asked = ctx
		}
		next, err := p.alone(asked, func() (string, error) { return read(asked, limit, page) })
		switch {
		case errors.Is(err, errPage) && limit > 1:
			limit /= 2
			continue
		case err != nil || next == "":
			return err
		}
		page, limit = next, min(2*limit, PerPage)
	}
}

// alone calls read while the Pager reads no other page.
func (p *Pager) alone(ctx context.Context, read func() (next string, err error)) (next string, err error) {
	if p == nil {
		return read()
	}
	select {
	case p.reading <- struct{}{}:
		defer func() { <-p.reading }()
		return read()
	case <-ctx.Done():
		return "", ctx.Err()
	}
}
