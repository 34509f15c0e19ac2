// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package state reads and writes the state directory of a cluster. The directory contains
// the facts that a later process must know about a running cluster. The package also
// defines names and addresses of the cluster.
//
// The package starts nothing and waits for nothing. The other packages of the lab build on
// this package, except for cgroup and wait.
package state

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
)

// KubernetesVersion is the version of every Kubernetes program in the cluster, unless
// METAPARTICLE_KUBERNETES names another one. The build refuses a programs/kubernetes/go.mod with
// another version.
const KubernetesVersion = "v1.37.1"

// These are the versions of cert-manager that the cluster can run: the newest one, and with
// METAPARTICLE_CERTMANAGER=oldest the oldest one that README.md promises.
const (
	CertManagerVersion = "v1.21.2"
	OldestCertManager  = "v1.13.0"
)

// CoreDNSVersion is the tag of CoreDNS and of its image.
const CoreDNSVersion = "v1.14.7"

// FeatureGates are the feature gates that differ from the defaults of Kubernetes, in the API
// server and in the kubelets alike. Some clusters enable ContainerStopSignals, so users
// may set lifecycle.stopSignal. Without the feature gate the API server drops this field.
const FeatureGates = "--feature-gates=ContainerStopSignals=true"

// These addresses are valid only within the cluster.
const (
	ControlAddress = "10.213.0.1"
	PodNetwork     = "10.214.0.0/16"
	ServiceNetwork = "10.215.0.0/16"
	DNSAddress     = "10.215.0.10"
	MetricsPort    = "4443"

	// RegistryInCluster is the image registry's name in image references of pods.
	RegistryInCluster = ControlAddress + ":5000"

	// PrivateRegistry is a second address of the same registry. This address requires a login, and
	// allows only pulls.
	PrivateRegistry = ControlAddress + ":5001"
	PrivateUser     = "puller"
	PrivatePassword = "open-sesame"
)

// ControlPlane is the node that runs the control plane.
const ControlPlane = "cp"

// Holder is the name of a node's first process, which keeps the node's namespaces alive.
// That process is not the holder of a slot.
const Holder = "holder"

// SharedMount is the path of the host's directory [Lab.SharedDir] on every worker.
const SharedMount = "/var/lib/shared"

// maxDir bounds the length of the state directory's name. The name of a socket has at
// most 107 bytes. The longest name in the directory ends with the 29 bytes of
// /run/cp-registry-forward.sock.
const maxDir = 107 - 29

// ErrDown is the error of a call that needs a running cluster, if the cluster is down.
var ErrDown = errors.New("the cluster is not up")

// Lab is a state directory with the known facts of its cluster.
type Lab struct {
	// Workers is the number of worker nodes that Up makes; 0 means 3.
	Workers int
	// Progress gets a line for each step; nil means none.
	Progress io.Writer

	Root     string // state directory, absolute
	Sources  string // this repository's test/cluster/programs
	Versions string // this repository's test/cluster/versions
	// Kubernetes is the version of the Kubernetes programs that Up starts.
	Kubernetes string
	// CertManager is the version of cert-manager that Up installs.
	CertManager string
	Began       time.Time
	Saved       Saved
}

// Saved has the facts that a later process must know of a running cluster.
type Saved struct {
	Workers      int    `json:"workers"`
	Kubernetes   string `json:"kubernetes"`
	CertManager  string `json:"certManager"`
	APIPort      int    `json:"apiPort"`
	RegistryPort int    `json:"registryPort"`
	Metrics      bool   `json:"metrics"` // whether AddMetrics has finished
}

// Open returns the lab of a state directory. An empty dir means the directory that
// METAPARTICLE_CLUSTER_DIR names in the environment. Without this variable, an empty dir means
// .cluster in the repository that contains the working directory.
func Open(dir string) (*Lab, error) {
	root, err := Repository()
	if err != nil {
		return nil, err
	}
	if dir == "" {
		dir = os.Getenv("METAPARTICLE_CLUSTER_DIR")
	}
	if dir == "" {
		dir = filepath.Join(root, ".cluster")
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return nil, err
	}
	// A node has mounts of its own on these directories. A state directory below one of
	// them would be invisible on the node.
	for _, hidden := range []string{"/run", "/var/lib", "/var/log", "/proc", "/sys"} {
		if dir == hidden || strings.HasPrefix(dir, hidden+"/") {
			return nil, fmt.Errorf("state directory %s: must not be below %s", dir, hidden)
		}
	}
	if len(dir) > maxDir {
		return nil, fmt.Errorf("state directory %s: longer than %d bytes, so that sockets in it have too long names", dir, maxDir)
	}
	l := &Lab{
		Root: dir, Sources: filepath.Join(root, "test", "cluster", "programs"), Versions: filepath.Join(root, "test", "cluster", "versions"),
		Began: time.Now(),
	}
	if err := l.choose(os.Getenv("METAPARTICLE_KUBERNETES")); err != nil {
		return nil, err
	}
	switch text := os.Getenv("METAPARTICLE_CERTMANAGER"); text {
	case "":
		l.CertManager = CertManagerVersion
	case "oldest":
		l.CertManager = OldestCertManager
	default:
		return nil, fmt.Errorf("no cert-manager %q: choose oldest (%s), or nothing for %s", text, OldestCertManager, CertManagerVersion)
	}
	if err := l.Load(); err != nil {
		return nil, err
	}
	return l, nil
}

// Repository returns the directory of the checkout that contains the working directory.
func Repository() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for at := dir; ; at = filepath.Dir(at) {
		if _, err := os.Stat(filepath.Join(at, "test", "cluster", "programs")); err == nil {
			return at, nil
		}
		if at == filepath.Dir(at) {
			return "", fmt.Errorf("%s is not in a checkout of this repository", dir)
		}
	}
}

// choose sets the version of Kubernetes to the known version that begins with the argument "text".
// The argument is a version or the beginning of a version, such as 1.33. An empty text means
// [KubernetesVersion].
func (l *Lab) choose(text string) error {
	text = "v" + strings.TrimPrefix(text, "v")
	if text == "v" {
		text = KubernetesVersion
	}
	older, err := filepath.Glob(filepath.Join(l.Versions, "v*"))
	if err != nil {
		return err
	}
	all := []string{KubernetesVersion}
	for _, dir := range older {
		all = append(all, filepath.Base(dir))
	}
	for _, version := range all {
		if version == text || strings.HasPrefix(version, text+".") {
			l.Kubernetes = version
			return nil
		}
	}
	return fmt.Errorf("no Kubernetes %s: choose one of %s", text, strings.Join(all, ", "))
}

// Load reads the saved facts. If no facts are saved, Load changes nothing.
func (l *Lab) Load() error {
	data, err := os.ReadFile(l.Path("cluster.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return json.Unmarshal(data, &l.Saved)
}

// Save writes the facts for later processes.
func (l *Lab) Save() error {
	data, err := json.MarshalIndent(l.Saved, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(l.Path("cluster.json"), data, 0o644)
}

// Path returns a path in the state directory.
func (l *Lab) Path(elem ...string) string {
	return filepath.Join(append([]string{l.Root}, elem...)...)
}

// Cgroup returns the path of the cgroup that contains the whole cluster. The path begins at
// the root of a cgroup hierarchy. Each state directory has a separate cgroup.
func (l *Lab) Cgroup() string {
	return fmt.Sprintf("metaparticle-%x", sha256.Sum256([]byte(l.Root)))[:len("metaparticle-")+8]
}

// Dir returns the state directory.
func (l *Lab) Dir() string { return l.Root }

// Kubeconfig returns the kubeconfig of the cluster's administrator, for clients on this
// host.
func (l *Lab) Kubeconfig() string { return l.Path("kubeconfig") }

// SharedDir returns the directory that every worker mounts at [SharedMount].
func (l *Lab) SharedDir() string { return l.Path("shared") }

// Registry returns the image registry's address on this host.
func (l *Lab) Registry() string {
	return net.JoinHostPort("127.0.0.1", fmt.Sprint(l.Saved.RegistryPort))
}

// AuditLog returns the file in which the API server records the requests of pods. Each line is
// a JSON object (audit.k8s.io/v1 Event).
func (l *Lab) AuditLog() string { return l.Path("log", "audit.log") }

// AuditPolicy returns the file that selects which requests the API server records.
func (l *Lab) AuditPolicy() string { return l.Path("conf", "audit.yaml") }

// AdmissionConfig returns the file that restricts which pods may have the system's priority
// classes, as on some clusters.
func (l *Lab) AdmissionConfig() string { return l.Path("conf", "admission.yaml") }

// Say reports a step to the person who waits.
func (l *Lab) Say(format string, args ...any) {
	if l.Progress != nil {
		fmt.Fprintf(l.Progress, "[%6.2f s] %s\n", time.Since(l.Began).Seconds(), fmt.Sprintf(format, args...))
	}
}

// Nodes returns the names of the workers.
func (l *Lab) Nodes() []string {
	names := make([]string, l.Saved.Workers)
	for i := range names {
		names[i] = fmt.Sprintf("n%d", i+1)
	}
	return names
}

// Node returns the node with the name. The control plane has the number 0.
func (l *Lab) Node(name string) (Node, error) {
	if name == ControlPlane {
		return Node{Name: name}, nil
	}
	if i := slices.Index(l.Nodes(), name); i >= 0 {
		return Node{Name: name, Number: i + 1}, nil
	}
	return Node{}, fmt.Errorf("no node %q: there are %s and %s", name, ControlPlane, strings.Join(l.Nodes(), ", "))
}

// Node is a worker, or the control plane, which has the number 0.
type Node struct {
	Name   string
	Number int
}

// Address returns the node's IP address.
func (n Node) Address() string {
	if n.Number == 0 {
		return ControlAddress
	}
	return fmt.Sprintf("10.213.0.%d", 10+n.Number)
}

// Subnet returns the network of the node's pods.
func (n Node) Subnet() string { return fmt.Sprintf("10.214.%d.0/24", n.Number) }

// Link returns the name of the control plane's end of a worker's link.
func (n Node) Link() string { return "v" + n.Name }

// NodeCgroup returns the cgroup that contains a node's pods. The cgroup "system" below that
// cgroup contains the node's daemons.
func (l *Lab) NodeCgroup(name string) string { return l.Cgroup() + "/" + name }

// RecordFile returns the file that identifies a process of a node.
func (l *Lab) RecordFile(node, name string) string { return l.Path("run", node+"-"+name) }

// LogFile returns the file with the output of a process of a node.
func (l *Lab) LogFile(node, name string) string {
	return l.Path("log", node+"-"+name+".log")
}

// Environment returns the environment of every process of the cluster. A dozen daemons of each
// cluster share the machine, and each switch between threads costs much time on a virtual machine.
// So a daemon uses at most a quarter of the processors. A daemon also collects garbage half as
// often as by default.
func (l *Lab) Environment() []string {
	return []string{
		"PATH=" + l.Path("bin") + ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"HOME=/root",
		"GOMAXPROCS=" + strconv.Itoa(max(1, runtime.NumCPU()/4)),
		"GOGC=200",
	}
}
