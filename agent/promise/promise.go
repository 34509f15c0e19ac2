// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package promise has the messages by which a holder asks a standby not to take its slot for a while, and the
// standby's answer. Each agent process has a key, and signs what it says.
//
// Guarantee: an answer that [Ask.Promised] accepts was made by the process with that key, for that hold, after
// the ask was made. A standby that accepts each number once accepts no ask twice.
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
	// Hold is the hold that the standby is to leave alone.
	Hold string
	// Number is larger than that of each earlier ask of the same process.
	Number int64
	// For is the time from the receipt for which the standby is to take nothing; zero if the ask only tests
	// whether the standby answers.
	For time.Duration
}

// text is what the holder signs.
func (a Ask) text() string {
	return a.Hold + " " + strconv.FormatInt(a.Number, 10) + " " + strconv.FormatInt(a.For.Milliseconds(), 10)
}

// Ask returns the message that asks.
func (k Key) Ask(a Ask) (message string) { return a.text() + " " + k.sign(asks+a.text()) }

// ParseAsk reads a message of the process with the public key. The result is false for every other message.
func ParseAsk(message, public string) (a Ask, ok bool) {
	words := strings.Split(message, " ")
	if len(words) != 4 {
		return Ask{}, false
	}
	number, err := strconv.ParseInt(words[1], 10, 64)
	milliseconds, errFor := strconv.ParseInt(words[2], 10, 32)
	a = Ask{Hold: words[0], Number: number, For: time.Duration(milliseconds) * time.Millisecond}
	if err != nil || errFor != nil || a.For < 0 || !strings.HasPrefix(message, a.text()+" ") {
		return Ask{}, false
	}
	return a, signed(asks+a.text(), words[3], public)
}

// Promise returns the answer by which this process promises what was asked.
func (k Key) Promise(a Ask) (answer string) { return k.sign(promises + a.text()) }

// Promised reports whether the process with the public key has promised what was asked.
func (a Ask) Promised(answer, public string) bool { return signed(promises+a.text(), answer, public) }

func (k Key) sign(text string) string {
	return hex.EncodeToString(ed25519.Sign(k.private, []byte(text)))
}

func signed(text, signature, public string) bool {
	key, err := hex.DecodeString(public)
	sum, bad := hex.DecodeString(signature)
	return err == nil && bad == nil && len(key) == ed25519.PublicKeySize && ed25519.Verify(key, []byte(text), sum)
}
