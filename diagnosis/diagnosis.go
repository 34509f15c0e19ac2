// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package diagnosis says what is wrong with a pod, and what to do about it. It is pure: objects and an
// instant in, a [Finding] out. The commands explain, check and status, the console and enroll's Events print
// findings, and none of them decides for itself about a pod; package console/view adds the findings of slots.
//
// A new finding of a pod is a row in the list of pod.go. The name, the meaning and the remedy of the row are
// also a section of docs/troubleshoot/reasons.md, and the answer of explain REASON.
package diagnosis

import (
	"regexp"
	"strings"

	"github.com/metaparticle-io/metaparticle/mutate/reason"
)

// Severity orders findings on a screen.
type Severity string

const (
	// Critical means that the application does not run, or runs without a gate.
	Critical Severity = "critical"
	// Warning means that something waits, or soon will.
	Warning Severity = "warning"
	// Note is what a person has done, or should know.
	Note Severity = "note"
)

// Finding is one thing that is wrong.
type Finding struct {
	// Reason is the name of the finding, as in "kubectl metaparticle explain REASON"; empty if it has none.
	Reason reason.Reason `json:"reason,omitempty"`
	// About is what the finding concerns: kind/name, or a slot; empty for what somebody asked about.
	About string `json:"about,omitempty"`
	// Says is the sentence for people, without its full stop.
	Says string `json:"says"`
	// Do tells what to do, and Run is the command that does it or tells more. Either can be empty.
	Do       string   `json:"do,omitempty"`
	Run      string   `json:"run,omitempty"`
	Severity Severity `json:"severity,omitempty"`
	// Blocks reports that a claim is not in force because of it.
	Blocks bool `json:"blocks,omitempty"`
}

// String returns the line for people.
func (f Finding) String() string {
	if name, ok := strings.CutPrefix(f.About, "pod/"); ok {
		return "pod " + name + ": " + f.Says
	}
	return f.Says // which names what it is about
}

// plain matches a word that neither a shell nor kubectl takes for more than a name.
var plain = regexp.MustCompile(`^[a-z0-9][a-z0-9./-]*$`)

// Command returns the command of kubectl about an object of the namespace; empty if a word could be more than a
// name. People paste the command into a shell, and whoever may write a Lease writes any holder into it.
func Command(namespace, of string, words ...string) string {
	if !plain.MatchString(namespace) || !plain.MatchString(of) {
		return ""
	}
	return "kubectl " + strings.Join(words, " ") + " -n " + namespace + " " + of
}

// refused matches what the API server and controllers write before the words of a refusal, and what differs from
// pod to pod: a policy's refusal names the pod, whose name is random.
var (
	refused    = regexp.MustCompile(`^(A pod was refused: |.*denied (the )?request: )`)
	refusedPod = regexp.MustCompile(`^\(combined from similar events\): |pods "[^"]*" is forbidden: `)
)

// WithoutPod returns the message of a refusal without the name of the refused pod.
func WithoutPod(message string) string {
	return strings.TrimSpace(refusedPod.ReplaceAllString(message, ""))
}

// IsRefusal reports whether the message says so in the API server's or the webhook's words.
func IsRefusal(message string) bool { return refused.MatchString(message) }

// Brief returns the first sentence of a refusal, without addresses.
func Brief(message string) string {
	first, _, _ := strings.Cut(address.ReplaceAllString(Refusal(message), ""), ". ")
	return strings.TrimSpace(strings.ReplaceAll(first, "\n", " "))
}

// address matches a link, with the brackets around it.
var address = regexp.MustCompile(`\s*\(?(see )?https?://[^\s)]+\)?`)

// Refusal returns the words of whoever refused a pod, without what the API server says around them.
func Refusal(message string) string {
	return refused.ReplaceAllString(WithoutPod(message), "")
}

// Explained returns the meaning of each reason that this package gives a pod.
func Explained() (all []reason.Explanation) {
	for _, r := range pods {
		all = append(all, r.Explanation)
	}
	return all
}
