// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package pages

import (
	"path"
	"slices"
)

// group is a group of pages in the navigation.
type group struct {
	title string
	// sources are the first Markdown files of the group, in the order of the navigation. The other
	// Markdown files of the folder follow, sorted by path.
	sources []string
	folder  string
}

// order is the navigation. If no group names a Markdown file, the file belongs to the group
// of its folder.
var order = []group{
	{title: "Start", sources: []string{"README.md", "docs/install.md"}},
	{title: "Tutorials", folder: "docs/tutorials", sources: []string{
		"docs/tutorials/worker-runs-once.md", "docs/tutorials/nightly-job.md", "docs/tutorials/election-library.md",
		"docs/tutorials/client-go-leases.md", "docs/tutorials/await-election.md",
	}},
	{title: "Guides", sources: []string{
		"docs/library.md", "examples/README.md", "docs/rollouts.md", "docs/api.md", "docs/alerts.md", "docs/disaster.md", "docs/security.md",
	}},
	{title: "Reference", folder: "docs", sources: []string{
		"docs/annotations.md", "docs/guarantees.md", "docs/compatibility.md", "docs/reasons.md", "docs/pods.md", "docs/metrics.md",
		"docs/benchmarks.md", "docs/architecture.md",
	}},
	{title: "Project", folder: ".", sources: []string{"CONTRIBUTING.md", "CHANGELOG.md"}},
	{title: "Decisions", folder: "docs/decisions"},
}

// arrange returns the pages of each group, in the order of the navigation. The function leaves
// out a file that a group names, but that does not exist.
func arrange(all []*page) [][]*page {
	arranged := make([][]*page, len(order))
	placed := map[*page]bool{}
	for i, g := range order {
		for _, source := range g.sources {
			if j := slices.IndexFunc(all, func(p *page) bool { return p.source == source }); j >= 0 {
				arranged[i] = append(arranged[i], all[j])
				placed[all[j]] = true
			}
		}
	}
	for _, p := range all {
		if !placed[p] {
			i := folderOf(p.source)
			arranged[i] = append(arranged[i], p)
		}
	}
	return arranged
}

// folderOf returns the index of the group whose folder is the nearest folder above a Markdown file.
func folderOf(source string) int {
	for dir := path.Dir(source); ; dir = path.Dir(dir) {
		if i := slices.IndexFunc(order, func(g group) bool { return g.folder == dir }); i >= 0 {
			return i
		}
	}
}
