// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package local

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/api"
)

// variableState is the answer about a Variable.
type variableState struct {
	Variable string `json:"variable"`
	// Type is the type of the value. Value is text, also for an integer, because some languages
	// read each JSON number as a float.
	Type  valueType `json:"type"`
	Value string    `json:"value"`
	// Version is the version that a program sends in If-Match; empty after an add.
	Version string `json:"version,omitempty"`
	// FenceLock and FencingToken name the hold under which a program last wrote the Variable;
	// empty for none.
	FenceLock    string `json:"fenceLock,omitempty"`
	FencingToken string `json:"fencingToken,omitempty"`
}

// valueType is the type of a Variable's value.
type valueType string

const (
	// isNone means that the Variable has no value yet.
	isNone valueType = "none"
	// isText and isInteger are the types that a value can have.
	isText    valueType = "text"
	isInteger valueType = "integer"
)

func newVariableState(v *kube.Variable) variableState {
	s := variableState{Variable: "variable/" + v.Name, Type: isNone, Version: v.ResourceVersion}
	switch {
	case v.Integer != nil:
		s.Type, s.Value = isInteger, strconv.FormatInt(*v.Integer, 10)
	case v.Value != nil:
		s.Type, s.Value = isText, *v.Value
	}
	if v.Fence != nil {
		s.FenceLock, s.FencingToken = v.Fence.Lock, strconv.FormatInt(v.Fence.Token, 10)
	}
	return s
}

// withVariable returns a handler that finds the Variable which the request's path names. The
// handler passes that Variable to the function "handle".
func (a *API) withVariable(handle func(*Variable, http.ResponseWriter, *http.Request)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		name := r.PathValue("name")
		for _, v := range a.variables {
			if v.Name() == name {
				handle(v, w, r)
				return
			}
		}
		undeclaredProblem("variable", name).write(w)
	}
}

// getVariable answers with the value: once, or at each change (?watch=true).
func getVariable(v *Variable, w http.ResponseWriter, r *http.Request) {
	watch, problem := flagOf(r.URL.Query().Get("watch"), "watch")
	if problem != nil {
		problem.write(w)
		return
	}
	answer := v.Get(r.Context())
	switch {
	case answer.Refusal != "":
		problemOf(answer.Refusal).write(w)
	case watch:
		takeOver(w, r, func(ctx context.Context, w http.ResponseWriter) { followVariable(ctx, v, w, answer.State) })
	default:
		replyVariable(w, answer.State)
	}
}

// followVariable writes a line with the present state, and a line with each later state.
func followVariable(ctx context.Context, v *Variable, w http.ResponseWriter, first *kube.Variable) {
	var lines *stream
	refusal := v.Follow(ctx, first, func(now *kube.Variable) bool {
		if lines == nil {
			lines = new(newStream(w))
		}
		return lines.line(newVariableState(now)) == nil
	})
	if refusal != "" && lines == nil {
		problemOf(refusal).write(w)
	}
}

// replyVariable sends the state of a Variable, with its version.
func replyVariable(w http.ResponseWriter, state *kube.Variable) {
	w.Header().Set("ETag", `"`+state.ResourceVersion+`"`)
	reply(w, http.StatusOK, newVariableState(state))
}

// putVariable sets the value.
func (a *API) putVariable(v *Variable, w http.ResponseWriter, r *http.Request) {
	if answer, done := a.writeVariable(v, w, r, setValue); done {
		replyVariable(w, answer.State)
	}
}

// writeVariable carries out the action of a call. The function "set" reads those parts of the
// request that only some writes have, such as an addend. If the result "done" is false,
// writeVariable has already answered with a problem.
func (a *API) writeVariable(
	v *Variable, w http.ResponseWriter, r *http.Request, set func(*Action, *http.Request) *problem,
) (answer Answer, done bool) {
	action, problem := a.actionOf(r)
	if problem == nil {
		problem = set(action, r)
	}
	if problem == nil {
		if answer = v.Do(r.Context(), *action); answer.Refusal == "" {
			return answer, true
		}
		problem = problemOf(answer.Refusal)
	}
	problem.write(w)
	return answer, false
}

// setValue reads the new value from the body.
func setValue(action *Action, r *http.Request) *problem {
	text, err := io.ReadAll(r.Body)
	value := string(text)
	switch {
	case err != nil || !utf8.ValidString(value) || len(value) > api.MaxValue:
		return usageProblem(fmt.Sprintf("The body is no text in UTF-8 of at most %d bytes. Send a shorter text, or encode it.", api.MaxValue))
	case r.Header.Get("Idempotency-Key") != "":
		return usageProblem("Only an add takes an Idempotency-Key. Use If-Match.")
	}
	switch valueType(r.URL.Query().Get("type")) {
	case "":
		action.Typed = &value
	case isText:
		action.Text = &value
	case isInteger:
		n, err := strconv.ParseInt(strings.TrimSpace(value), 10, 64)
		if err != nil {
			return usageProblem("The body is no integer of 64 bits. Send decimal digits, or use ?type=text.")
		}
		action.Integer = &n
	default:
		return usageProblem("The value of ?type is neither text nor integer. Write one of the two.")
	}
	return nil
}

// addVariable adds the number in ?by to the integer of the Variable.
func (a *API) addVariable(v *Variable, w http.ResponseWriter, r *http.Request) {
	if answer, done := a.writeVariable(v, w, r, setAddend); done {
		reply(w, http.StatusOK, variableState{Variable: "variable/" + v.Name(), Type: isInteger, Value: strconv.FormatInt(answer.Result, 10)})
	}
}

// setAddend reads the addend and the idempotency key of an add.
func setAddend(action *Action, r *http.Request) *problem {
	action.Add = 1
	if query := r.URL.Query(); query.Has("by") { // an empty text is a mistake of the program, such as an unset variable of a shell
		n, err := strconv.ParseInt(query.Get("by"), 10, 64)
		if err != nil {
			return usageProblem("The value of ?by is no integer of 64 bits. Write decimal digits, as in ?by=-3.")
		}
		action.Add = n
	}
	keys := r.Header.Values("Idempotency-Key")
	if len(keys) == 0 {
		return nil
	}
	key, ok := unquoted(keys[0])
	if len(keys) > 1 || !ok || len(key) > api.MaxIdempotencyKey {
		return usageProblem("The Idempotency-Key is no text of 1 to 64 printable characters of ASCII, without quotes and spaces. Use a UUID.")
	}
	action.Key = key
	return nil
}

// unquoted removes the quotes around the text of a header, if there are any. The result "ok"
// is true only if the text is not empty, and has only printable characters of ASCII other
// than spaces, quotes and backslashes.
func unquoted(header string) (text string, ok bool) {
	text = header
	if len(text) >= 2 && text[0] == '"' && text[len(text)-1] == '"' {
		text = text[1 : len(text)-1]
	}
	return text, text != "" && strings.IndexFunc(text, func(r rune) bool { return r <= ' ' || r >= 0x7f || r == '"' || r == '\\' }) < 0
}

// actionOf reads those parts of a request that all writes can have: the version, and the hold that
// fences the write.
func (a *API) actionOf(r *http.Request) (*Action, *problem) {
	action := new(Action)
	match, none := r.Header.Values("If-Match"), r.Header.Values("If-None-Match")
	switch {
	case len(match)+len(none) > 1:
		return nil, usageProblem("Send one If-Match, or one If-None-Match.")
	case len(match) == 1:
		text, ok := unquoted(match[0])
		if !ok || text == "*" {
			return nil, usageProblem("The value of If-Match is no version. Send the ETag of an earlier answer.")
		}
		action.Match = text
	case len(none) == 1:
		if none[0] != "*" {
			return nil, usageProblem("The value of If-None-Match is not *. Send If-None-Match: *, or If-Match with a version.")
		}
		action.Fresh = true
	}
	number := r.URL.Query().Get("fence")
	if number == "" {
		if r.URL.Query().Has("fence") {
			return nil, lostProblem
		}
		return action, nil
	}
	// A program that has closed only its half of the connection still reads the answer.
	ctx := context.WithoutCancel(r.Context())
	k, err := a.keeperOfHold(ctx, number)
	switch {
	case err != nil:
		return nil, stoppingProblem
	case k == nil:
		return nil, lostProblem
	case k.of.Kind.Sized:
		return nil, usageProblem("A semaphore, or a read-write lock, has several slots, so its hold is no fence. Use a lock or an election.")
	}
	action.Fence = func() (kube.Fence, Refusal) { return calls{k}.fence(ctx, number) }
	return action, nil
}

// keeperOfHold returns the keeper of the claim whose hold has the number; nil if no claim
// of the pod has such a hold. If a keeper does not answer, the result is the error.
func (a *API) keeperOfHold(ctx context.Context, number string) (found *keeper, err error) {
	for _, k := range a.keepers {
		silent := calls{k}.call(ctx, func(time.Duration) {
			k.quiet = true
			if k.hold != nil && k.hold.number == number {
				found = k
			}
		})
		err = cmp.Or(err, silent)
	}
	if found != nil {
		return found, nil
	}
	return nil, err
}

// fence returns the fence for a write under the hold with the number. If that hold is not good,
// the result is a refusal.
func (k calls) fence(ctx context.Context, number string) (fence kube.Fence, refusal Refusal) {
	err := k.call(ctx, func(now time.Duration) {
		k.quiet = true
		has := k.hold != nil && k.hold.number == number && k.hold.phase(now) != lost
		if has {
			k.tie(true)
		}
		switch {
		case !has:
			refusal = LostHold
		case k.hold.good(now) <= 0:
			refusal = UncertainHold
		default:
			token, err := strconv.ParseInt(k.hold.token, 10, 64)
			if err != nil || token < 1 {
				refusal = Unavailable
			}
			fence = kube.Fence{Lock: k.hold.slot, Epoch: api.FirstEpoch, Token: token}
		}
	})
	if err != nil {
		return fence, Stopping
	}
	return fence, refusal
}
