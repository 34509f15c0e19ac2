// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package docs

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/gomarkdown/markdown/ast"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"sigs.k8s.io/yaml"

	"github.com/metaparticle-io/metaparticle/api"
)

// recipe is a page of docs/how-to to which the table in recipes.md links.
type recipe struct {
	file string
	page ast.Node
}

// wholePrograms are the pages of recipes.md's table that show no annotations.
var wholePrograms = []string{"how-to/local-api-examples.md"}

func recipes(t *testing.T) []recipe {
	t.Helper()
	var found []recipe
	ast.WalkFunc(parse(t, "how-to/recipes.md"), func(node ast.Node, entering bool) ast.WalkStatus {
		if _, ok := node.(*ast.Table); !ok || !entering {
			return ast.GoToNext
		}
		for _, target := range links(node) {
			if file := filepath.Join("how-to", target); !slices.Contains(wholePrograms, file) {
				found = append(found, recipe{file: file, page: parse(t, file)})
			}
		}
		return ast.SkipChildren
	})
	require.NotEmpty(t, found)
	return found
}

// links returns the targets of all links in the node.
func links(node ast.Node) (found []string) {
	ast.WalkFunc(node, func(node ast.Node, entering bool) ast.WalkStatus {
		if link, ok := node.(*ast.Link); ok && entering {
			found = append(found, string(link.Destination))
		}
		return ast.GoToNext
	})
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

// annotations returns the annotations that the recipe's blocks of YAML have. A block is of
// annotations if it begins with one.
func (r recipe) annotations(t *testing.T) (all []map[string]string) {
	t.Helper()
	ast.WalkFunc(r.page, func(node ast.Node, entering bool) ast.WalkStatus {
		block, ok := node.(*ast.CodeBlock)
		if ok && entering && string(block.Info) == "yaml" && strings.HasPrefix(string(block.Literal), "metaparticle.io/") {
			var annotations map[string]string
			require.NoError(t, yaml.UnmarshalStrict(block.Literal, &annotations), r.file)
			all = append(all, annotations)
		}
		return ast.GoToNext
	})
	return all
}

// The rows of docs/evidence/recipes.md name the tests of each recipe.
func TestEvidencePageNamesTestsOfEachRecipe(t *testing.T) {
	exist := tests(t)
	shown := map[string]bool{}
	ast.WalkFunc(parse(t, "evidence/recipes.md"), func(node ast.Node, entering bool) ast.WalkStatus {
		row, ok := node.(*ast.TableRow)
		if !ok || !entering {
			return ast.GoToNext
		}
		if named := namedTests(t, "evidence/recipes.md", row, exist); len(named) > 0 {
			for _, target := range links(row) {
				shown[filepath.Join("evidence", target)] = true
			}
		}
		return ast.SkipChildren
	})
	for _, r := range recipes(t) {
		assert.True(t, shown[r.file], "recipe without a test in docs/evidence/recipes.md: %s", r.file)
	}
}

func TestEachRecipeStatesLimitsAndHasValidAnnotations(t *testing.T) {
	for _, r := range recipes(t) {
		blocks := r.annotations(t)
		assert.NotEmpty(t, blocks, "recipe without annotations: %s", r.file)
		for _, annotations := range blocks {
			request, err := api.Parse(annotations)
			require.NoError(t, err, r.file)
			assert.True(t, request.Injects(), r.file)
		}
		var headings []string
		for _, node := range r.page.GetChildren() {
			if heading, ok := node.(*ast.Heading); ok {
				headings = append(headings, text(heading))
			}
		}
		assert.Contains(t, headings, "What you get", r.file)
		assert.Contains(t, headings, "What to know", r.file)
	}
}

// Somebody copies these annotations into a chart's values.
func TestPatchesOfOtherPeoplesChartsAreValid(t *testing.T) {
	r := recipe{file: "how-to/charts.md", page: parse(t, "how-to/charts.md")}
	blocks := r.annotations(t)
	assert.NotEmpty(t, blocks)
	for _, annotations := range blocks {
		request, err := api.Parse(annotations)
		require.NoError(t, err)
		assert.True(t, request.Injects())
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

// Each kind of claim, and each example, needs a recipe.
func TestEachClaimKindAndExampleHasARecipe(t *testing.T) {
	claims, examples := map[string]bool{}, map[string]bool{}
	for _, r := range recipes(t) {
		for _, annotations := range r.annotations(t) {
			for key := range annotations {
				claims[key] = true
			}
		}
		for _, target := range links(r.page) {
			examples[filepath.Dir(target)] = true
		}
	}
	for _, a := range api.Annotations {
		if a.Kind != nil {
			assert.True(t, claims[a.Key], "docs/how-to has no recipe with %s", a.Key)
		}
	}
	folders, err := filepath.Glob(filepath.Join(root, "examples", "*", "*.yaml"))
	require.NoError(t, err)
	require.NotEmpty(t, folders)
	for _, file := range folders {
		assert.True(t, examples[filepath.Join("..", filepath.Dir(file))], "docs/how-to has no recipe with a link to %s", file)
	}
}
