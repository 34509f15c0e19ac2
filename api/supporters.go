// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"encoding/hex"
	"errors"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Supporters is the value of [SupportersAnnotation]: standbys that may take the slot earlier than its Lease
// expires. In return they promise a holder that cannot renew that they will not take the slot for a while.
// The idea is the store liveness of CockroachDB, whose supporters never withdraw before a promise is over.
type Supporters struct {
	// Number grows with each change of the list in one hold. After a restore of etcd, an old list may come back.
	Number int
	// Wait is the time for which a supporter waits after the holder's last renewal.
	Wait time.Duration
	// Key is the public key of the holder's agent process, in hexadecimal digits. The holder asks for promises
	// in messages with the signature of that key. Without a key, the holder wants no supporters.
	Key string
	// IDs identify the supporters' agent processes, by [SupporterID].
	IDs []string
}

// MostSupporters bounds the supporters of a holder. Each of them can end a hold by its silence in an outage of the
// API server, so more of them would not help.
const MostSupporters = 2

// idDigits is the number of digits of a key that tell the agent processes of one pod apart.
const idDigits = 16

// SupporterID identifies the agent process of a pod that has the key.
func SupporterID(identity, key string) string { return identity + "/" + key[:min(idDigits, len(key))] }

// Has reports whether the list names the agent process.
func (s Supporters) Has(id string) bool { return id != "" && slices.Contains(s.IDs, id) }

// Names returns the identities of the pods in the list.
func (s Supporters) Names() (all []string) {
	for _, id := range s.IDs {
		identity, _, _ := strings.Cut(id, "/")
		all = append(all, identity)
	}
	return all
}

// Equal reports whether both lists have the same content, whatever their numbers.
func (s Supporters) Equal(other Supporters) bool {
	return s.Wait == other.Wait && s.Key == other.Key && slices.Equal(s.IDs, other.IDs)
}

// Text returns the value of [SupportersAnnotation] for a hold of a pod; empty without a key.
func (s Supporters) Text(identity, hold string) string {
	if s.Key == "" {
		return ""
	}
	words := []string{identity, hold, strconv.Itoa(s.Number), strconv.FormatInt(int64(s.Wait/time.Second), 10), s.Key}
	return strings.Join(append(words, s.IDs...), " ")
}

// ParseSupporters reads the text of [Supporters.Text]. The result is zero for another text, and for the text of
// another pod or hold: a client that takes the slot may keep the text in the Lease.
func ParseSupporters(text, identity, hold string) Supporters {
	words := strings.Split(text, " ")
	if len(words) < 5 || len(words) > 5+MostSupporters || slices.Contains(words, "") || words[0] != identity || words[1] != hold {
		return Supporters{}
	}
	number, err := strconv.Atoi(words[2])
	seconds, errWait := strconv.Atoi(words[3])
	wait := time.Duration(seconds) * time.Second
	if err != nil || errWait != nil || number < 0 || wait < MinLeaseDuration || wait > MaxLeaseDuration {
		return Supporters{}
	}
	s := Supporters{Number: number, Wait: wait, Key: words[4]}
	if len(words) > 5 {
		s.IDs = words[5:]
	}
	if s.Text(identity, hold) != text {
		return Supporters{}
	}
	return s
}

// Contact is where the agent process of a standby answers the holder, and how the holder recognizes its answers.
type Contact struct {
	Address netip.AddrPort
	// Key is the public key of the process, in hexadecimal digits.
	Key string
}

// keyDigits is the number of digits of an Ed25519 key (RFC 8032).
const keyDigits = 64

// String returns the contact in hexadecimal digits, because a word has no room for the colons of an address.
func (c Contact) String() string {
	address, _ := c.Address.MarshalBinary() // this never fails
	return c.Key + hex.EncodeToString(address)
}

// ParseContact reads the text of [Contact.String].
func ParseContact(text string) (c Contact, err error) {
	binary, err := hex.DecodeString(text)
	if err != nil || len(text) < keyDigits || strings.ToLower(text) != text {
		return Contact{}, errNoContact
	}
	err = c.Address.UnmarshalBinary(binary[keyDigits/2:])
	if err != nil || !c.Address.IsValid() || c.Address.Addr().Zone() != "" {
		return Contact{}, errNoContact
	}
	c.Key = text[:keyDigits]
	return c, nil
}

var errNoContact = errors.New("not a key and an address in hexadecimal digits")
