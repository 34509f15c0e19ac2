// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package admit

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"github.com/metaparticle-io/metaparticle/mutate/load"
	"github.com/metaparticle-io/metaparticle/mutate/mutatetest"
)

// handled is a transport that calls a handler without a network.
type handled struct{ http.Handler }

func (h handled) RoundTrip(r *http.Request) (*http.Response, error) {
	answer := httptest.NewRecorder()
	h.ServeHTTP(answer, r)
	return answer.Result(), nil
}

// busy is a handler whose calls last until the channel "end" is closed.
type busy struct{ begun, end chan struct{} }

func newBusy() busy { return busy{begun: make(chan struct{}, enough+1), end: make(chan struct{})} }

func (b busy) Handle(context.Context, admission.Request) admission.Response {
	b.begun <- struct{}{}
	<-b.end
	return admission.Allowed("")
}

// apiServer posts a review with the API server's own client for webhooks. That client obeys
// Retry-After.
func apiServer(t *testing.T, webhook http.Handler, timeout time.Duration, body string) (string, error) {
	t.Helper()
	config := &rest.Config{Host: "https://webhook", QPS: -1, ContentConfig: rest.ContentConfig{
		NegotiatedSerializer: clientgoscheme.Codecs.WithoutConversion(), ContentType: "application/json",
	}}
	client, err := rest.UnversionedRESTClientForConfigAndClient(config, &http.Client{Transport: handled{webhook}})
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	answer, err := client.Post().AbsPath("/pods").SetHeader("Content-Type", "application/json").Body([]byte(body)).Do(ctx).Raw()
	return string(answer), err
}

func TestAPIServerRetriesAnOverloadedWebhook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		handler, body := newBusy(), review(t, mutatetest.Request(ownedPod))
		webhook := Serve(handler, &load.Limit{Max: 1})
		first := make(chan error)
		go func() {
			_, err := apiServer(t, webhook, 10*time.Second, body)
			first <- err
		}()
		<-handler.begun

		began := time.Now()
		_, err := apiServer(t, webhook, 500*time.Millisecond, body)
		require.Error(t, err, "the answer is no admission")
		assert.LessOrEqual(t, time.Since(began), time.Second)

		second := make(chan error)
		go func() {
			_, err := apiServer(t, webhook, 10*time.Second, body)
			second <- err
		}()
		<-time.After(1500 * time.Millisecond)
		close(handler.end)
		require.NoError(t, <-first)
		require.NoError(t, <-second)
		assert.Len(t, handler.begun, 1, "the second call, once")
	})
}

// maxObjects is the number of JSON objects for which the estimate reaches 64 MiB, the bound of one
// call. The estimate counts 2 KiB for each object and each element.
const maxObjects = 64 << 20 / (2 << 10)

// enough is a number of calls that together need more memory than a webhook has.
const enough = 1000

// flood sends calls, each for another namespace, until the webhook refuses one. The function counts
// the handled calls.
func flood(t *testing.T, limit *load.Limit, body string) (handled int, answer *httptest.ResponseRecorder) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		handler := newBusy()
		webhook := Serve(handler, limit)
		answers := make(chan *httptest.ResponseRecorder, enough+1)
		call := func(namespace string) {
			its := strings.Replace(body, `"namespace":"shop"`, `"namespace":"`+namespace+`"`, 1)
			r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/", strings.NewReader(its))
			r.Header.Set("Content-Type", "application/json")
			w := httptest.NewRecorder()
			webhook.ServeHTTP(w, r)
			answers <- w
		}
		for len(answers) == 0 && handled < enough {
			go call(fmt.Sprint("shop", handled))
			synctest.Wait()
			handled = len(handler.begun)
		}
		turnedAway := len(answers) == 1
		close(handler.end)
		require.True(t, turnedAway, "nobody was turned away")
		answer = <-answers
		synctest.Wait()
		assert.Len(t, answers, handled)
	})
	return handled, answer
}

func TestFloodOfCallsStaysWithinTheMemoryLimit(t *testing.T) {
	pod := func(containers string) string {
		return review(t, mutatetest.Request(`{"metadata":{"name":"a"},"spec":{"containers":[`+containers+`]}}`))
	}
	for name, c := range map[string]struct {
		body        string
		least, most int
	}{
		"ordinary pods": {review(t, mutatetest.Request(ownedPod)), 200, 512},
		"long names":    {pod(`{"name":"` + strings.Repeat("x", 128<<10) + `"}`), 100, 200},
		"many objects":  {pod(strings.Repeat("0,", maxObjects/2) + "0"), 2, 4},
	} {
		t.Run(name, func(t *testing.T) {
			limit := new(load.Limit)
			handled, turnedAway := flood(t, limit, c.body)
			assert.GreaterOrEqual(t, handled, c.least)
			assert.LessOrEqual(t, handled, c.most)
			assert.Equal(t, http.StatusTooManyRequests, turnedAway.Code)
			assert.Equal(t, "1", turnedAway.Header().Get("Retry-After"))
			assert.Zero(t, limit.Used(), "what was taken is given back")
		})
	}
}

// A caller that announces a body, and then waits, occupies a connection, but no part of the
// load.
func TestCallsWithUnsentBodiesNeverBlockOtherCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		handler := newBusy()
		close(handler.end)
		limit := new(load.Limit)
		webhook := Serve(handler, limit)
		call := func(body io.Reader, length int64) int {
			r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/", body)
			r.Header.Set("Content-Type", "application/json")
			r.ContentLength = length
			w := httptest.NewRecorder()
			webhook.ServeHTTP(w, r)
			return w.Code
		}
		var ends []io.Closer
		for range enough {
			body, end := io.Pipe() // no byte ever arrives
			ends = append(ends, end)
			go call(body, maxBytes)
		}
		synctest.Wait()
		text := review(t, mutatetest.Request(ownedPod))
		assert.Equal(t, http.StatusOK, call(strings.NewReader(text), int64(len(text))))
		assert.Equal(t, http.StatusOK, call(strings.NewReader(text), -1), "nor is a length needed")
		for _, end := range ends {
			assert.NoError(t, end.Close())
		}
		synctest.Wait()
		assert.Zero(t, limit.Used())
	})
}

// zeros is a body without an end.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// unread is a body that fails the test when a reader reads it.
type unread struct{ t *testing.T }

func (u unread) Read([]byte) (int, error) {
	u.t.Error("the body was read")
	return 0, io.EOF
}

// If the webhook read bodies under full load, a flood of calls would keep the webhook busy with the
// bodies of refused calls.
func TestWebhookUnderFullLoadNeverReadsBodies(t *testing.T) {
	limit := new(load.Limit)
	other := limit.Share()
	_, err := io.Copy(io.Discard, other.Meter(io.LimitReader(zeros{}, 90<<20/4))) // the estimate counts four bytes for each byte of a body
	require.NoError(t, err)
	require.EqualValues(t, 90<<20, limit.Used())
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/", unread{t})
	r.ContentLength = 3 << 20
	r.Header.Set("Content-Type", "application/json")
	answer := httptest.NewRecorder()
	Serve(newBusy(), limit).ServeHTTP(answer, r)
	assert.Equal(t, http.StatusTooManyRequests, answer.Code)
	other.Free()
	assert.Zero(t, limit.Used(), "what was announced took nothing")
}
