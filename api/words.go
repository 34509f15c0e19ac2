// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"slices"
	"strconv"
	"strings"
)

// Say is what a pod says to the holder of its slot: a wish for the slot, or an answer to the holder's
// announcement.
type Say string

const (
	WantsNewer     Say = "newer"     // a wish: the pod's revision is newer than the holder's
	WantsBack      Say = "back"      // a wish: the pod's revision is proven, and the holder's is not
	WantsPreferred Say = "preferred" // a wish: the pod matches [PreferAnnotation], and the holder does not

	Stays  Say = "stays"  // an answer: the pod stays Ready, and forwards connections while the holder leaves
	Takes  Say = "takes"  // an answer: the pod can take the slot now
	Either Say = "either" // an answer: the pod can take the slot, and it stays if another pod takes it
	// Prepared answers that the holder's application may stop, as far as this pod is concerned: no node sends the
	// successor connections, and every other pod lets new connections wait.
	Prepared Say = "prepared"

	// Supports offers the holder to promise, in an outage of the API server, not to take the slot ([Supporters]).
	Supports Say = "supports"
)

// Wish reports whether the word is a wish for the slot, and not an answer.
func (s Say) Wish() bool { return s == WantsNewer || s == WantsBack || s == WantsPreferred }

// kind tells apart the words that have a bound of their own in a next Lease: wishes, answers and offers.
func (s Say) kind() (kind, most int) {
	switch {
	case s.Wish():
		return 1, mostWishes
	case s == Supports:
		return 2, MostSupporters
	}
	return 0, MostAnswers
}

// Word is what one pod says.
type Word struct {
	Identity string // of the pod that speaks
	Say      Say
	// To is what the word is about: a wish and an offer name the holder's hold, and an answer names the first word
	// of the holder's [LeavingAnnotation]. A word for an earlier hold or announcement is void.
	To string
	// Revision is the revision of a pod with a wish, and Contact is where a pod with an offer answers. At is the time
	// of the wish or offer, in milliseconds since 1970, by that pod's clock: it tells two of them apart.
	Revision Revision
	Contact  Contact
	At       int64
}

// Void reports whether the word is no longer about the hold with the given number.
func (w Word) Void(hold string) bool {
	of, _, _ := strings.Cut(w.To, ".")
	return of != hold || hold == ""
}

const (
	// MostWords bounds the words of a next Lease, and MostAnswers those that answer one announcement. Even if one
	// of the pods that answer becomes the successor, two others forward.
	MostWords, MostAnswers = 7, 3
	// mostWishes bounds the wishes of other pods beside which a pod adds its own.
	mostWishes = 2
	// LongestLeave bounds the first word of [LeavingAnnotation], in bytes. The text of each agent fits: 16 digits of
	// a hold, a dot, and a number of milliseconds.
	LongestLeave = 40
	// longestWords bounds the text of words, in bytes. An identity has at most 290 bytes, and a revision at most
	// 148. The holder copies identities from this text into annotations of its Lease.
	longestWords = 4096
)

// Words is what the pods of a slot say to its holder.
type Words []Word

// String returns the value of [WordsAnnotation]: words with a space between them. A word has the form
// SAY:IDENTITY:TO, a wish has the form SAY:IDENTITY:TO:REVISION:AT, and an offer SAY:IDENTITY:TO:CONTACT:AT.
func (ws Words) String() string {
	var all []string
	for _, w := range ws {
		text := string(w.Say) + ":" + w.Identity + ":" + w.To
		switch about := w.Revision.String(); {
		case w.Say == Supports:
			about = w.Contact.String()
			fallthrough
		case w.Say.Wish():
			text += ":" + about + ":" + strconv.FormatInt(w.At, 10)
		}
		all = append(all, text)
	}
	return strings.Join(all, " ")
}

// ParseWords reads the text of [Words.String]. A text that is too long, or has too many words, has no words. A word
// that no agent writes is left out, and so is every further word of one pod. As in the policy on Leases, only a
// space separates two words.
func ParseWords(s string) Words {
	if len(s) > longestWords || strings.Count(s, " ") >= MostWords {
		return nil
	}
	var all Words
	for text := range strings.SplitSeq(s, " ") {
		if w, ok := parseWord(text); ok && !all.Of(w.Identity) {
			all = append(all, w)
		}
	}
	return all
}

// parseWord accepts a word only in the form of [Words.String]. The policy on Leases lets a pod keep the
// words of other pods only as they are.
func parseWord(text string) (w Word, ok bool) {
	parts := strings.Split(text, ":")
	if len(parts) < 3 || parts[1] == "" || parts[2] == "" || len(parts[2]) > LongestLeave {
		return Word{}, false
	}
	w = Word{Say: Say(parts[0]), Identity: parts[1], To: parts[2]}
	if !w.Say.Wish() && w.Say != Supports {
		return w, len(parts) == 3 && slices.Contains([]Say{Stays, Takes, Either, Prepared}, w.Say)
	}
	if len(parts) != 5 {
		return Word{}, false
	}
	var err error
	if w.Say == Supports {
		w.Contact, err = ParseContact(parts[3])
	} else {
		w.Revision, err = ParseRevision(parts[3])
	}
	at, errAt := strconv.ParseInt(parts[4], 10, 64)
	w.At = at
	return w, err == nil && errAt == nil && Words{w}.String() == text
}

// Of reports whether the pod is among those that speak.
func (ws Words) Of(identity string) bool {
	return slices.ContainsFunc(ws, func(w Word) bool { return w.Identity == identity })
}

// With returns the words with one more, and without those that it voids: every other word of the same pod, every
// word for another hold and, for an answer, the answers to other announcements. The result "more" is false if the
// words have that word already, a later word of that pod about the same announcement, or enough words of other
// pods. They are never enough if the pod insists: because its answer counts, or because its wish or offer
// replaces the first of other pods', which may be dead.
func (ws Words) With(w Word, insists bool) (with Words, more bool) {
	hold, _, _ := strings.Cut(w.To, ".")
	kind, most := w.Say.kind()
	answer, same := kind == 0, 0
	for _, other := range ws {
		switch own := other.Identity == w.Identity; {
		case other == w, own && other.To == w.To && other.Say == Prepared:
			return ws, false
		case own:
			insists = insists || other.To == w.To
			continue
		case other.Void(hold), answer && other.of(0) && other.To != w.To:
			continue
		case other.of(kind):
			same++
		}
		with = append(with, other)
	}
	if !insists && same >= most {
		return ws, false
	}
	// An answer is short-lived, and the holder waits for it. So it goes last.
	gone := func(o Word) bool { return !o.of(0) }
	if !answer && same >= most {
		gone = func(o Word) bool { return o.of(kind) }
	}
	for len(with) >= MostWords || !answer && same >= most {
		first := max(0, slices.IndexFunc(with, gone))
		with, same = slices.Delete(with, first, first+1), same-1
	}
	return append(with, w), true
}

// of reports whether the word is of the kind.
func (w Word) of(kind int) bool {
	own, _ := w.Say.kind()
	return own == kind
}

// Asked returns the pod whose answer the holder waits for, by the second word of [LeavingAnnotation]; empty if any
// answer counts, or if the holder has its answers. The result "soon" reports that the holder still waits for
// answers, or leaves without a successor.
func Asked(leaving string) (identity string, soon bool) {
	word, identity, _ := strings.Cut(leaving, ":")
	return identity, word == LeavingSoon
}
