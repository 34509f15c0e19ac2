// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package pages

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/test/browser/tab"
)

// TestScreenshotsOfPages writes screenshots for a person to look at, for example with PICTURES=/tmp/pictures
// PAGES="index.html reference/annotations.html". JS is a statement that runs before the picture is taken.
func TestScreenshotsOfPages(t *testing.T) {
	dir := os.Getenv("PICTURES")
	if dir == "" {
		t.Skip("PICTURES names no folder")
	}
	address, prefers := serve(t), tab.Light
	if os.Getenv("DARK") != "" {
		prefers = tab.Dark
	}
	for page := range strings.FieldsSeq(os.Getenv("PAGES")) {
		for _, width := range []int64{1280, 390} {
			p := tab.Open(t, address+page, width, prefers)
			p.Script(os.Getenv("JS"))
			file := fmt.Sprintf("%s-%d.png", strings.ReplaceAll(page, "/", "_"), width)
			require.NoError(t, os.WriteFile(filepath.Join(dir, file), p.View(), 0o600))
		}
	}
}
