// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package docs

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/gomarkdown/markdown/ast"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"sigs.k8s.io/yaml"

	"github.com/metaparticle-io/metaparticle/api"
)

// recipe is a part of library.md. The part begins with a heading of the third level, and ends
// before the next heading of that level or of a higher level.
type recipe struct {
	title string
	nodes []ast.Node
}

func recipes(t *testing.T) []recipe {
	t.Helper()
	var found []recipe
	inside := false
	for _, node := range parse(t, "how-to/recipes.md").GetChildren() {
		heading, ok := node.(*ast.Heading)
		switch {
		case ok && heading.Level < 3:
			inside = false
		case ok && heading.Level == 3:
			inside = true
			found = append(found, recipe{title: text(heading)})
		case inside:
			last := &found[len(found)-1]
			last.nodes = append(last.nodes, node)
		}
	}
	require.NotEmpty(t, found)
	return found
}

// text returns the words of a node, without the syntax of Markdown.
func text(node ast.Node) string {
	var b strings.Builder
	ast.WalkFunc(node, func(node ast.Node, entering bool) ast.WalkStatus {
		if leaf := node.AsLeaf(); leaf != nil && entering {
			b.Write(leaf.Literal)
		}
		return ast.GoToNext
	})
	return b.String()
}

// annotations returns the annotations that the blocks of YAML in the recipe have.
func (r recipe) annotations(t *testing.T) []map[string]string {
	t.Helper()
	var all []map[string]string
	for _, node := range r.nodes {
		if block, ok := node.(*ast.CodeBlock); ok && string(block.Info) == "yaml" {
			var annotations map[string]string
			require.NoError(t, yaml.UnmarshalStrict(block.Literal, &annotations), r.title)
			all = append(all, annotations)
		}
	}
	return all
}

func TestLibraryPageCitesOnlyExistingTests(t *testing.T) {
	exist := tests(t)
	assert.NotEmpty(t, namedTests(t, "how-to/recipes.md", parse(t, "how-to/recipes.md"), exist))
	for _, r := range recipes(t) {
		named := 0
		for _, node := range r.nodes {
			named += len(namedTests(t, "how-to/recipes.md", node, exist))
		}
		assert.NotZero(t, named, "recipe without a test: %s", r.title)
	}
}

func TestEachRecipeStatesLimitsAndHasValidAnnotations(t *testing.T) {
	for _, r := range recipes(t) {
		blocks := r.annotations(t)
		assert.NotEmpty(t, blocks, "recipe without annotations: %s", r.title)
		for _, annotations := range blocks {
			request, err := api.Parse(annotations)
			require.NoError(t, err, r.title)
			assert.True(t, request.Injects(), r.title)
		}
		words := ""
		for _, node := range r.nodes {
			words += text(node) + "\n"
		}
		for _, part := range []string{"Guaranteed: ", "Limits: ", "Tests: "} {
			assert.Contains(t, words, part, r.title)
		}
	}
}

// The first version of Metaparticle knows only singletons and locks.
func TestUpgradePageListsAnnotationsTheFirstReleaseLacks(t *testing.T) {
	page, err := os.ReadFile("operate/upgrade.md")
	require.NoError(t, err)
	list := regexp.MustCompile(`(?s)annotations (` + "`" + `metaparticle\.io/once.*?)\.\s`).FindStringSubmatch(string(page))
	require.NotEmpty(t, list)
	for _, a := range api.Annotations {
		if a.Kind != nil && a.Kind != api.Singleton && a.Kind != api.Lock {
			assert.Regexp(t, "`(metaparticle\\.io/)?"+strings.TrimPrefix(a.Key, "metaparticle.io/")+"`", list[1])
		}
	}
}

// The page library.md needs a recipe for each kind of claim, and for each example.
func TestEachClaimKindAndExampleHasLibraryRecipe(t *testing.T) {
	claims, examples := map[string]bool{}, map[string]bool{}
	for _, r := range recipes(t) {
		for _, annotations := range r.annotations(t) {
			for key := range annotations {
				claims[key] = true
			}
		}
		for _, node := range r.nodes {
			ast.WalkFunc(node, func(node ast.Node, entering bool) ast.WalkStatus {
				if link, ok := node.(*ast.Link); ok && entering {
					examples[filepath.Dir(string(link.Destination))] = true
				}
				return ast.GoToNext
			})
		}
	}
	for _, a := range api.Annotations {
		if a.Kind != nil {
			assert.True(t, claims[a.Key], "recipes.md has no recipe with %s", a.Key)
		}
	}
	folders, err := filepath.Glob(filepath.Join(root, "examples", "*", "*.yaml"))
	require.NoError(t, err)
	require.NotEmpty(t, folders)
	for _, file := range folders {
		assert.True(t, examples[filepath.Join("..", filepath.Dir(file))], "recipes.md has no recipe with a link to %s", file)
	}
}
