// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/metaparticle-io/metaparticle/mutate/image"
)

// descriptor is a part of a manifest or an index, and names other content by its digest. Only the
// needed fields are decoded: the other fields may be as long as the registry's whole answer.
type descriptor struct {
	MediaType types.MediaType `json:"mediaType"`
	Digest    string          `json:"digest"`
	Data      []byte          `json:"data"`
	Platform  *platform       `json:"platform"`
}

type platform struct {
	OS           string `json:"os"`
	Architecture string `json:"architecture"`
}

// bytes returns the number of bytes of the descriptor's texts.
func (d descriptor) bytes() int {
	n := len(d.MediaType) + len(d.Digest) + len(d.Data)
	if d.Platform != nil {
		n += len(d.Platform.OS) + len(d.Platform.Architecture)
	}
	return n
}

// descriptors are the descriptors of an index. UnmarshalJSON decodes them one by one, and
// stops at a bound, because a few bytes of text become a hundred bytes in memory. The texts have a
// bound, too, because they stay in memory until the look-up ends.
type descriptors []descriptor

// UnmarshalJSON implements [json.Unmarshaler].
func (d *descriptors) UnmarshalJSON(text []byte) error {
	bytes := 0
	return each(text, func(decoder *json.Decoder) error {
		if len(*d) == maxEntries {
			return errSize
		}
		var one descriptor
		if err := decoder.Decode(&one); err != nil {
			return err
		}
		if bytes += one.bytes(); bytes > smallAnswer {
			return errSize
		}
		*d = append(*d, one)
		return nil
	})
}

// words are the words of a command.
type words []string

// UnmarshalJSON implements [json.Unmarshaler].
func (w *words) UnmarshalJSON(text []byte) error {
	// If a JSON object has a key twice, the decoder calls this method twice, and the last value
	// counts. So this call drops the words of an earlier call.
	*w = nil
	cost := 0
	return each(text, func(decoder *json.Decoder) error {
		var word string
		if err := decoder.Decode(&word); err != nil {
			return err
		}
		if cost += wordCost + len(word); cost > maxCommand {
			return errCommand
		}
		*w = append(*w, word)
		return nil
	})
}

// each decodes a list, one element after the other.
func each(text []byte, element func(*json.Decoder) error) error {
	if string(text) == "null" {
		return nil
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	start, err := decoder.Token()
	if err != nil {
		return err
	}
	if start != json.Delim('[') {
		return fmt.Errorf("%w: %v in place of a list", errNotImage, start)
	}
	for decoder.More() {
		if err := element(decoder); err != nil {
			return err
		}
	}
	return nil
}

// configuration has the fields of an image's configuration that concern its command.
type configuration struct {
	Config struct {
		Entrypoint words
		Cmd        words
		StopSignal string
	} `json:"config"`
}

// costOf returns the bytes that a command occupies in memory.
func costOf(c image.Command) int {
	cost := len(c.StopSignal)
	for _, word := range slices.Concat(c.Entrypoint, c.Cmd) {
		cost += wordCost + len(word)
	}
	for arch, its := range c.Platforms {
		cost += entryCost + len(arch) + costOf(its)
	}
	return cost
}

// decode decodes a JSON text that a registry has sent.
func decode(text []byte, into any) error {
	if err := json.Unmarshal(text, into); err != nil {
		return fmt.Errorf("%w: %w", errNotImage, err)
	}
	return nil
}
