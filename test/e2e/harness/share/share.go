// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package share divides the end-to-end tests between clusters. All shares together have each test
// once.
package share

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Outside returns the tests that are outside of a share. The share I/N has each Nth serial test, from
// test I on, and the share parallel has the parallel tests. The empty share has all tests.
func Outside(share string, serial, parallel []string) (tests []string, err error) {
	switch share {
	case "":
		return nil, nil
	case "parallel":
		return serial, nil
	}
	first, last, _ := strings.Cut(share, "/")
	own, _ := strconv.Atoi(first)
	all, _ := strconv.Atoi(last)
	if own < 1 || own > all {
		return nil, fmt.Errorf("-share %q: write parallel, or two numbers such as 2/3, of which the first is at most the second", share)
	}
	tests = slices.Clone(parallel)
	for i, name := range serial {
		if i%all != own-1 {
			tests = append(tests, name)
		}
	}
	return tests, nil
}
