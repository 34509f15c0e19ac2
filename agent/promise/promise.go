// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package promise has the messages by which a holder asks a standby not to take its slot for a while, and the
// standby's answer. Each agent process has a key, and signs what it says.
//
// Guarantee: an answer that [Ask.Promised] accepts was made by the process with that key, for that hold, after
// the ask was made. A standby that expects larger numbers only accepts no ask twice, nor one to another process.
//
// Not guaranteed: secrecy. Whoever reads the messages learns the number of a hold.
package promise

import (
	"crypto/ed25519"
	"encoding/hex"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"
)

// Key is the key of one agent process. It never leaves the process, so another process of the same pod cannot
// be taken for this one.
type Key struct{ private ed25519.PrivateKey }

// NewKey returns a key from a source of randomness, which must be secure.
func NewKey(random rand.Source) Key {
	seed := make([]byte, ed25519.SeedSize)
	for i := range seed {
		seed[i] = byte(random.Uint64())
	}
	return Key{ed25519.NewKeyFromSeed(seed)}
}

// Public returns the public key in hexadecimal digits.
func (k Key) Public() string { return hex.EncodeToString(k.private[ed25519.SeedSize:]) }

// Before what is signed stands what it is, so that an answer is no ask.
const (
	asks     = "metaparticle.io/ask "
	promises = "metaparticle.io/promise "
)

// Ask asks for a promise.
type Ask struct {
	// To is the ID of the supporter that is asked ([api.SupporterID]). It is signed, but not sent: whoever else gets
	// the message cannot make another process answer it, and no pod can offer another pod's key as its own.
	To string
	// Hold is the hold that the standby is to leave alone.
	Hold string
	// Number is larger than that of each earlier ask of the same process.
	Number int64
	// For is the time from the receipt for which the standby is to take nothing; zero if the ask only tests
	// whether the standby answers.
	For time.Duration
}

// text is what the holder sends.
func (a Ask) text() string {
	return a.Hold + " " + strconv.FormatInt(a.Number, 10) + " " + strconv.FormatInt(a.For.Milliseconds(), 10)
}

// signs is what holder and standby sign, after what it is.
func (a Ask) signs(what string) string { return what + a.To + " " + a.text() }

// Ask returns the message that asks.
func (k Key) Ask(a Ask) (message string) { return a.text() + " " + k.sign(a.signs(asks)) }

// Expected describes the messages that a standby reads: those by the process with the public key By to the
// supporter To, about the hold, with a number above After.
type Expected struct {
	By, To, Hold string
	After        int64
}

// Ask reads a message. The result is false for every message that is not expected. Because a signature costs much
// more than the rest, it comes last.
func (e Expected) Ask(message string) (a Ask, ok bool) {
	words := strings.Split(message, " ")
	if len(words) != 4 || words[0] != e.Hold {
		return Ask{}, false
	}
	number, err := strconv.ParseInt(words[1], 10, 64)
	milliseconds, errFor := strconv.ParseInt(words[2], 10, 32)
	a = Ask{To: e.To, Hold: e.Hold, Number: number, For: time.Duration(milliseconds) * time.Millisecond}
	if err != nil || errFor != nil || number <= e.After || a.For < 0 || !strings.HasPrefix(message, a.text()+" ") {
		return Ask{}, false
	}
	return a, signed(a.signs(asks), words[3], e.By)
}

// Promise returns the answer by which this process promises what was asked.
func (k Key) Promise(a Ask) (answer string) { return k.sign(a.signs(promises)) }

// Promised reports whether the process with the public key has promised what was asked.
func (a Ask) Promised(answer, public string) bool { return signed(a.signs(promises), answer, public) }

func (k Key) sign(text string) string {
	return hex.EncodeToString(ed25519.Sign(k.private, []byte(text)))
}

func signed(text, signature, public string) bool {
	key, err := hex.DecodeString(public)
	sum, bad := hex.DecodeString(signature)
	return err == nil && bad == nil && len(key) == ed25519.PublicKeySize && ed25519.Verify(key, []byte(text), sum)
}
