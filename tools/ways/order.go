// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"math/bits"
	"slices"
)

// mostExact is the length of the longest circle of calls for which bestOrder surely finds the
// best order. For that length, exactOrder compares 2²² sets of files in a fifth of a second.
const mostExact = 22

// set has the files of a package, by number. A package of more than 256 files causes a run-time
// error, so no arrow from a file to another file is lost without notice.
type set [4]uint64

func (s *set) add(i int) { s[i/64] |= 1 << (i % 64) }

func (s *set) remove(i int) { s[i/64] &^= 1 << (i % 64) }

func (s *set) has(i int) bool { return s[i/64]&(1<<(i%64)) != 0 }

// all returns the numbers in the set, in rising order.
func (s *set) all() []int {
	var numbers []int
	for word, rest := range s {
		for ; rest != 0; rest &= rest - 1 {
			numbers = append(numbers, 64*word+bits.TrailingZeros64(rest))
		}
	}
	return numbers
}

// bestOrder returns an order of things in which the fewest arrows go up. With a circle
// longer than mostExact, the order may be a little worse. An arrow goes up if it leads from
// a later thing to an earlier thing. The set arrows[i] has the things that thing i
// calls. Only things that call each other in a circle need a search.
func bestOrder(arrows []set) []int {
	var order []int
	for _, circle := range circles(arrows) {
		if len(circle) <= mostExact {
			order = append(order, exactOrder(circle, arrows)...)
		} else {
			order = append(order, siftedOrder(circle, arrows)...)
		}
	}
	return order
}

// upward returns the arrows that lead from a later thing of the order to an earlier thing. Each
// arrow is a pair.
func upward(order []int, arrows []set) [][2]int {
	var up [][2]int
	for at, i := range order {
		for _, j := range order[:at] {
			if arrows[i].has(j) {
				up = append(up, [2]int{i, j})
			}
		}
	}
	return up
}

// countUp returns the number of arrows that lead from a later thing of the order to an earlier
// thing.
func countUp(order []int, arrows []set) (number int) {
	var above set
	for _, i := range order {
		for word, files := range above {
			number += bits.OnesCount64(arrows[i][word] & files)
		}
		above.add(i)
	}
	return number
}

// exactOrder returns an order of the circle in which the fewest arrows go up, from a later
// thing to an earlier thing. For each subset s of the circle, best[s] is the smallest number of
// arrows that go up within s, over all orders of s.
func exactOrder(circle []int, arrows []set) []int {
	inner := make([]uint32, len(circle)) // arrows inside of the circle
	for i, from := range circle {
		for j, to := range circle {
			if arrows[from].has(to) {
				inner[i] |= 1 << j
			}
		}
	}
	best := make([]uint16, 1<<len(circle))
	lowest := func(s int) (last int, fewest uint16) {
		last, fewest = -1, 0
		for rest := uint32(s); rest != 0; rest &= rest - 1 {
			i := bits.TrailingZeros32(rest)
			above := s &^ (1 << i)
			if up := best[above] + uint16(bits.OnesCount32(inner[i]&uint32(above))); last < 0 || up <= fewest {
				last, fewest = i, up
			}
		}
		return last, fewest
	}
	for s := 1; s < len(best); s++ {
		_, best[s] = lowest(s)
	}
	var order []int
	for s := len(best) - 1; s != 0; {
		last, _ := lowest(s)
		order = append(order, circle[last])
		s &^= 1 << last
	}
	slices.Reverse(order)
	return order
}

// siftedOrder moves one thing after the other to its best place, until no move
// helps. The resulting order may be a little worse than the best order.
func siftedOrder(circle []int, arrows []set) []int {
	order := slices.Clone(circle)
	fewest := countUp(order, arrows)
	for moved := true; moved; {
		moved = false
		for _, thing := range circle {
			rest := slices.DeleteFunc(slices.Clone(order), func(i int) bool { return i == thing })
			for at := range len(order) {
				tried := slices.Insert(slices.Clone(rest), at, thing)
				if up := countUp(tried, arrows); up < fewest {
					order, fewest, moved = tried, up, true
				}
			}
		}
	}
	return order
}

// circles returns the groups of things that call each other in a circle. A thing that is in no
// circle is a group of its own. Groups of callers come before groups of callees (Tarjan's
// algorithm, in reverse order).
func circles(arrows []set) [][]int {
	var all [][]int
	var stack []int
	number := make([]int, len(arrows)) // the number of each visited thing; zero for the others
	low := make([]int, len(arrows))
	var onStack set
	next := 1
	var visit func(i int)
	visit = func(i int) {
		number[i], low[i] = next, next
		next++
		stack = append(stack, i)
		onStack.add(i)
		for _, j := range arrows[i].all() {
			if number[j] == 0 {
				visit(j)
				low[i] = min(low[i], low[j])
			} else if onStack.has(j) {
				low[i] = min(low[i], number[j])
			}
		}
		if low[i] != number[i] {
			return
		}
		at := slices.Index(stack, i)
		circle := slices.Sorted(slices.Values(stack[at:]))
		stack = stack[:at]
		for _, j := range circle {
			onStack.remove(j)
		}
		all = append(all, circle)
	}
	for i := range arrows {
		if number[i] == 0 {
			visit(i)
		}
	}
	slices.Reverse(all)
	return all
}
