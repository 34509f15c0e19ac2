// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package pages

import (
	"errors"
	"fmt"
	"net/url"
	"path"
	"slices"
	"strings"
)

// Repository is the address of the repository's files. A link to a file without a page leads to
// the file below this address.
const Repository = "https://github.com/metaparticle-io/metaparticle/blob/main/"

// link is the destination of a link or an image.
type link struct {
	href string
	// shown reports that the link leads to an image which the site has.
	shown bool
}

// resolve returns where a link of a page leads. The text of the error completes a sentence that
// begins with the link.
func (s *site) resolve(from *page, destination string) (link, error) {
	to, err := url.Parse(destination)
	switch {
	case err != nil || destination == "" || strings.ContainsAny(destination, "\\\x00\n\r\t "):
		return link{}, errors.New("is no address")
	case slices.Contains([]string{"https", "http"}, to.Scheme) && to.Host != "" && to.User == nil, to.Scheme == "mailto" && to.Opaque != "":
		return link{href: to.String()}, nil
	case to.Scheme != "" || to.Host != "" || to.RawQuery != "" || strings.HasPrefix(to.Path, "/"):
		return link{}, errors.New("is neither of https, http or mailto, nor of this repository")
	}
	name := from.source
	if to.Path != "" {
		name = path.Join(path.Dir(from.source), to.Path)
	}
	anchor := ""
	if to.Fragment != "" {
		anchor = "#" + to.EscapedFragment()
	}
	if page := s.bySource[name]; page != nil {
		if to.Fragment != "" && !page.anchors[to.Fragment] {
			return link{}, fmt.Errorf("names no heading of %s", name)
		}
		if page == from {
			return link{href: anchor}, nil
		}
		return link{href: from.up() + page.path + anchor}, nil
	}
	if name == ".." || strings.HasPrefix(name, "../") || !s.exists(name) {
		return link{}, errors.New("names no file of this repository")
	}
	if s.pictures[name] != nil {
		return link{href: from.up() + target(name), shown: true}, nil
	}
	return link{href: Repository + (&url.URL{Path: name}).EscapedPath() + anchor}, nil
}

// up returns the relative path from the folder of the page to the top of the site.
func (p *page) up() string { return strings.Repeat("../", strings.Count(p.path, "/")) }
