// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package gate

import (
	"reflect"
	"testing"

	"github.com/stretchr/testify/assert"
)

// TestAChangeOfAnyFieldMakesAnotherReport fails if same leaves out a field of [Report]. The
// outbox would keep back a report in which only that field has changed.
func TestAChangeOfAnyFieldMakesAnotherReport(t *testing.T) {
	t.Parallel()
	fields := reflect.TypeFor[Report]()
	for i := range fields.NumField() {
		var changed Report
		fill(t, reflect.ValueOf(&changed).Elem().Field(i))
		assert.Falsef(t, same(Report{}, changed), "the field %s", fields.Field(i).Name)
	}
}

// fill sets the value to one that is not the zero value.
func fill(t *testing.T, v reflect.Value) {
	t.Helper()
	switch v.Kind() {
	case reflect.String:
		v.SetString("other")
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64:
		v.SetInt(1)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
	case reflect.Struct:
		fill(t, v.Field(0))
	default:
		t.Fatalf("no value of the kind %s", v.Kind())
	}
}
