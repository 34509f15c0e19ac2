// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package serve

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/metaparticle-io/metaparticle/console/view"
)

// maxState bounds the bytes of the rows of all slots.
const maxState = 16 << 20

// unreadable replaces the name of a slot's holder if the slot cannot be encoded as JSON.
const unreadable = "(this slot cannot be shown)"

// shown is a slot, as the page gets it.
type shown struct {
	view.Slot

	Key     string `json:"key"`
	Group   string `json:"group"`
	Healthy bool   `json:"healthy"`
}

// rowsOf returns the JSON of each slot by key, and the number of slots that are left out. In a
// namespace that exceeds its share, each slot first loses all handovers but the latest.
func rowsOf(slots []view.Slot) (rows map[string]json.RawMessage, left int) {
	sizes := map[string]int{}
	for _, slot := range slots {
		sizes[slot.Namespace] += sizeOf(slot)
	}
	share := shareOf(sizes)
	rows = make(map[string]json.RawMessage, len(slots))
	used := map[string]int{}
	for _, slot := range slots {
		if sizes[slot.Namespace] > share {
			slot.Handovers = slot.Handovers[:min(len(slot.Handovers), 1)]
		}
		size := sizeOf(slot)
		if used[slot.Namespace]+size > share {
			left++
			continue
		}
		used[slot.Namespace] += size
		rows[slot.Namespace+"/"+slot.Slot] = encode(slot)
	}
	return rows, left
}

// shareOf returns the number of bytes that each namespace may have. A large namespace gets only the
// bytes that smaller namespaces do not need.
func shareOf(sizes map[string]int) int {
	left := maxState
	all := make([]int, 0, len(sizes))
	for _, size := range sizes {
		all = append(all, size)
	}
	slices.Sort(all)
	for i, size := range all {
		if share := left / (len(all) - i); size > share {
			return share
		}
		left -= size
	}
	return maxState
}

// encode returns the JSON of a slot. A slot that cannot be encoded becomes a row that says so.
func encode(slot view.Slot) json.RawMessage {
	if slot.Holder != nil {
		holder := *slot.Holder
		holder.Renewed = nil // otherwise each renewal would count as a change of the slot
		slot.Holder = &holder
	}
	key := slot.Namespace + "/" + slot.Slot
	text, err := json.Marshal(shown{slot, key, slot.Group(), slot.Healthy()})
	if err == nil {
		return text
	}
	without := view.Slot{
		Namespace: slot.Namespace, Slot: slot.Slot, Kind: slot.Kind, Holder: &view.Holder{Pod: unreadable, Identity: unreadable},
		Standbys: []*view.Standby{}, Handovers: []view.Handover{},
	}
	if text, err = json.Marshal(shown{without, key, without.Group(), false}); err != nil {
		return json.RawMessage("{}") // never happens, because texts alone can always be encoded
	}
	return text
}

// sizeOf returns an upper bound of the length of a slot's JSON, in bytes.
func sizeOf(s view.Slot) int {
	// These constants bound the bytes of field names, numbers and instants in JSON. The constant
	// "object" is for a slot or a holder, and the constant "item" is for a standby or a handover.
	const object, item = 512, 192
	n := object + textsOf(s.Namespace, s.Namespace, s.Namespace, s.Slot, s.Slot, s.Slot, s.Kind, string(s.Paused), s.Yield, s.Stamp, s.Successor)
	n += textsOf(s.Done...)
	for key := range s.Failures {
		n += textsOf(key) + len("1000000,")
	}
	if h := s.Holder; h != nil {
		n += object + textsOf(h.Pod, h.Identity, h.Workload, h.Hold, h.Token)
	}
	for _, p := range s.Standbys {
		n += item + textsOf(p.Pod, p.Reason, p.Message)
	}
	for _, g := range s.Gaps {
		n += item + textsOf(g.Workload, g.Refused)
	}
	for _, h := range s.Handovers {
		n += item + textsOf(h.Pod, h.From, h.Reason, h.Cause)
	}
	return n
}

// textsOf returns an upper bound of the length of the texts' JSON, in bytes. Some characters become
// escapes of six bytes.
func textsOf(texts ...string) (n int) {
	for _, text := range texts {
		n += len(text) + len(`"",`)
		for _, escaped := range []string{"<", ">", "&", `"`, `\`} {
			n += 5 * strings.Count(text, escaped)
		}
	}
	return n
}

// sentences returns the trouble, and a sentence about slots that are left out.
func sentences(trouble string, left int) string {
	if left == 0 {
		return trouble
	}
	if trouble != "" {
		trouble += " "
	}
	return trouble + fmt.Sprintf("Slots that are not shown, because their namespace has too many or too large ones: %d.", left)
}
