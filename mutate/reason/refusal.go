// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package reason

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/metaparticle-io/metaparticle/api"
)

const (
	// MaxName bounds a name in a message, in bytes. Kubernetes allows at most 253 bytes for a name.
	// Most names of images are shorter than the bound, too.
	MaxName = 256
	// MaxCause bounds the cause of a failure in a message, in bytes. A cause has a name or two, and
	// the step that failed.
	MaxCause = 1024
	// maxRefusals bounds the sentences of one answer, because a pod may have thousands of
	// containers.
	maxRefusals = 20
)

// Refusal is one reason against an object. For a workload the refusal is a warning.
type Refusal struct {
	Reason Reason
	// Detail names the container, the field or the value.
	Detail string
}

func (r Refusal) Error() string { return r.brief() + " (" + Link(r.Reason) + ")" }

// brief is the error without the link.
func (r Refusal) brief() string {
	text := fmt.Sprintf("%s: %s", r.Reason, r.Detail)
	if do := explain(r.Reason).Do; do != "" {
		text += ": " + do
	}
	return text
}

// explain returns the explanation of a reason. If [All] does not list the reason, the result has
// only the reason.
func explain(r Reason) Explanation {
	for _, e := range All {
		if e.Reason == r {
			return e
		}
	}
	return Explanation{Reason: r}
}

// Refuses reports whether the reason can refuse an object.
func Refuses(r Reason) bool { return !explain(r).WarnOnly }

// Refusals has all refusals of an object.
type Refusals []Refusal

func (r Refusals) Error() string { return strings.Join(r.Lines(), "; ") }

// Lines returns a sentence for each of the first refusals, and a line with the number of
// further refusals. Of the refusals with one reason, only the first has the link.
func (r Refusals) Lines() []string {
	var lines []string
	linked := map[Reason]bool{}
	for i, refusal := range r {
		switch {
		case i == maxRefusals:
			return append(lines, fmt.Sprintf("and %d more", len(r)-maxRefusals))
		case linked[refusal.Reason]:
			lines = append(lines, refusal.brief())
		default:
			lines = append(lines, refusal.Error())
		}
		linked[refusal.Reason] = true
	}
	return lines
}

// Add appends a refusal with a formatted detail. Add cuts names and causes, because an object that
// is not validated yet may have names of any length.
func (r *Refusals) Add(reason Reason, format string, args ...any) {
	for i, arg := range args {
		switch arg := arg.(type) {
		case string:
			args[i] = api.Brief(arg, MaxName)
		case error:
			// A joined error has several lines; a refusal is one line.
			args[i] = api.Brief(strings.ReplaceAll(arg.Error(), "\n", "; "), MaxCause)
		}
	}
	*r = append(*r, Refusal{Reason: reason, Detail: fmt.Sprintf(format, args...)})
}

// Mistaken returns a refusal for each mistake in the annotations of an object.
func Mistaken(mistakes api.Mistakes) Refusals {
	var refusals Refusals
	for _, m := range mistakes {
		refusals = append(refusals, Refusal{BadAnnotation, m.Error()})
	}
	return refusals
}

// Of returns the reasons of an error that is [Refusals], each once.
func Of(err error) []Reason {
	refusals, _ := errors.AsType[Refusals](err)
	var reasons []Reason
	for _, r := range refusals {
		if !slices.Contains(reasons, r.Reason) {
			reasons = append(reasons, r.Reason)
		}
	}
	return reasons
}
