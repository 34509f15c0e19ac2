// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package pages

import (
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
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
			assert.Contains(t, []string{"style.css", "search.js"}, strings.TrimLeft(match[1], "./"), name)
		}
		if strings.HasSuffix(name, ".html") {
			assert.Len(t, loads, 2, name)
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
