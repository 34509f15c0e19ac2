// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package mutate

import (
	"context"
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
)

// handled is a transport without a network.
type handled struct{ http.Handler }

func (h handled) RoundTrip(r *http.Request) (*http.Response, error) {
	answer := httptest.NewRecorder()
	h.ServeHTTP(answer, r)
	return answer.Result(), nil
}

// busy is a handler whose calls last until they are let go.
type busy struct{ begun, end chan struct{} }

func newBusy() busy { return busy{begun: make(chan struct{}, enough+1), end: make(chan struct{})} }

func (b busy) Handle(context.Context, admission.Request) admission.Response {
	b.begun <- struct{}{}
	<-b.end
	return admission.Allowed("")
}

// apiServer posts a review with the client that an API server makes for a
// webhook: it obeys Retry-After.
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

func TestOverloadedWebhookIsAskedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		handler, body := newBusy(), review(t, request(ownedPod))
		webhook := Serve(handler, &Load{Most: 1})
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

// enough calls are far more than a webhook has memory for.
const enough = 1000

// flood calls until a call is turned away, and counts those that are handled.
func flood(t *testing.T, load *Load, body string) (handled int, answer *httptest.ResponseRecorder) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		handler := newBusy()
		webhook := Serve(handler, load)
		answers := make(chan *httptest.ResponseRecorder, enough+1)
		call := func() {
			r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/", strings.NewReader(body))
			r.Header.Set("Content-Type", "application/json")
			w := httptest.NewRecorder()
			webhook.ServeHTTP(w, r)
			answers <- w
		}
		for len(answers) == 0 && handled < enough {
			go call()
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

func TestFloodIsTurnedAwayWithinTheMemoryLimit(t *testing.T) {
	pod := func(containers string) string {
		return review(t, request(`{"metadata":{"name":"a"},"spec":{"containers":[`+containers+`]}}`))
	}
	for name, c := range map[string]struct {
		body        string
		least, most int
	}{
		"ordinary pods": {review(t, request(ownedPod)), 200, 512},
		"long names":    {pod(`{"name":"` + strings.Repeat("x", 128<<10) + `"}`), 100, 200},
		"many objects":  {pod(strings.Repeat("{},", mostDecoded/perObject/2) + "{}"), 2, 4},
	} {
		t.Run(name, func(t *testing.T) {
			load := new(Load)
			handled, turnedAway := flood(t, load, c.body)
			assert.GreaterOrEqual(t, handled, c.least)
			assert.LessOrEqual(t, handled, c.most)
			assert.Equal(t, http.StatusTooManyRequests, turnedAway.Code)
			assert.Equal(t, "1", turnedAway.Header().Get("Retry-After"))
			assert.Zero(t, load.used, "what was taken is given back")
		})
	}
}

func TestReviewOfTooManyObjectsIsRefused(t *testing.T) {
	load := new(Load)
	handler := NewPodHandler(Options{Images: asked{t}, Owners: asked{t}})
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/", strings.NewReader(review(t,
		request(`{"spec":{"containers":[`+strings.Repeat("{},", mostDecoded/perObject)+`{}]}}`))))
	r.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	Serve(handler, load).ServeHTTP(w, r)
	assert.Equal(t, http.StatusBadRequest, w.Code)
	assert.Contains(t, w.Body.String(), "JSON objects")
	assert.Zero(t, load.used)
}

// silent is a body of which nothing arrives until the call is over.
type silent struct{ asked, over chan struct{} }

func (s silent) Read([]byte) (int, error) {
	close(s.asked)
	<-s.over
	return 0, io.ErrUnexpectedEOF
}

func TestAnnouncedLengthTakesNothingFromOthers(t *testing.T) {
	load := new(Load)
	webhook := Serve(admission.HandlerFunc(func(context.Context, admission.Request) admission.Response {
		return admission.Allowed("")
	}), load)
	call := func(body io.Reader, length int64) int {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/", body)
		r.Header.Set("Content-Type", "application/json")
		r.ContentLength = length
		w := httptest.NewRecorder()
		webhook.ServeHTTP(w, r)
		return w.Code
	}
	over, ended := make(chan struct{}), make(chan int)
	for range 50 {
		body := silent{make(chan struct{}), over}
		go func() { ended <- call(body, mostBytes) }()
		select {
		case <-body.asked:
		case code := <-ended:
			require.FailNow(t, "an announced length was turned away", "%d", code)
		}
	}
	text := review(t, request(ownedPod))
	assert.Equal(t, http.StatusOK, call(strings.NewReader(text), int64(len(text))))
	assert.Equal(t, http.StatusOK, call(strings.NewReader(text), -1), "nor is a length needed")
	close(over)
	for range 50 {
		assert.Equal(t, http.StatusBadRequest, <-ended)
	}
	assert.Zero(t, load.used)
}

// Ordinary pods are small. Those who send large ones must not keep them out.
func TestLargeCallsLeaveRoomForSmallOnes(t *testing.T) {
	load := new(Load)
	arrive := func(length int) (*share, error) {
		s := load.share()
		_, err := io.Copy(io.Discard, metered{strings.NewReader(strings.Repeat("x", length)), s})
		return s, err
	}
	var large []*share
	for {
		s, err := arrive(3 << 20)
		if err != nil {
			require.ErrorIs(t, err, errOverloaded)
			s.free()
			break
		}
		large = append(large, s)
	}
	require.NotEmpty(t, large)
	for n := range 50 {
		s, err := arrive(8 << 10)
		require.NoError(t, err, "small call %d", n)
		require.NoError(t, s.decoded([]byte(strings.Repeat("{", 50))), "small call %d", n)
	}
	// What a small body turns out to hold may make a large call of it.
	hollow, err := arrive(smallCall)
	require.NoError(t, err)
	require.ErrorIs(t, hollow.decoded([]byte(strings.Repeat("{", smallCall/2))), errOverloaded)
	for _, s := range large {
		s.free()
	}
}

// A caller that sends a header and waits holds nothing but its connection.
func TestCallsWithoutABodyKeepNobodyOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		handler := newBusy()
		close(handler.end)
		load := new(Load)
		webhook := Serve(handler, load)
		call := func(body io.Reader) int {
			r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/", body)
			r.Header.Set("Content-Type", "application/json")
			w := httptest.NewRecorder()
			webhook.ServeHTTP(w, r)
			return w.Code
		}
		var ends []io.Closer
		for range enough {
			body, end := io.Pipe() // nothing ever comes
			ends = append(ends, end)
			go call(body)
		}
		synctest.Wait()
		assert.Equal(t, http.StatusOK, call(strings.NewReader(review(t, request(ownedPod)))))
		for _, end := range ends {
			assert.NoError(t, end.Close())
		}
		synctest.Wait()
		assert.Zero(t, load.used)
	})
}

// unread is a body that nobody may read.
type unread struct{ t *testing.T }

func (u unread) Read([]byte) (int, error) {
	u.t.Error("the body was read")
	return 0, io.EOF
}

// Reading megabytes for nothing is most of what a flood costs.
func TestBodyWithoutRoomIsNotRead(t *testing.T) {
	load := new(Load)
	other := load.share()
	require.True(t, other.grow(90<<20))
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/", unread{t})
	r.ContentLength = 3 << 20
	r.Header.Set("Content-Type", "application/json")
	answer := httptest.NewRecorder()
	Serve(newBusy(), load).ServeHTTP(answer, r)
	assert.Equal(t, http.StatusTooManyRequests, answer.Code)
	other.free()
	assert.Zero(t, load.used, "what was announced took nothing")
}
