// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"
)

// microTime is Kubernetes' MicroTime, the format of the times in a Lease. Two times within the
// same microsecond become the same bytes.
const microTime = "2006-01-02T15:04:05.000000Z07:00"

// reader decodes fields until the first error, and keeps that error. The values of each object must
// be valid JSON.
type reader struct {
	// The field "of" names the object in an error.
	of  string
	err error
}

// whole decodes the whole text of an object. The values share one copy of the text.
func (r *reader) whole(text []byte) (fields object) {
	if !json.Valid(text) {
		r.err = fmt.Errorf("%s: is not JSON", r.of)
		return nil
	}
	fields, r.err = split(bytes.TrimSpace(bytes.Clone(text)))
	if r.err != nil {
		r.err = fmt.Errorf("%s: %w", r.of, r.err)
	}
	return fields
}

// read decodes the value at key. If the value is absent or null, the target stays as it is. All
// pods of a claim decode each event of its Lease, so the types of most fields need no reflection.
func (r *reader) read(from object, key string, target any) {
	value, ok := from[key]
	if !ok || r.err != nil || string(value) == "null" {
		return
	}
	var err error
	switch to := target.(type) {
	case *string:
		*to, err = unquote(value)
	case *object:
		*to, err = split(value)
	case *map[string]string:
		*to, err = unquoteAll(value)
	default:
		err = json.Unmarshal(value, target)
	}
	if err != nil {
		r.err = fmt.Errorf("%s: %s: %w", r.of, key, err)
	}
}

// readTime decodes the time at key. The API server accepts 9999-12-31T23:59:59-01:00, stores this
// instant in UTC, and then returns the year 10000, which RFC 3339 forbids. So readTime ignores a
// text that is no time. With an error instead, no pod could ever acquire the slot of such a Lease.
func (r *reader) readTime(from object, key string, target *time.Time) {
	var text string
	if r.read(from, key, &text); text == "" {
		return
	}
	if t, err := time.Parse(time.RFC3339, text); err == nil {
		*target = t
	}
}

// writer encodes fields. The field "err" is the last error, or nil.
type writer struct{ err error }

// The method "over" returns a copy of base in which the fields are replaced. A field with the
// value nil is removed.
func (w *writer) over(base object, fields map[string]any) object {
	result := make(object, len(base)+len(fields))
	maps.Copy(result, base)
	for key, field := range fields {
		if field == nil {
			delete(result, key)
			continue
		}
		value, err := json.Marshal(field)
		if err != nil {
			w.err = err
		}
		result[key] = value
	}
	return result
}

// maxManagedFields bounds the bytes of a list that a write keeps. A tool that applies a Lease or a
// Variable needs less than 1 KiB of the list. A hostile pod could fill the whole object by a longer
// list. If agents kept that list, the API server would refuse each later write as too large.
const maxManagedFields = 16 << 10

// metadata returns a copy of the metadata in which the fields are replaced, as the method "over".
// If the copy would list the program that wrote each field, metadata makes the API server clear this
// list. From then on, the API server keeps no list for the object. The list would be half of a
// Lease's bytes, in each write and in each event. The Kubernetes documentation on Server-side Apply
// (KEP-555) describes this under "Clearing managedFields". Server-side apply needs the list, so
// metadata clears no list that names a program with such writes, unless the list is longer than
// maxManagedFields.
func (w *writer) metadata(base object, fields map[string]any) object {
	const key = "managedFields"
	if list, ok := base[key]; ok && (len(list) > maxManagedFields || onlyUpdates(list)) {
		fields[key] = []struct{}{{}}
	}
	return w.over(base, fields)
}

// onlyUpdates reports whether each entry of the managedFields is of ordinary writes.
func onlyUpdates(managedFields json.RawMessage) bool {
	type entry struct {
		Operation string `json:"operation"`
	}
	var entries []entry
	if json.Unmarshal(managedFields, &entries) != nil {
		return false
	}
	return !slices.ContainsFunc(entries, func(e entry) bool { return e.Operation == "Apply" })
}

func unlessZero[T comparable](v T) any {
	var zero T
	if v == zero {
		return nil
	}
	return v
}

func unlessEmpty(m map[string]string) any {
	if len(m) == 0 {
		return nil
	}
	return m
}

func unlessNever(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return t.UTC().Format(microTime)
}
