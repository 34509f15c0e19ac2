// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package world

import "encoding/json"

// list returns the objects of a kind as a list's JSON. For each object, the function "at" returns
// the state that belongs in the list.
func (s *server) list(kind string, selects func(labels map[string]string) bool, at func(*object) version) []byte {
	items := []json.RawMessage{}
	for _, name := range s.names {
		o := s.objects[name]
		if v := at(o); o.kind == kind && v.body != nil && selects(labelsOf(v.body)) {
			items = append(items, v.raw)
		}
	}
	return encode(map[string]any{"items": items})
}

func labelsOf(body map[string]any) map[string]string {
	set := map[string]string{}
	if all, ok := metadata(body)["labels"].(map[string]any); ok {
		for key, value := range all {
			set[key], _ = value.(string)
		}
	}
	return set
}
