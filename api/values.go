// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"fmt"
	"slices"
	"strings"
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

// A handover costs seconds without service, so a pause of some seconds (a garbage collection, one
// slow answer) is better waited out. Between two handovers of hung holders the wait grows to an hour,
// so no longer patience is of use.
const (
	minYieldAfter = 5 * time.Second
	maxYieldAfter = time.Hour
)

// Shorter outages need no failsafe, but a longer lease duration. The longest one is about what fits
// into [MaxLeaseDuration].
const (
	minFailsafe = time.Minute
	maxFailsafe = 45 * time.Minute
)

// failsafeAlone is the word by which a person states that the workload has one replica, so that nobody
// else waits for the Lease.
const failsafeAlone = "alone"

func setFailsafe(r *Request, value string) (problem string) {
	r.Failsafe, problem = ParseFailsafe(value)
	return problem
}

// ParseFailsafe reads the value of [FailsafeAnnotation]. For another text, the result "problem" says what to
// write.
func ParseFailsafe(value string) (f Failsafe, problem string) {
	text, alone, more := strings.Cut(value, ",")
	d, problem := duration(text, `"10m" or "10m,alone"`)
	switch {
	case problem != "":
		return Failsafe{}, problem
	case d < minFailsafe || d > maxFailsafe:
		return Failsafe{}, fmt.Sprintf("write a duration from %v to %v", minFailsafe, maxFailsafe)
	case more && alone != failsafeAlone:
		return Failsafe{}, fmt.Sprintf(`write "%s,%s" for a workload of one replica, and "%s" for a workload with standbys`, text, failsafeAlone, text)
	}
	return Failsafe{Outage: d, Alone: more}, ""
}

func setYieldAfter(r *Request, value string) string {
	d, problem := duration(value, `"60s" or "5m"`)
	switch {
	case problem != "":
		return problem
	case d < minYieldAfter || d > maxYieldAfter:
		return fmt.Sprintf("write a duration from %v to %v", minYieldAfter, maxYieldAfter)
	}
	r.YieldAfter = d
	return ""
}

func setPrefer(r *Request, value string) (problem string) {
	r.Prefer, problem = parsePreference(value)
	return problem
}

// parsePreference reads the text of [Preference.String]. The value of the label must not be empty: the
// downward API has an empty value for a missing label, too.
func parsePreference(text string) (Preference, string) {
	key, value, _ := strings.Cut(text, "=")
	prefix, name, prefixed := strings.Cut(key, "/")
	if !prefixed {
		name = key
	}
	switch {
	case !IsKey(name) || prefixed && (len(prefix) > maxName || !isSubdomain(prefix)):
		return Preference{}, "write the key and the value of a label, as in topology.kubernetes.io/zone=zone-a"
	case !IsKey(value):
		return Preference{}, "after the = write the value of a label: at most 63 letters, digits, dashes, dots and underscores, with a letter or digit at both ends"
	case strings.HasPrefix(key, Prefix):
		return Preference{}, "no pod is preferred by a label that Metaparticle itself writes"
	}
	return Preference{Key: key, Value: value}, ""
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
