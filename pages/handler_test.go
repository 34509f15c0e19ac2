// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package pages

import (
	"encoding/json"
	"fmt"
	"html"
	"math"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle"
)

func ask(method, path string, header ...string) *httptest.ResponseRecorder {
	mux := http.NewServeMux()
	mux.Handle("/docs/", http.StripPrefix("/docs", Handler()))
	request := httptest.NewRequest(method, path, nil)
	for i := 0; i+1 < len(header); i += 2 {
		request.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	mux.ServeHTTP(w, request)
	return w
}

func TestEachBuiltPageIsServedUnchanged(t *testing.T) {
	files, err := Files()
	require.NoError(t, err)
	for name, text := range files {
		w := ask("GET", "/docs/"+name)
		require.Equal(t, http.StatusOK, w.Code, name)
		assert.Equal(t, string(text), w.Body.String(), name)
		assert.Equal(t, Policy, w.Header().Get("Content-Security-Policy"))
		assert.NotEmpty(t, w.Header().Get("Content-Type"), name)
	}
	assert.Equal(t, string(files["index.html"]), ask("GET", "/docs/").Body.String())
}

func TestPagesAnswerConditionalRequestsAndRefuseUnknownPaths(t *testing.T) {
	assert.Equal(t, http.StatusNotFound, ask("GET", "/docs/nothing.html").Code)
	assert.Equal(t, http.StatusNotFound, ask("GET", "/docs/decisions/").Code)
	assert.Equal(t, http.StatusMethodNotAllowed, ask("POST", "/docs/index.html").Code)
	first := ask("GET", "/docs/index.html")
	again := ask("GET", "/docs/index.html", "If-None-Match", first.Header().Get("ETag"))
	assert.Equal(t, http.StatusNotModified, again.Code)
	head := ask("HEAD", "/docs/style.css")
	assert.Equal(t, http.StatusOK, head.Code)
	assert.Empty(t, head.Body.String())
}

// request matches each HTML attribute, and each url(…) of a style sheet, by which a browser
// loads a file.
var request = regexp.MustCompile(`(?:<(?:script|img|link)\b[^>]*?(?:src|href)|url\()[="(']*([^"')]+)`)

func TestPagesLoadOnlyTheirOwnFiles(t *testing.T) {
	files, err := Files()
	require.NoError(t, err)
	for name, text := range files {
		if !strings.HasSuffix(name, ".html") && !strings.HasSuffix(name, ".css") {
			continue
		}
		loads := request.FindAllStringSubmatch(string(text), -1)
		for _, match := range loads {
			assert.Contains(t, files, strings.TrimLeft(match[1], "./"), name)
		}
		if strings.HasSuffix(name, ".html") {
			assert.GreaterOrEqual(t, len(loads), 5, name)
			assert.NotContains(t, string(text), " style=", name)
			assert.NotContains(t, string(text), "<style", name)
		}
	}
}

func TestSearchIndexEntriesLeadToExistingHeadings(t *testing.T) {
	files, err := Files()
	require.NoError(t, err)
	text := strings.TrimSuffix(strings.TrimPrefix(string(files["search-index.js"]), "var searchIndex = "), ";\n")
	var all []found
	require.NoError(t, json.Unmarshal([]byte(text), &all))
	assert.Greater(t, len(all), 200)
	for _, f := range all {
		assert.Contains(t, string(files[f.Page]), " id=\""+f.Anchor+"\"", "%s#%s", f.Page, f.Anchor)
	}
}

// luminance returns the relative luminance of a colour, by WCAG 2.
func luminance(t *testing.T, colour string) float64 {
	t.Helper()
	number, err := strconv.ParseUint(strings.TrimPrefix(colour, "#"), 16, 32)
	require.NoError(t, err)
	part := func(shift int) float64 {
		c := float64(number>>shift&0xff) / 255
		if c <= 0.04045 {
			return c / 12.92
		}
		return math.Pow((c+0.055)/1.055, 2.4)
	}
	return 0.2126*part(16) + 0.7152*part(8) + 0.0722*part(0)
}

func TestTextOfPagesHasEnoughContrast(t *testing.T) {
	schemes := regexp.MustCompile(`(?s):root \{(.*?)\}`).FindAllStringSubmatch(string(style), -1)
	require.Len(t, schemes, 2, "one for light, one for dark")
	for i, scheme := range schemes {
		colours := map[string]float64{}
		for _, match := range regexp.MustCompile(`--(\w+): (#[0-9a-f]{6})`).FindAllStringSubmatch(scheme[1], -1) {
			colours[match[1]] = luminance(t, match[2])
		}
		for _, text := range []string{"ink", "soft", "link"} {
			for _, background := range []string{"paper", "shade"} {
				assert.GreaterOrEqual(t, contrast(colours[text], colours[background]), 4.5, fmt.Sprint(i, text, background))
			}
		}
		for _, code := range []string{"key", "string", "number", "word"} {
			assert.GreaterOrEqual(t, contrast(colours[code], colours["shade"]), 4.5, fmt.Sprint(i, code))
		}
		assert.GreaterOrEqual(t, contrast(colours["ink"], colours["mark"]), 4.5, i)
		assert.GreaterOrEqual(t, contrast(colours["soft"], colours["paper"]), 3.0, "the border of a field")
	}
}

func contrast(a, b float64) float64 { return (max(a, b) + 0.05) / (min(a, b) + 0.05) }

// The webhook's binary contains package pages. Package text/template finds methods by their names.
// So with text/template in the binary, the linker would keep all methods of all types: 10 MB.
func TestPagesPackageHasNoDependencyOnTextTemplate(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", ".").Output()
	require.NoError(t, err)
	assert.Contains(t, strings.Fields(string(out)), "github.com/gomarkdown/markdown")
	assert.NotContains(t, strings.Fields(string(out)), "text/template")
}

// tag matches each HTML tag that the page of a Markdown file may have in its body. The attributes
// have a fixed order, and their values have neither quotes nor angle brackets.
var tag = regexp.MustCompile(`<(?:/(?:a|blockquote|code|dd|del|div|dl|dt|em|h[1-6]|li|ol|p|pre|span|strong|table|tbody|td|th|thead|tr|ul)|` +
	`blockquote|br|dd|del|dl|dt|em|hr|li|ol(?: start="[0-9]+")?|p|strong|table|tbody|thead|tr|ul|` +
	`div class="table(?: stack)?" tabindex="0"|div class="code"|pre tabindex="0"|code(?: class="language-[a-z]+")?|span class="[a-z]"|` +
	`t[dh](?: scope="col")?(?: class="(?:left|right|center)")?(?: data-label="[^"<>]*")?|` +
	`h[1-6] id="[^"<>]*"|a href="[^"<>]*"|a class="anchor" href="#[^"<>]*" aria-label="[^"<>]*"|` +
	`img src="[^"<>]*" alt="[^"<>]*" loading="lazy")>`)

var (
	address = regexp.MustCompile(`(?:href|src)="([^"]*)"`)
	// harmless matches an address of a page, of an anchor, or of another host. A relative address
	// has no colon, so it has no scheme.
	harmless = regexp.MustCompile(`^(?:https?://[^/]+|mailto:|#|[^:/?#]+(?:/|#|$)|$)`)
)

// assertHarmless fails the test if the body has a tag that the pattern "tag" does not match, or an
// address that is not harmless.
func assertHarmless(t *testing.T, body string) {
	t.Helper()
	rest := tag.ReplaceAllString(body, "")
	if strings.ContainsAny(rest, "<>") {
		t.Fatalf("an element that is not listed: %q in %q", rest, body)
	}
	for _, match := range address.FindAllStringSubmatch(body, -1) {
		if to := html.UnescapeString(match[1]); !harmless.MatchString(to) {
			t.Fatalf("the address %q in %q", to, body)
		}
	}
}

// bodies returns the body of the page of a Markdown file with the text, or the first mistake.
func bodies(text string) (string, error) {
	documents := fstest.MapFS{"docs/a.md": {Data: []byte(text)}, "docs/b.md": {Data: []byte("# B\n")}, "docs/c.png": {}}
	colours := func(language, code string) []Span {
		return []Span{{language, code}, {"k", code}, {`k" onclick="x`, code}}
	}
	s := &site{bySource: map[string]*page{}, pictures: map[string][]byte{}, colours: colours}
	if err := s.read(documents); err != nil {
		return "", err
	}
	p := s.bySource["docs/a.md"]
	if all := p.check(s); len(all) > 0 {
		return "", all[0]
	}
	return string(s.body(p)), nil
}

func TestRepositoryDocumentsBecomeOnlyAllowedHTMLElements(t *testing.T) {
	files, err := Files()
	require.NoError(t, err)
	pages := 0
	for name, text := range files {
		if strings.HasSuffix(name, ".html") {
			pages++
			assertHarmless(t, bodyOf(t, text))
		}
	}
	assert.Greater(t, pages, 30)
}

// hostile are texts that try to become HTML or a script.
var hostile = []string{
	"<script>alert(1)</script>", "<!-- --><script>alert(1)</script><!-- -->", "<!--><img src=x onerror=alert(1)>-->",
	"[x](javascript:alert(1))", "[x](JaVaScRiPt:alert(1))", "[x](java\nscript:alert(1))", "[x](&#106;avascript:alert(1))",
	"[x]( javascript:alert(1))", "[x](<javascript:alert(1)>)", "[x][1]\n\n[1]: javascript:alert(1)", "<javascript:alert(1)>",
	"[x](b.md#\" onclick=\"alert(1))", "[\"><script>alert(1)</script>](b.md)", "![\" onerror=\"alert(1)](c.png)",
	"![x](c.png \"title\" onload=\"alert(1)\")", "# <img src=x> {#id onclick=alert(1)}", "{onclick=alert(1)}\n# A", "{.a onclick=x}\n\nb",
	"```\" onclick=\"alert(1)\nx\n```", "```{.go onclick=x}\nx\n```", "| <b> |\n|---|\n| <script> |", "&lt;script&gt;", "&amp;lt;", "&#60;script&#62;",
	"$$<script>$$", "$<b>$", "[^1]\n\n[^1]: <script>", "[@x](b.md)", "<<1>>", "{{include.md}}", "\\<script\\>", "[x](data:text/html;base64,PHNjcmlwdD4=)",
	"http://example.com/\"onmouseover=alert(1)", "https://example.com/<script>", "<https://example.com/\"><script>", "<a@b.c\" onclick=x>",
	"[x](https:javascript:alert(1))", "[x](https://user@example.com/)", "[x](vbscript:x)", "[x](file:///etc/passwd)", "[x](b.md?x)", "<?php ?>", "<![CDATA[<script>]]>", "<!DOCTYPE html>",
	"* a\n  <b>\n", "> <b>", "a\n: <b>", "Term\n: [x](javascript:1)", "\x00<script>", "[a](#\"\")", "# \" onclick=x", "![a](javascript:1 \"x\")",
}

func TestHostileTextIsRefusedOrBecomesAllowedElements(t *testing.T) {
	refused := 0
	for _, text := range hostile {
		body, err := bodies(text)
		if err != nil {
			refused++
			continue
		}
		assertHarmless(t, body)
	}
	assert.Greater(t, refused, len(hostile)/3, "most of these texts are refused")
	assert.Less(t, refused, len(hostile), "some of these texts are harmless")
}

func FuzzMarkdownBecomesAllowedHTMLElementsOnly(f *testing.F) {
	for _, text := range hostile {
		f.Add(text)
	}
	entries, err := metaparticle.Documents.ReadDir("docs")
	if err != nil {
		f.Fatal(err)
	}
	for _, entry := range entries[:5] {
		if text, err := metaparticle.Documents.ReadFile("docs/" + entry.Name()); err == nil {
			f.Add(string(text[:min(len(text), 2000)]))
		}
	}
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) > 4000 {
			t.Skip("long texts are slow, and find nothing more")
		}
		if body, err := bodies(text); err == nil {
			assertHarmless(t, body)
		}
	})
}

func TestHostileHTMLFailsTheHarmlessnessCheck(t *testing.T) {
	for _, body := range []string{"<script>", "<p onclick=\"x\">", "<a href=\"javascript:x\">", "<a href=\"JAVASCRIPT:x\">", "<a href=\"//example.com\">", "<img src=\"data:x\" alt=\"\" loading=\"lazy\">"} {
		rest := tag.ReplaceAllString(body, "")
		bad := strings.ContainsAny(rest, "<>")
		for _, match := range address.FindAllStringSubmatch(body, -1) {
			bad = bad || !harmless.MatchString(html.UnescapeString(match[1]))
		}
		assert.True(t, bad, body)
	}
}
