// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package local

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/sim/apiserver"
)

// send sends a request with a body. The argument "headers" has the name and the value of each
// header, in turn.
func (p *pod) send(method, path, body string, headers ...string) (code int, answer map[string]any) {
	p.t.Helper()
	r := httptest.NewRequestWithContext(p.t.Context(), method, path, strings.NewReader(body))
	r.Host = "localhost:13131"
	for i := 0; i < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	p.handler.ServeHTTP(w, r)
	require.NoError(p.t, json.Unmarshal(w.Body.Bytes(), &answer), w.Body.String())
	if w.Code == http.StatusOK && answer["version"] != nil {
		require.Equal(p.t, `"`+answer["version"].(string)+`"`, w.Header().Get("ETag"))
	}
	return w.Code, answer
}

const hits = "/v1/variable/hits"

func TestProgramCanGetSetAndIncrementVariables(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newServer(t)
		p, other := start(t, s, "first", "variable/hits"), start(t, s, "second", "variable/hits")
		_, body := p.send(http.MethodGet, hits, "")
		assert.Equal(t, map[string]any{"variable": "variable/hits", "type": "none", "value": "", "version": "1"}, body)
		_, body = p.send(http.MethodPost, hits+"/add", "")
		assert.Equal(t, map[string]any{"variable": "variable/hits", "type": "integer", "value": "1"}, body)
		_, body = other.send(http.MethodPost, hits+"/add?by=-5", "")
		assert.Equal(t, "-4", body["value"])
		_, body = p.send(http.MethodPut, hits, " 9223372036854775807\n", "If-None-Match", "*")
		assert.Equal(t, "Mismatch", body["reason"])
		_, body = p.send(http.MethodPut, hits+"?type=integer", " 9223372036854775807\n", "If-Match", `"3"`)
		assert.Equal(t, "9223372036854775807", body["value"])
		assert.Equal(t, "4", body["version"])
		_, body = other.send(http.MethodPut, hits, "7", "If-Match", `"3"`)
		assert.Equal(t, "Mismatch", body["reason"])
		_, body = other.send(http.MethodPut, hits, "7\n")
		assert.Equal(t, "7", body["value"], "a line break may follow an integer")
		longest := strings.Repeat("k", api.MaxIdempotencyKey)
		for _, key := range []string{longest, `"` + longest + `"`} {
			_, body = p.send(http.MethodPost, hits+"/add", "", "Idempotency-Key", key)
			assert.Equal(t, "8", body["value"], "the key prevents a second addition")
		}
	})
	bubble(t, func(t *testing.T) {
		value := strings.Repeat("x", api.MaxValue)
		_, body := start(t, newServer(t), "first", "variable/hits").send(http.MethodPut, hits, value)
		assert.Equal(t, value, body["value"])
	})
}

func TestRefusedVariableCallReturnsStatusAndReason(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newServer(t)
		p := start(t, s, "first", "variable/hits")
		_, body := p.send(http.MethodPost, hits+"/add?by=9223372036854775807", "", "Idempotency-Key", "k")
		require.Equal(t, "9223372036854775807", body["value"])
		long := strings.Repeat("x", api.MaxIdempotencyKey+1)
		for name, test := range map[string]struct {
			method, path, body string
			headers            []string
			code               int
			reason             string
		}{
			"another variable":  {http.MethodGet, "/v1/variable/other", "", nil, 404, "NotDeclared"},
			"no path":           {http.MethodDelete, hits, "", nil, 404, "NoSuchPath"},
			"a hold":            {http.MethodPost, hits + "/holds", "", nil, 404, "NotDeclared"},
			"overflow":          {http.MethodPost, hits + "/add", "", nil, 409, "Overflow"},
			"a text":            {http.MethodPut, hits + "?type=text", "x", nil, 409, "WrongType"},
			"no number":         {http.MethodPut, hits, "x", nil, 409, "WrongType"},
			"no integer":        {http.MethodPut, hits + "?type=integer", "1.5", nil, 400, "BadRequest"},
			"too large":         {http.MethodPut, hits + "?type=integer", "9223372036854775808", nil, 400, "BadRequest"},
			"another type":      {http.MethodPut, hits + "?type=float", "1", nil, 400, "BadRequest"},
			"a large body":      {http.MethodPut, hits + "?type=text", strings.Repeat("x", api.MaxValue+1), nil, 400, "BadRequest"},
			"no text":           {http.MethodPut, hits + "?type=text", "\xff", nil, 400, "BadRequest"},
			"an odd addend":     {http.MethodPost, hits + "/add?by=x", "", nil, 400, "BadRequest"},
			"a long key":        {http.MethodPost, hits + "/add", "", []string{"Idempotency-Key", long}, 400, "BadRequest"},
			"an empty key":      {http.MethodPost, hits + "/add", "", []string{"Idempotency-Key", ""}, 400, "BadRequest"},
			"a key with spaces": {http.MethodPost, hits + "/add", "", []string{"Idempotency-Key", "a b"}, 400, "BadRequest"},
			"half a quote":      {http.MethodPost, hits + "/add", "", []string{"Idempotency-Key", `"kk`}, 400, "BadRequest"},
			"another half":      {http.MethodPost, hits + "/add", "", []string{"Idempotency-Key", `kk"`}, 400, "BadRequest"},
			"a backslash":       {http.MethodPost, hits + "/add", "", []string{"Idempotency-Key", `\k`}, 400, "BadRequest"},
			"no ASCII":          {http.MethodPost, hits + "/add", "", []string{"Idempotency-Key", "ké"}, 400, "BadRequest"},
			"half a version":    {http.MethodPut, hits, "1", []string{"If-Match", `11"`}, 400, "BadRequest"},
			"two keys":          {http.MethodPost, hits + "/add", "", []string{"Idempotency-Key", "a", "Idempotency-Key", "b"}, 400, "BadRequest"},
			"a reused key":      {http.MethodPost, hits + "/add?by=2", "", []string{"Idempotency-Key", "k"}, 422, "KeyReused"},
			"a key for a set":   {http.MethodPut, hits, "1", []string{"Idempotency-Key", "a"}, 400, "BadRequest"},
			"any match":         {http.MethodPut, hits, "1", []string{"If-Match", "*"}, 400, "BadRequest"},
			"a weak match":      {http.MethodPut, hits, "1", []string{"If-Match", `W/"1"`}, 400, "BadRequest"},
			"two matches":       {http.MethodPut, hits, "1", []string{"If-Match", `"1"`, "If-None-Match", "*"}, 400, "BadRequest"},
			"an odd none":       {http.MethodPut, hits, "1", []string{"If-None-Match", `"1"`}, 400, "BadRequest"},
			"an unknown hold":   {http.MethodPut, hits + "?fence=x", "1", nil, 410, "Lost"},
			"an empty hold":     {http.MethodPut, hits + "?fence=", "1", nil, 410, "Lost"},
			"an odd watch":      {http.MethodGet, hits + "?watch=1", "", nil, 400, "BadRequest"},
		} {
			code, body := p.send(test.method, test.path, test.body, test.headers...)
			assert.Equal(t, test.code, code, name)
			assert.Equal(t, test.reason, body["reason"], name)
		}
		_, body = p.send(http.MethodGet, hits, "")
		assert.Equal(t, "9223372036854775807", body["value"], "no refused call has changed the value")
		_, body = p.send(http.MethodPost, hits+"/add?by=9223372036854775807", "", "Idempotency-Key", `"k"`)
		assert.Equal(t, "9223372036854775807", body["value"], "the first result")
	})
}

func TestUnansweredAdditionReturnsUnknownIfVariableIsOverwritten(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newServer(t)
		p := start(t, s, "first", "variable/hits")
		_, _ = p.send(http.MethodPost, hits+"/add", "")
		s.loses.Store(true)
		code, body := p.send(http.MethodPost, hits+"/add", "")
		assert.Equal(t, http.StatusOK, code, "the Variable names the write")
		assert.Equal(t, "2", body["value"])
		s.Do(func() { s.Answer = overwritten(s) })
		code, body = p.send(http.MethodPost, hits+"/add", "")
		assert.Equal(t, http.StatusGatewayTimeout, code)
		assert.Equal(t, "Unknown", body["reason"])
	})
}

// overwritten is an Answer after which another pod has written, and which the agent does not get.
func overwritten(s *server) func(apiserver.Request, error) error {
	return func(r apiserver.Request, err error) error {
		if r.Verb != "put" {
			return err
		}
		other := s.Variable("hits")
		other.Write, other.Integer = "other", new(*other.Integer+100)
		s.SetVariable(other)
		return apiserver.ErrUnreachable
	}
}

func TestFencedWriteCarriesTheTokenOfItsHold(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newServer(t, "lock.a", "semaphore.p.0", "semaphore.p.1")
		first, second := start(t, s, "first", "lock/a,variable/hits,semaphore/p=2"), start(t, s, "second", "lock/a,variable/hits")
		number := first.hold("?heartbeat=5m")
		code, body := first.send(http.MethodPut, hits+"?fence="+number, "mine")
		require.Equal(t, http.StatusOK, code, body)
		assert.Equal(t, "lock.a", body["fenceLock"])
		token := body["fencingToken"]
		_, held := first.call(http.MethodPut, "/v1/lock/a/holds/"+number)
		assert.Equal(t, held["fencingToken"], token)
		_, body = second.send(http.MethodPut, hits+"?fence="+number, "theirs")
		assert.Equal(t, "Lost", body["reason"], "a hold is of its own pod")
		_, body = second.send(http.MethodPut, hits, "theirs")
		assert.Equal(t, "Fenced", body["reason"])
		_, permit := first.call(http.MethodPost, "/v1/semaphore/p/holds")
		_, body = first.send(http.MethodPut, hits+"?fence="+permit["hold"].(string), "x")
		assert.Equal(t, "BadRequest", body["reason"])

		code, _ = first.call(http.MethodDelete, "/v1/lock/a/holds/"+number)
		require.Equal(t, http.StatusNoContent, code)
		_, body = first.send(http.MethodPut, hits+"?fence="+number, "late")
		assert.Equal(t, "Lost", body["reason"])
		number = second.hold("?heartbeat=5m&wait=1m")
		code, body = second.send(http.MethodPut, hits+"?fence="+number, "theirs")
		require.Equal(t, http.StatusOK, code, body)
		before, _ := strconv.Atoi(token.(string))
		after, _ := strconv.Atoi(body["fencingToken"].(string))
		assert.Greater(t, after, before)

		// From the leap until the next stored renewal, the hold is not good.
		<-time.After(time.Second)
		s.hangs.Store(true)
		second.leap()
		<-time.After(time.Millisecond)
		_, body = second.send(http.MethodPut, hits+"?fence="+number, "uncertain")
		assert.Equal(t, "Uncertain", body["reason"])
		<-time.After(budget.Duration)
		_, body = second.send(http.MethodPut, hits+"?fence="+number, "late")
		assert.Equal(t, "Lost", body["reason"], "the time of the hold is over")
		_, body = second.send(http.MethodGet, hits, "")
		assert.Equal(t, "theirs", body["value"])
	})
}

func TestVariableWatchDeliversValueAndEachChange(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newServer(t)
		p, other := start(t, s, "first", "variable/hits"), start(t, s, "second", "variable/hits")
		stream := p.stream(http.MethodGet, hits+"?watch=true")
		<-time.After(time.Second)
		for range 3 {
			_, _ = other.send(http.MethodPost, hits+"/add", "")
			<-time.After(time.Second)
		}
		synctest.Wait()
		stream.mu.Lock()
		text := stream.text.String()
		stream.mu.Unlock()
		var values []string
		for line := range strings.Lines(text) {
			var of variableState
			require.NoError(t, json.Unmarshal([]byte(line), &of))
			values = append(values, of.Value)
		}
		assert.Equal(t, []string{"", "1", "2", "3"}, values)
		stream.end()
		<-stream.done
		<-time.After(time.Second)
	})
}
