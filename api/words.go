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
	// WantsNewer is the wish of a pod whose revision is newer than the holder's.
	WantsNewer Say = "newer"
	// WantsBack is the wish of a pod of the proven revision behind a holder that is not proven.
	WantsBack Say = "back"
	// WantsPreferred is the wish of a pod that matches [PreferAnnotation], behind one that does not.
	WantsPreferred Say = "preferred"
	// Stays answers that the pod stays Ready, and forwards connections while the holder leaves.
	Stays Say = "stays"
	// Takes answers that the pod can take the slot now.
	Takes Say = "takes"
	// Either answers that the pod can take the slot, and that it stays if another pod takes the slot.
	Either Say = "either"
	// Prepared answers that the holder's application may stop, as far as this pod is concerned. The
	// successor is prepared once no node sends it connections. Every other pod is prepared once it
	// lets new connections wait, after the holder has named its successor.
	Prepared Say = "prepared"
)

// wishes are the words that are addressed to a hold. All others are addressed to an announcement.
var wishes = []Say{WantsNewer, WantsBack, WantsPreferred}

// Wish reports whether the word is a wish for the slot, and not an answer.
func (s Say) Wish() bool { return slices.Contains(wishes, s) }

// Word is what one pod says.
type Word struct {
	// Identity is the identity of the pod that speaks.
	Identity string
	Say      Say
	// To is what the word is about: a wish names the holder's hold, and an answer names the first word
	// of the holder's [LeavingAnnotation]. A word for an earlier hold or announcement is void.
	To string
	// Revision is the revision of a pod with a wish. At is the time of the wish, in milliseconds since
	// 1970, by that pod's clock: it tells two wishes of one pod apart.
	Revision Revision
	At       int64
}

// Void reports whether the word is no longer about the hold with the given number.
func (w Word) Void(hold string) bool {
	of, _, _ := strings.Cut(w.To, ".")
	return of != hold || hold == ""
}

// MostWords bounds the words of a next Lease, and MostAnswers those that answer one announcement. Even
// if one of the pods that answer becomes the successor, two others forward.
const MostWords, MostAnswers = 5, 3

// mostWishes bounds the wishes of other pods beside which a pod adds its own.
const mostWishes = 2

// LongestLeave bounds the first word of [LeavingAnnotation], in bytes. The text of each agent fits: 16
// digits of a hold, a dot, and a number of milliseconds.
const LongestLeave = 40

// longestWords bounds the text of words, in bytes. An identity has at most 290 bytes, and a revision at
// most 148. The holder copies identities from this text into annotations of its Lease.
const longestWords = 3072

// Words is what the pods of a slot say to its holder.
type Words []Word

// String returns the value of [WordsAnnotation]: words with a space between them. A word has the form
// SAY:IDENTITY:TO, and a wish has the form SAY:IDENTITY:TO:REVISION:AT.
func (ws Words) String() string {
	var all []string
	for _, w := range ws {
		text := string(w.Say) + ":" + w.Identity + ":" + w.To
		if w.Say.Wish() {
			text += ":" + w.Revision.String() + ":" + strconv.FormatInt(w.At, 10)
		}
		all = append(all, text)
	}
	return strings.Join(all, " ")
}

// ParseWords reads the text of [Words.String]. A text that is too long, or has too many words, has no
// words. A word that no agent writes is left out. Of the words of one pod only the first counts. As in
// the policy on Leases, only a space separates two words.
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
	if !w.Say.Wish() {
		return w, len(parts) == 3 && slices.Contains([]Say{Stays, Takes, Either, Prepared}, w.Say)
	}
	if len(parts) != 5 {
		return Word{}, false
	}
	revision, err := ParseRevision(parts[3])
	at, errAt := strconv.ParseInt(parts[4], 10, 64)
	w.Revision, w.At = revision, at
	return w, err == nil && errAt == nil && Words{w}.String() == text
}

// Of reports whether the pod is among those that speak.
func (ws Words) Of(identity string) bool {
	return slices.ContainsFunc(ws, func(w Word) bool { return w.Identity == identity })
}

// With returns the words with one more, and without those that it voids: every other word of the same
// pod, and every word for another hold. An answer also voids the answers to other announcements. The
// result "more" is false if the words have that word already, a later word of that pod about the same
// announcement, or enough words of other pods. The argument "insists" means that the words of others are
// never enough: an answer of the pod whose answer counts, and a wish that replaces the first of other
// pods' wishes, which may be dead.
func (ws Words) With(w Word, insists bool) (with Words, more bool) {
	hold, _, _ := strings.Cut(w.To, ".")
	answers, wishes := 0, 0
	for _, other := range ws {
		switch own := other.Identity == w.Identity; {
		case other == w, own && other.To == w.To && other.Say == Prepared:
			return ws, false
		case own:
			insists = insists || other.To == w.To
			continue
		case other.Void(hold), !w.Say.Wish() && !other.Say.Wish() && other.To != w.To:
			continue
		case other.Say.Wish():
			wishes++
		default:
			answers++
		}
		with = append(with, other)
	}
	if !insists && (w.Say.Wish() && wishes >= mostWishes || !w.Say.Wish() && answers >= MostAnswers) {
		return ws, false
	}
	for len(with) >= MostWords || w.Say.Wish() && wishes >= mostWishes {
		first := max(0, slices.IndexFunc(with, func(o Word) bool { return o.Say.Wish() }))
		with, wishes = slices.Delete(with, first, first+1), wishes-1
	}
	return append(with, w), true
}

// Asked returns the pod whose answer the holder waits for, by the second word of [LeavingAnnotation];
// empty if any answer counts, or if the holder has its answers. The second result reports whether the
// holder still waits for answers, or leaves without a successor.
func Asked(leaving string) (identity string, soon bool) {
	word, identity, _ := strings.Cut(leaving, ":")
	return identity, word == LeavingSoon
}
