// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"errors"
	"flag"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// argument is one row in the table of a role's arguments. T is the type with the values of
// all arguments of the role, such as [RunArgs].
type argument[T any] struct {
	name, meaning string
	// flag reports that the argument is written without a value.
	flag bool
	// The field "expands" reports that the kubelet is to expand $(NAME) in the value.
	expands bool
	// The function "where" reports whether [arguments.words] writes the argument. If the function
	// is nil, [arguments.words] always writes the argument.
	where func(T) bool
	text  func(T) string
	// read sets the value in a T, or returns an error and changes nothing.
	read func(*T, string) error
}

// written returns a copy of the row. For the copy, [arguments.words] writes the argument only if
// the function "where" returns true.
func (a argument[T]) written(where func(T) bool) argument[T] {
	a.where = where
	return a
}

// expanded returns a copy of the row for an argument whose value the kubelet expands.
func (a argument[T]) expanded() argument[T] {
	a.expands = true
	return a
}

// arguments is the table of one role's arguments, in their order in a pod's spec.
type arguments[T any] []argument[T]

// words returns the arguments as a pod's spec has them. The kubelet replaces each $(NAME) in a
// spec, and turns $$ into $. So the method "words" doubles the dollar signs of each value that the
// kubelet must not expand.
func (all arguments[T]) words(of T) []string {
	var words []string
	for _, a := range all {
		switch {
		case a.where != nil && !a.where(of):
		case a.flag:
			words = append(words, "-"+a.name)
		case a.expands:
			words = append(words, "-"+a.name+"="+a.text(of))
		default:
			words = append(words, "-"+a.name+"="+strings.ReplaceAll(a.text(of), "$", "$$"))
		}
	}
	return words
}

// parse reads the arguments from the words that a process gets, and stores their values in "into".
// The result has the words behind the arguments, such as the command of the child. An unknown or
// malformed argument is an error, and so is a request for help.
func (all arguments[T]) parse(role string, into *T, words []string) ([]string, error) {
	var usage strings.Builder
	flags := flag.NewFlagSet("agent "+role, flag.ContinueOnError)
	flags.SetOutput(&usage)
	for _, a := range all {
		read := func(value string) error { return a.read(into, value) }
		if a.flag {
			flags.BoolFunc(a.name, a.meaning, read)
		} else {
			flags.Func(a.name, a.meaning, read)
		}
	}
	switch err := flags.Parse(words); {
	case errors.Is(err, flag.ErrHelp):
		return nil, fmt.Errorf("%w\n%s", err, usage.String())
	case err != nil:
		return nil, fmt.Errorf("agent %s: %w", role, err)
	}
	return flags.Args(), nil
}

// recall reads the arguments back from a pod's spec. Unknown words and invalid values are ignored,
// because another version of the webhook may have written them.
func (all arguments[T]) recall(into *T, words []string) {
	for _, word := range words {
		name, value, valued := strings.Cut(word, "=")
		i := slices.IndexFunc(all, func(a argument[T]) bool { return name == "-"+a.name && valued != a.flag })
		if i < 0 {
			continue
		}
		switch {
		case all[i].flag:
			value = "true"
		case !all[i].expands:
			value = strings.ReplaceAll(value, "$$", "$")
		}
		_ = all[i].read(into, value)
	}
}

// textArg returns the row of an argument whose value is a text. If "allowed" is not empty, the
// value must be one of the allowed texts.
func textArg[T any, S ~string](name, meaning string, field func(*T) *S, allowed ...S) argument[T] {
	return argument[T]{
		name: name, meaning: meaning,
		text: func(of T) string { return string(*field(&of)) },
		read: func(into *T, value string) error {
			if len(allowed) > 0 && !slices.Contains(allowed, S(value)) {
				return fmt.Errorf("write one of %q", allowed)
			}
			*field(into) = S(value)
			return nil
		},
	}
}

// namesArg returns the row of an argument whose value is a comma-separated list of names.
// No name contains a comma.
func namesArg[T any](name, meaning string, field func(*T) *[]string) argument[T] {
	return argument[T]{
		name: name, meaning: meaning,
		text: func(of T) string { return strings.Join(*field(&of), ",") },
		read: func(into *T, value string) error {
			*field(into) = split(value)
			return nil
		},
	}
}

// durationArg returns the row of an argument whose value is a duration.
func durationArg[T any](name, meaning string, field func(*T) *time.Duration) argument[T] {
	return argument[T]{
		name: name, meaning: meaning,
		text: func(of T) string { return field(&of).String() },
		read: func(into *T, value string) error {
			d, err := time.ParseDuration(value)
			if err == nil {
				*field(into) = d
			}
			return err
		},
	}
}

// optionArg returns the row of an argument without a value. If the argument is present, the field
// is true.
func optionArg[T any](name, meaning string, field func(*T) *bool) argument[T] {
	return argument[T]{
		name: name, meaning: meaning, flag: true,
		where: func(of T) bool { return *field(&of) },
		read: func(into *T, value string) error {
			on, err := strconv.ParseBool(value)
			if err == nil {
				*field(into) = on
			}
			return err
		},
	}
}

// split returns the elements of a comma-separated list.
func split(list string) []string {
	if list == "" {
		return nil
	}
	return strings.Split(list, ",")
}
