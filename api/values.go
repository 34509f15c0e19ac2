// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	// maxLabel bounds the length of a name that is one DNS label, such as the name of a container
	// or of a singleton.
	maxLabel = 63
	// maxName bounds the name of a Lease. Kubernetes has the same bound for every object.
	maxName = 253
	// maxAfter bounds the number of conditions of a pod. For each condition, the pod's service
	// account gets a right on a Lease.
	maxAfter = 8
	// maxListed bounds the number of names in one annotation. A pod with hundreds of slots is a
	// mistake, but the API server accepts annotations of 256 KiB.
	maxListed = 32
	// maxAnyOne bounds the slots of which a pod needs any one, because a standby watches all of
	// them. A slot's number then has two digits at most, so that the names of Leases stay short.
	maxAnyOne = 64
)

func setContainers(r *Request, value string) (problem string) {
	r.Containers, problem = list(value, "container", func(name string) string {
		switch {
		case slices.Contains(Injected, name):
			return fmt.Sprintf("%s is injected and cannot wait for itself", name)
		case len(name) > maxLabel || !isLabel(name):
			return fmt.Sprintf("%q cannot be a container's name", brief(name))
		}
		return ""
	})
	return problem
}

// mostWrong bounds the problems that the message about one list names.
const mostWrong = 5

// list splits a comma-separated list, sorts the elements and removes duplicates. If elements are
// wrong, or if the list is too long, the second result says what is wrong.
func list(value, noun string, problem func(string) string) ([]string, string) {
	var names, problems []string
	for name := range strings.SplitSeq(value, ",") {
		name = strings.TrimSpace(name)
		if name == "" {
			return nil, fmt.Sprintf("name at least one %s, and none empty, separated by commas", noun)
		}
		if wrong := problem(name); wrong != "" {
			if !slices.Contains(problems, wrong) {
				problems = append(problems, wrong)
			}
			if len(problems) == mostWrong {
				break
			}
			continue
		}
		if slices.Contains(names, name) {
			continue
		}
		if len(names) == maxListed {
			return nil, fmt.Sprintf("name at most %d", maxListed)
		}
		names = append(names, name)
	}
	if len(problems) > 0 {
		return nil, strings.Join(problems, "; ")
	}
	slices.Sort(names)
	return names, ""
}

func setLeaseDuration(r *Request, value string) string {
	d, problem := duration(value, `"30s" or "2m"`)
	if problem != "" {
		return problem
	}
	if _, err := NewBudget(d); err != nil {
		return err.Error()
	}
	r.LeaseDuration = d
	return ""
}

// maxEndpointDelay is the longest time for which load balancers commonly send new
// connections to a target that was removed.
const maxEndpointDelay = 5 * time.Minute

func setEndpointDelay(r *Request, value string) string {
	d, problem := duration(value, `"2s" or "0s"`)
	switch {
	case problem != "":
		return problem
	case d < 0 || d > maxEndpointDelay:
		return fmt.Sprintf("write a duration from 0s to %v", maxEndpointDelay)
	}
	r.EndpointDelay = &d
	return ""
}

// maxWait bounds the time for which a container waits: one year. With this bound, no sum of
// durations overflows.
const maxWait = 365 * 24 * time.Hour

func setWaitAtMost(r *Request, value string) string {
	d, problem := duration(value, `"30s" or "10m"`)
	switch {
	case problem != "":
		return problem
	case d < time.Second || d > maxWait:
		return fmt.Sprintf("write a duration from 1s to %vh", maxWait.Hours())
	}
	r.WaitAtMost = d
	return ""
}

// duration reads a duration, or says what is wrong with the value.
func duration(value, examples string) (d time.Duration, problem string) {
	d, err := time.ParseDuration(value)
	switch {
	case err != nil && digits(value):
		return 0, fmt.Sprintf("write %ss", value)
	case err != nil:
		return 0, "write a duration like " + examples
	}
	return d, ""
}

// digits reports whether the value is a number of at most six digits. Such a value probably lacks
// only its unit, the letter s. For a longer number, the error message shows an example.
func digits(s string) bool {
	return s != "" && len(s) <= 6 && strings.Trim(s, "0123456789") == ""
}

func setInject(r *Request, value string) string {
	switch value {
	case "false":
		r.OptOut = true
	case "true":
	default:
		return `write "true" or "false"`
	}
	return ""
}

// oneOf returns a function that sets a field to one of the given words, and refuses every other
// value.
func oneOf[S ~string](field func(*Request) *S, words ...S) func(*Request, string) string {
	return func(r *Request, value string) string {
		if slices.Contains(words, S(value)) {
			*field(r) = S(value)
			return ""
		}
		return "write " + choice(words)
	}
}

// choice joins words to a choice: "a", "b" or "c".
func choice[S ~string](words []S) string {
	var b strings.Builder
	for i, word := range words {
		switch {
		case i == 0:
		case i == len(words)-1:
			b.WriteString(" or ")
		default:
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%q", word)
	}
	return b.String()
}

// isLabel reports whether s is a DNS label (RFC 1123), of any length. isLabel does not
// use package regexp, which would enlarge the agent in each gated pod.
func isLabel(s string) bool {
	for _, c := range []byte(s) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return s != "" && s[0] != '-' && s[len(s)-1] != '-'
}

// isSubdomain reports whether s consists of DNS labels, joined by dots (RFC 1123).
func isSubdomain(s string) bool {
	for part := range strings.SplitSeq(s, ".") {
		if !isLabel(part) {
			return false
		}
	}
	return true
}

// Platforms has an image's command for each architecture, if the commands differ. The
// webhook does not know the node yet, so the shim picks a command at its start.
type Platforms map[string]PlatformCommand

// PlatformCommand is an image's command on one architecture.
type PlatformCommand struct {
	// Command is the first part of the child's command. The rest of that command is in the
	// shim's arguments, after "--".
	Command []string `json:"command"`
	// StopSignal is the image's stop signal; empty if the image has none.
	StopSignal string `json:"stopSignal,omitempty"`
}

// parsePlatforms reads the text of [Platforms.String].
func parsePlatforms(s string) (Platforms, error) {
	var p Platforms
	if err := json.Unmarshal([]byte(s), &p); err != nil {
		return nil, fmt.Errorf("read platforms: %w", err)
	}
	return p, nil
}

// String returns the platforms as JSON.
func (p Platforms) String() string { return mustJSON(p) }

// The map "also" leads from an architecture to an older architecture, whose images the same nodes
// can run.
var also = map[string]string{"arm64": "arm", "amd64": "386"}

// For returns the image's command on the architecture with the name arch (GOARCH). If p has no
// command for arch, the result is the command for the older architecture in the map "also". If p
// has neither command, the second result is false.
func (p Platforms) For(arch string) (PlatformCommand, bool) {
	if c, ok := p[arch]; ok {
		return c, true
	}
	c, ok := p[also[arch]]
	return c, ok
}

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

// ErrNoSignal means that a text names no signal of Linux. ErrKeptSignal means that a shim cannot
// pass the signal on.
var (
	ErrNoSignal   = errors.New("is not a signal: name one, such as SIGTERM")
	ErrKeptSignal = errors.New("cannot be passed on: take another")
)

// The first and the last real-time signal, as container runtimes and glibc count them. For musl, the
// first is 35.
const (
	firstRealTime = 34
	lastRealTime  = 64
)

// ParseStopSignal reads the STOPSIGNAL of an image, or a lifecycle.stopSignal. The text is a name with
// or without its prefix (SIGQUIT, QUIT), a number (3), or an offset (SIGRTMIN+3, SIGRTMAX-3). The error
// is [ErrNoSignal] or [ErrKeptSignal].
func ParseStopSignal(text string) (syscall.Signal, error) {
	n := signalNumber(strings.TrimPrefix(strings.ToUpper(text), "SIG"), text)
	switch {
	case n == 0:
		return 0, ErrNoSignal
	case slices.Contains(keptSignals, n):
		return 0, ErrKeptSignal
	}
	return syscall.Signal(n), nil
}

// signalNumber returns the number of the signal with the name, or with the number in the argument
// "text"; zero for none.
func signalNumber(name, text string) int {
	if n := number(text, lastRealTime); n > 0 {
		return n
	}
	if i := slices.Index(signalNames, name); i >= 0 && name != "" {
		return i
	}
	if n, ok := otherNames[name]; ok {
		return n
	}
	if above, ok := strings.CutPrefix(name, "RTMIN+"); ok {
		if n := number(above, lastRealTime-firstRealTime); n >= 0 {
			return firstRealTime + n
		}
	}
	if below, ok := strings.CutPrefix(name, "RTMAX-"); ok {
		if n := number(below, lastRealTime-firstRealTime); n >= 0 {
			return lastRealTime - n
		}
	}
	return 0
}

// number reads a decimal number without a sign; -1 if the text is none, or is above the argument "most".
func number(text string, most uint64) int {
	n, err := strconv.ParseUint(text, 10, 8)
	if err != nil || n > most {
		return -1
	}
	return int(n)
}

// signalNames are the names of the signals of Linux (signal(7), amd64 and arm64), without the prefix
// "SIG". The index of a name is its number.
var signalNames = []string{
	"", "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM", "TERM",
	"STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
}

// otherNames are further names of signals.
var otherNames = map[string]int{"CLD": 17, "IOT": 6, "POLL": 29, "RTMIN": firstRealTime, "RTMAX": lastRealTime}

// keptSignals are the signals that a shim cannot pass on. The shim needs SIGCHLD to reap children. The
// Go runtime or the C library uses the other signals: SIGURG, SIGPROF, 32, 33, and SIGRTMIN.
var keptSignals = []int{17, 23, 27, 32, 33, firstRealTime}
