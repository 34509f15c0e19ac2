// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"cmp"
	"errors"
	"slices"
	"strconv"
	"strings"
)

// Port is a port that a standby forwards to the holder.
type Port struct {
	Number int
	UDP    bool
	// Probed reports that only a probe names the port. An agent that cannot listen on such a port does
	// without it, because no declaration promises that the application serves clients there.
	Probed bool
}

const (
	udpSuffix    = "/udp"
	probedSuffix = "?"
)

// String returns the port as the agent's arguments have it.
func (p Port) String() string {
	text := strconv.Itoa(p.Number)
	if p.UDP {
		text += udpSuffix
	}
	if p.Probed {
		text += probedSuffix
	}
	return text
}

// Ports is a list of ports.
type Ports []Port

// Declared returns the ports without those that only a probe names.
func (all Ports) Declared() Ports {
	return slices.DeleteFunc(slices.Clone(all), func(p Port) bool { return p.Probed })
}

// Has reports whether the list has a port of the number and the protocol.
func (all Ports) Has(number int, udp bool) bool {
	return slices.ContainsFunc(all, func(p Port) bool { return p.Number == number && p.UDP == udp })
}

// Sorted returns the ports in the order of their numbers. If the list has a port twice, a declared one
// counts.
func (all Ports) Sorted() Ports {
	bit := func(b bool) int {
		if b {
			return 1
		}
		return 0
	}
	sorted := slices.SortedFunc(slices.Values(all), func(a, b Port) int {
		return cmp.Or(cmp.Compare(a.Number, b.Number), cmp.Compare(bit(a.UDP), bit(b.UDP)), cmp.Compare(bit(a.Probed), bit(b.Probed)))
	})
	return slices.CompactFunc(sorted, func(a, b Port) bool { return a.Number == b.Number && a.UDP == b.UDP })
}

func (all Ports) String() string {
	var words []string
	for _, p := range all {
		words = append(words, p.String())
	}
	return strings.Join(words, ",")
}

func parsePorts(list string) (Ports, error) {
	var ports Ports
	for _, word := range split(list) {
		word, probed := strings.CutSuffix(word, probedSuffix)
		p, ok := parsePort(word)
		if !ok {
			return nil, errors.New("write port numbers, separated by commas")
		}
		p.Probed = probed
		ports = append(ports, p)
	}
	return ports, nil
}

// parsePort reads a number, or a number with the suffix /udp.
func parsePort(word string) (Port, bool) {
	word, udp := strings.CutSuffix(word, udpSuffix)
	n, err := strconv.ParseUint(strings.TrimSuffix(word, "/tcp"), 10, 16)
	return Port{Number: int(n), UDP: udp}, err == nil && n > 0
}

func setPorts(r *Request, value string) string {
	var ports Ports
	_, problem := list(value, "port", func(word string) string {
		p, ok := parsePort(strings.ToLower(word))
		if !ok {
			return `write port numbers such as "8080" or "53/udp", separated by commas`
		}
		ports = append(ports, p)
		return ""
	})
	if problem == "" {
		r.Ports = ports.Sorted()
	}
	return problem
}
