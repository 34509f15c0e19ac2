// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package feature

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestCommandNamesPID1(t *testing.T) {
	script := func(s string) []string { return []string{"/bin/sh", "-c", s} }
	for _, test := range []struct {
		command []string
		named   string
	}{
		{script("jstack 1 > /dumps/$(date +%s).txt"), "jstack and PID 1"},
		{[]string{"jcmd", "1", "Thread.print"}, "jcmd and PID 1"},
		{[]string{"/opt/java/bin/jmap", "-dump:live,file=/dumps/heap", "1"}, "jmap and PID 1"},
		{script("sleep 5; timeout 10 jcmd 1 GC.heap_dump /x"), "jcmd and PID 1"},
		{script("jstat -gc 1 1000 1"), "jstat and PID 1"},
		{script("exec jattach 1 threaddump"), "jattach and PID 1"},
		{script("py-spy dump --pid 1"), "--pid 1"},
		{script("dotnet-dump collect -p 1 -o /x"), "dotnet-dump and PID 1"},
		{script("tail --pid=1 -f /dev/null"), "--pid 1"},
		{script("while kill -0 1; do sleep 1; done"), "kill and PID 1"},
		{script("while kill -0 \"1\" 2>/dev/null\ndo sleep 1\ndone"), "kill and PID 1"},
		{script("test \"$(cat /proc/1/comm)\" = java"), "/proc/1/comm"},
		{script("grep VmRSS</proc/1/status"), "/proc/1/status"},
		{[]string{"ps", "-p", "1", "-o", "rss="}, "ps and PID 1"},

		{script("sleep 1"), ""},
		{script("jstack $(pgrep -o java) | head -1"), ""},
		{script("jstack \"$PID\" 2>&1 | tail -n 1"), ""},
		{script("jcmd biller.Main Thread.print; sleep 1"), ""},
		{script("jstat -gc $PID 1000 1"), ""},
		{script("kill -0 $PID || exit 1"), ""},
		{script("kill -TERM 1"), ""}, // the shim passes the signal on
		{script("kill -1 $PID"), ""},
		{script("echo done > /proc/1/fd/1"), ""}, // the container's log
		{script("cat /proc/1/environ /proc/1/root/etc/hosts"), ""},
		{script("cat /proc/12/status /host/proc/1/status"), ""},
		{script("mkdir -p 1; strace -p 12"), ""},
		{[]string{"nc", "-z", "-w", "1", "localhost", "80"}, ""},
		{[]string{"jstack"}, ""},
		{nil, ""},
	} {
		assert.Equal(t, test.named, namesPID1(test.command), test.command)
	}
}
