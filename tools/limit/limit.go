// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package limit compares measured figures with tables of upper limits. The limits may only
// fall.
//
// The first line that is not a comment names the columns. Each further line is a row:
// a folder, and a limit for each column.
//
//	folder   long  subject
//	agent      12       40
//	agent/kube  0        1
//
// A folder is judged by its own row, or else by the row of the nearest folder above. If a row
// judges several folders, their counts are joined. The caller chooses the sum or the maximum.
// A folder that no row judges has no room: its limits are zero.
package limit

import (
	"fmt"
	"maps"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
)

// Counts are the measured figures of each folder, in the order of the columns.
type Counts map[string][]int

// Table is a file of limits.
type Table struct {
	comments []string
	columns  []string
	rows     map[string][]int
}

// Read reads the table of a file.
func Read(file string) (*Table, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	t := &Table{rows: map[string][]int{}}
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		switch {
		case len(fields) == 0:
		case strings.HasPrefix(line, "#"):
			t.comments = append(t.comments, line)
		case t.columns == nil:
			t.columns = fields[1:]
		default:
			row, err := numbers(fields[1:])
			if err != nil || len(row) != len(t.columns) || t.rows[fields[0]] != nil {
				return nil, fmt.Errorf("%s: bad row %q", file, line)
			}
			t.rows[fields[0]] = row
		}
	}
	return t, nil
}

func numbers(fields []string) ([]int, error) {
	var all []int
	for _, field := range fields {
		n, err := strconv.Atoi(field)
		if err != nil {
			return nil, err
		}
		all = append(all, n)
	}
	return all, nil
}

// Sum and Max join the counts of the folders of one row.
var (
	Sum = func(a, b int) int { return a + b }
	Max = func(a, b int) int { return max(a, b) }
)

// Exceeded returns a sentence for each count that is above its limit.
func (t *Table) Exceeded(counts Counts, join func(a, b int) int) []string {
	var found []string
	joined := t.joined(counts, join)
	for _, folder := range slices.Sorted(maps.Keys(joined)) {
		for i, column := range t.columns {
			if is, most := joined[folder][i], t.limit(folder, i); is > most {
				found = append(found, fmt.Sprintf("%s: %s is %d, the limit is %d", folder, column, is, most))
			}
		}
	}
	return found
}

// Split gives each folder in the argument "counts" a row of its own, with the limits that judged
// the folder before. Split drops the rows of folders without counts.
func (t *Table) Split(counts Counts) {
	rows := map[string][]int{}
	for folder := range counts {
		if row := t.rows[t.rowOf(folder)]; row != nil {
			rows[folder] = slices.Clone(row)
		} else {
			rows[folder] = make([]int, len(t.columns))
		}
	}
	t.rows = rows
}

// Lower lowers each limit to the measured figure. If a row judges no measured folder, its limits
// become zero. No limit is ever raised.
func (t *Table) Lower(counts Counts, join func(a, b int) int) {
	joined := t.joined(counts, join)
	for folder, row := range t.rows {
		for i := range row {
			if is := joined[folder]; is != nil {
				row[i] = min(row[i], is[i])
			} else {
				row[i] = 0
			}
		}
	}
}

// Write writes the table to a file, with its comments. The rows are sorted by folder.
func (t *Table) Write(file string) error {
	var b strings.Builder
	for _, comment := range t.comments {
		b.WriteString(comment)
	}
	fmt.Fprintf(&b, "%-32s", "folder")
	for _, column := range t.columns {
		fmt.Fprintf(&b, " %8s", column)
	}
	for _, folder := range slices.Sorted(maps.Keys(t.rows)) {
		fmt.Fprintf(&b, "\n%-32s", folder)
		for _, n := range t.rows[folder] {
			fmt.Fprintf(&b, " %8d", n)
		}
	}
	b.WriteString("\n")
	return os.WriteFile(file, []byte(b.String()), 0o644)
}

// joined returns the counts of each row: the counts of all folders that the row judges are
// joined into one. A folder that no row judges keeps its own counts.
func (t *Table) joined(counts Counts, join func(a, b int) int) Counts {
	all := Counts{}
	for folder, each := range counts {
		row := t.rowOf(folder)
		if all[row] == nil {
			all[row] = slices.Clone(each)
			continue
		}
		for i, n := range each {
			all[row][i] = join(all[row][i], n)
		}
	}
	return all
}

// rowOf returns the folder of the row that judges the given folder. If no row does, rowOf
// returns the given folder.
func (t *Table) rowOf(folder string) string {
	for at := folder; ; at = path.Dir(at) {
		if t.rows[at] != nil {
			return at
		}
		if at == "." || at == "/" {
			return folder
		}
	}
}

func (t *Table) limit(folder string, column int) int {
	if row := t.rows[folder]; row != nil {
		return row[column]
	}
	return 0
}
