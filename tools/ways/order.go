// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"math/bits"
	"slices"
)

// mostExact is the length of the longest circle that bestOrder orders exactly. For that
// length, exactOrder compares 2²² sets of files in a fifth of a second.
const mostExact = 22

// bestOrder returns an order of things in which the fewest arrows go up. With a circle
// longer than mostExact, the order may be a little worse. An arrow goes up if it leads from
// a later thing to an earlier thing. The bits of arrows[i] are the things that thing i
// calls. Only things that call each other in a circle need a search.
func bestOrder(arrows []uint64) []int {
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

// upward returns the arrows that go up in an order, as pairs.
func upward(order []int, arrows []uint64) [][2]int {
	var up [][2]int
	above := uint64(0)
	for _, i := range order {
		for _, j := range order {
			if arrows[i]&above&(1<<j) != 0 {
				up = append(up, [2]int{i, j})
			}
		}
		above |= 1 << i
	}
	return up
}

// exactOrder returns an order of the circle with the fewest arrows up. For each subset s
// of the circle, best[s] is the fewest arrows up within s, over all orders of s.
func exactOrder(circle []int, arrows []uint64) []int {
	inner := make([]uint32, len(circle)) // arrows inside of the circle
	for i, from := range circle {
		for j, to := range circle {
			if arrows[from]&(1<<to) != 0 {
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
// helps. Its order may be a little worse than the best one.
func siftedOrder(circle []int, arrows []uint64) []int {
	order := slices.Clone(circle)
	fewest := len(upward(order, arrows))
	for moved := true; moved; {
		moved = false
		for _, thing := range circle {
			rest := slices.DeleteFunc(slices.Clone(order), func(i int) bool { return i == thing })
			for at := range len(order) {
				tried := slices.Insert(slices.Clone(rest), at, thing)
				if up := len(upward(tried, arrows)); up < fewest {
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
func circles(arrows []uint64) [][]int {
	var all [][]int
	var stack []int
	number := make([]int, len(arrows)) // the number of each visited thing; zero for the others
	low := make([]int, len(arrows))
	onStack := uint64(0)
	next := 1
	var visit func(i int)
	visit = func(i int) {
		number[i], low[i] = next, next
		next++
		stack, onStack = append(stack, i), onStack|1<<i
		for rest := arrows[i]; rest != 0; rest &= rest - 1 {
			j := bits.TrailingZeros64(rest)
			if number[j] == 0 {
				visit(j)
				low[i] = min(low[i], low[j])
			} else if onStack&(1<<j) != 0 {
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
			onStack &^= 1 << j
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
