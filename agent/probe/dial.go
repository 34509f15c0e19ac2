// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"crypto/tls"
	"errors"
	"net"
	"strconv"
	"syscall"
)

// dialer sets SO_LINGER to one second, as the kubelet does, so that frequent probes do not
// leave many connections in TIME_WAIT.
var dialer = net.Dialer{Control: func(_, _ string, c syscall.RawConn) error {
	return c.Control(func(fd uintptr) {
		_ = syscall.SetsockoptLinger(int(fd), syscall.SOL_SOCKET, syscall.SO_LINGER, &syscall.Linger{Onoff: 1, Linger: 1})
	})
}}

// insecure accepts any certificate, because a probe does not declare a name to
// verify.
var insecure = &tls.Config{InsecureSkipVerify: true} //nolint:gosec // as the kubelet does

// join returns the address to which the probe connects: that of the pod, unless the probe names
// a host.
func join(host, address string, port int) string {
	if host == "" {
		host = address
	}
	return net.JoinHostPort(host, strconv.Itoa(port))
}

// refused reports whether no process listens at the port.
func refused(err error) bool { return errors.Is(err, syscall.ECONNREFUSED) }
