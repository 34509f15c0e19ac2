// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package config renders the configuration files and manifests of the cluster from
// templates in this package.
package config

import (
	"bytes"
	"embed"
	"fmt"
	"os"
	"path/filepath"
	"text/template"

	"github.com/metaparticle-io/metaparticle/test/cluster/lab/state"
)

//go:embed templates
var templateFiles embed.FS

var templates = template.Must(template.ParseFS(templateFiles, "templates/*"))

// CertManagerValues returns the template of the settings of cert-manager's chart.
func CertManagerValues() string {
	data, err := templateFiles.ReadFile("templates/certmanager-values.yaml")
	if err != nil {
		panic(err) // the compiler has embedded the file, so no read fails
	}
	return string(data)
}

// Variables has the values that templates may use. The names of the fields are also the names in
// the templates.
type Variables struct {
	Dir, Name, Subnet, Cgroup, Runc                       string
	ControlAddress, Registry, Pods, Services, DNS         string
	MetricsPort                                           string
	KubernetesVersion, CertManagerVersion, CoreDNSVersion string
}

// Values returns the values for the templates of a node.
func Values(l *state.Lab, n state.Node) Variables {
	return Variables{
		Dir: l.Root, Name: n.Name, Subnet: n.Subnet(), Cgroup: l.NodeCgroup(n.Name), Runc: l.Path("bin", "runc"),
		ControlAddress: state.ControlAddress, Registry: state.RegistryInCluster,
		Pods: state.PodNetwork, Services: state.ServiceNetwork, DNS: state.DNSAddress, MetricsPort: state.MetricsPort,
		KubernetesVersion: l.Kubernetes, CertManagerVersion: l.CertManager, CoreDNSVersion: state.CoreDNSVersion,
	}
}

// Render fills in a template.
func Render(name string, v Variables) ([]byte, error) {
	var out bytes.Buffer
	if err := templates.ExecuteTemplate(&out, name, v); err != nil {
		return nil, fmt.Errorf("render %s: %w", name, err)
	}
	return out.Bytes(), nil
}

// RenderTo renders a template to a file, and makes the file's directory.
func RenderTo(l *state.Lab, file, name string, v Variables) error {
	data, err := Render(name, v)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	return os.WriteFile(file, data, 0o644)
}
