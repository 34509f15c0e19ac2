// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"encoding/json"
	"strings"
)

// Handler is the action of a probe or a lifecycle hook: one of its fields is set. The names of the
// JSON fields are those of corev1.ProbeHandler and corev1.LifecycleHandler. The webhook has
// replaced the name of each port by its number.
type Handler struct {
	Exec      *ExecAction      `json:"exec,omitempty"`
	HTTPGet   *HTTPGetAction   `json:"httpGet,omitempty"`
	TCPSocket *TCPSocketAction `json:"tcpSocket,omitempty"`
	// Only probes have GRPC, and only hooks have Sleep.
	GRPC  *GRPCAction  `json:"grpc,omitempty"`
	Sleep *SleepAction `json:"sleep,omitempty"`
}

// String returns the handler as JSON. People read this JSON in a pod's spec, so "<" is not escaped.
func (h Handler) String() string {
	var text strings.Builder
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	_ = encoder.Encode(h) // never fails for strings and numbers
	return strings.TrimSpace(text.String())
}

// parseHandler reads the text of [Handler.String].
func parseHandler(text string) (Handler, error) {
	var h Handler
	err := json.Unmarshal([]byte(text), &h)
	return h, err
}

// ExecAction runs a command in the container of the probe or hook.
type ExecAction struct {
	Command []string `json:"command,omitempty"`
}

// HTTPGetAction sends a request. An empty Host means the pod's address.
type HTTPGetAction struct {
	Path        string       `json:"path,omitempty"`
	Port        int          `json:"port"`
	Host        string       `json:"host,omitempty"`
	Scheme      string       `json:"scheme,omitempty"`
	HTTPHeaders []HTTPHeader `json:"httpHeaders,omitempty"`
}

// HTTPHeader is one header of an [HTTPGetAction].
type HTTPHeader struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// TCPSocketAction opens a connection. An empty Host means the pod's address.
type TCPSocketAction struct {
	Port int    `json:"port"`
	Host string `json:"host,omitempty"`
}

// GRPCAction asks for the health of a service by gRPC.
type GRPCAction struct {
	Port    int    `json:"port"`
	Service string `json:"service,omitempty"`
	// TLS encrypts the connection, without a check of the certificate.
	TLS bool `json:"tls,omitempty"`
}

// SleepAction waits for some seconds.
type SleepAction struct {
	Seconds int64 `json:"seconds"`
}
