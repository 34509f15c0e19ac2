// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Command kubernetes is programs/kubernetes for a version in which NewKubeletCommand has no context
// as its argument. The command contains every Kubernetes program of the test cluster, and etcd, in
// one file. The name of the command selects the program. So there is one link step instead of
// eight, and 180 MB instead of a gigabyte.
package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"go.etcd.io/etcd/server/v3/etcdmain"
	"k8s.io/component-base/cli"
	kubectl "k8s.io/kubectl/pkg/cmd"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllers "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	proxy "k8s.io/kubernetes/cmd/kube-proxy/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	kubeadm "k8s.io/kubernetes/cmd/kubeadm/app"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"

	_ "k8s.io/component-base/logs/json/register"          // --logging-format=json
	_ "k8s.io/component-base/metrics/prometheus/clientgo" // client metrics on /metrics
	_ "k8s.io/component-base/metrics/prometheus/version"  // version metric on /metrics
)

func main() {
	os.Exit(run(filepath.Base(os.Args[0])))
}

func run(program string) int {
	commands := map[string]func() *cobra.Command{
		"kube-apiserver":          apiserver.NewAPIServerCommand,
		"kube-controller-manager": controllers.NewControllerManagerCommand,
		"kube-scheduler":          func() *cobra.Command { return scheduler.NewSchedulerCommand() },
		"kube-proxy":              proxy.NewProxyCommand,
		"kubelet":                 kubelet.NewKubeletCommand,
	}
	if command, ok := commands[program]; ok {
		return cli.Run(command())
	}
	var err error
	switch program {
	case "etcd":
		etcdmain.Main(os.Args)
	case "kubeadm":
		err = kubeadm.Run()
	case "kubectl":
		err = cli.RunNoErrOutput(kubectl.NewDefaultKubectlCommand())
	default:
		err = fmt.Errorf("unknown program %q: call this file by the name of a Kubernetes program", program)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}
