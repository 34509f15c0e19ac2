// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package mutate

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
)

// ErrMalformed reports text that is not a valid pod or workload.
var ErrMalformed = errors.New("malformed object")

// Malformed returns the error of a decoder as [ErrMalformed]. If quotes around a text are missing, as
// in an annotation with the value true, the result says how to mend the text.
func Malformed(err error) error {
	wrong, ok := errors.AsType[*json.UnmarshalTypeError](err)
	if ok && wrong.Type.Kind() == reflect.String && (wrong.Value == "bool" || strings.HasPrefix(wrong.Value, "number")) {
		return fmt.Errorf("%w: %w: write the value in quotes, as in \"true\"", ErrMalformed, err)
	}
	return fmt.Errorf("%w: %w", ErrMalformed, err)
}
