// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package apiserver

import "encoding/json"

// List returns the objects of a kind as a list's JSON. For each object, the function "at" returns
// the state that belongs in the list.
func (s *Server) List(kind string, selects func(labels map[string]string) bool, at func(*Object) Version) []byte {
	items := []json.RawMessage{}
	for _, name := range s.names {
		o := s.objects[name]
		if v := at(o); o.kind == kind && v.Body != nil && selects(labelsOf(v.Body)) {
			items = append(items, v.Raw)
		}
	}
	return Encode(map[string]any{"items": items})
}

func labelsOf(body map[string]any) map[string]string {
	set := map[string]string{}
	if all, ok := Metadata(body)["labels"].(map[string]any); ok {
		for key, value := range all {
			set[key], _ = value.(string)
		}
	}
	return set
}
