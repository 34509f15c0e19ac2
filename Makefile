# Metaparticle. `make` alone prints the targets.
#
# demo and test install the Debian packages (apt-get) and Go modules that they need.
# Compiled parts of Kubernetes are kept outside of the checkout, so only the first run
# is long.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

ROOT := $(CURDIR)
CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/metaparticle
AXE := $(CACHE)/axe/node_modules/axe-core/axe.min.js
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
export GOFLAGS += -buildvcs=false
# The cluster's programs and the images are built with these flags, too. So shared
# packages, such as client-go, are compiled once.
GO_RUN := CGO_ENABLED=0 go run -trimpath
# The tests of make test are vetted by its lint.
GO_TEST := CGO_ENABLED=0 go test -trimpath -vet=off

# Only the command line can name a cluster of your own (make e2e KUBECONFIG=…). A
# KUBECONFIG in the environment is ignored, because the demo deletes pods and cuts nodes
# off. minikube has its contexts there.
PERSONAL := $(KUBECONFIG)
ifeq ($(origin KUBECONFIG),command line)
OWN_CLUSTER := 1
else
# The state of the test cluster.
CLUSTER := $(ROOT)/.cluster
export METAPARTICLE_CLUSTER_DIR := $(CLUSTER)
override KUBECONFIG := $(CLUSTER)/kubeconfig
endif
export KUBECONFIG

# REGISTRY means a cluster of your own. Without this refusal make would bring up the test cluster for it.
OWN_KUBECONFIG = $(or $(filter-out $(KUBECONFIG),$(PERSONAL)),$(HOME)/.kube/config)
define REGISTRY_OF_TEST_CLUSTER
REGISTRY is for a cluster of your own, and only the command line names one, because the demo and the tests delete pods: \
make $(MAKECMDGOALS) KUBECONFIG=$(OWN_KUBECONFIG) REGISTRY=$(REGISTRY). The test cluster has a registry: leave REGISTRY out
endef

# The version of Kubernetes in the test cluster; empty for the newest one.
KUBERNETES ?=
# The version of cert-manager there: oldest, or empty for the newest one.
CERTMANAGER ?=
export METAPARTICLE_CERTMANAGER = $(CERTMANAGER)
# The versions of make matrix.
VERSIONS := 1.33 1.35 1.37
export METAPARTICLE_KUBERNETES := $(KUBERNETES)

# These packages have goroutines that share memory in the programs of gated pods, and link no library of Kubernetes,
# which would be compiled once more for the race detector. make race runs the others with it, too.
RACY := ./api/... ./agent/... ./cmd/agent ./cmd/shim
# One processor: with two, the race detector crashes at a bubble of testing/synctest (golang/go#78156). The race
# detector makes the tests that -short skips up to twenty times as slow: they decode megabytes, make thousands of
# objects, or play hundreds of requests and outages.
RACE := -race -cpu 1 -short
# The packages of which -short skips tests, and one whose brief system calls differ under the race detector.
WHOLE = ./agent/linux $$(grep -rl --include='*_test.go' 'testing\.Short' api agent cmd/agent cmd/shim | xargs -n1 dirname | sort -u | sed 's|^|./|')

RUN ?= .
SEEDS ?= 40
DRAWN ?= 1
ENROLLED ?= 20
RACED ?= 6
SEED ?=
SOAK ?= 2m
FLOOD ?= 1m
UNPROTECTED ?=
FAULTS ?=
V ?=
ROUNDS ?= 1000
STANDBYS ?= 2
NAMED ?= false
# PLATFORMS are those of the nodes that pull the images; empty for linux/amd64,linux/arm64.
PLATFORMS ?=
# APART is the wait between two handovers of bench-handover.
APART ?= 2s
SHARE ?=
ROWS ?= .+
PKG ?=
SYNC ?=
FROM ?=

##@ The two commands of a fresh machine

.PHONY: demo
demo: test-cluster-only ## Bring up a real cluster, run redis under one annotation, fail it over three ways; EXAMPLE=nightly runs a folder of examples/.
	@test -d 'examples/$(EXAMPLE)' || { echo "no example '$(EXAMPLE)': choose one of $(notdir $(patsubst %/,%,$(wildcard examples/*/)))"; exit 2; }
	@./tools/announce $(CACHE)
	@$(MAKE) --no-print-directory install COMPONENTS='$(or $(COMPONENTS),console)'
	@CGO_ENABLED=0 go build -trimpath -ldflags='-s -w' -o $(CLUSTER)/bin/ ./cmd/kubectl-metaparticle
	@cd test && $(GO_RUN) ./demo $(if $(EXAMPLE),example $(EXAMPLE))

.PHONY: test
test: ## Run the tests that each commit must pass: lint, unit, simulation, the end-to-end tests of each promise.
	$(MAKE) lint
	@$(MAKE) --no-print-directory beside

# Runs for hours.
.PHONY: soak
soak: ## Run what proves a promise again, or takes long, before a release: 1,000 seeds, the race detector everywhere, every end-to-end test and fault.
	$(MAKE) lint race
	$(MAKE) sim SEEDS=1000 DRAWN=100 ENROLLED=100 RACED=40
	go test -count=1 -timeout 24h ./sim -run '(Outages|Supporters)BreakNoInvariant' -seeds=10000 -random=0
	$(MAKE) e2e FAULTS=every
	$(MAKE) lab laptop

.PHONY: beside
beside:
	@./tools/beside

##@ Between two edits, in seconds

.PHONY: check
check: $(CACHE)/golangci-lint ## Vet, lint and test PKG=agent/lease (race detector), and test the packages that depend on it.
	@./tools/check "$(PKG)" $(CACHE)/golangci-lint

##@ Parts of the test, before a commit

.PHONY: unit
unit: $(AXE) ## Run the unit, golden and real-binary tests and the fuzz seeds; those of gated pods' programs with the race detector, too.
	@./tools/packages prometheus chromium
	go test -vet=off -timeout 20m $$(go list ./... | grep -vxF "$$(go list $(RACY))" | grep -v '/sim') $(WHOLE)
	go test $(RACE) -vet=off -timeout 20m $(RACY)
	go test -run TestPlantedBugsQuoteTodaysSource ./sim ./sim/enrolled
	cd test && go test -vet=off -timeout 15m $$(go list -f '{{if or .TestGoFiles .XTestGoFiles}}{{.ImportPath}}{{end}}' ./... | grep -v '/e2e$$')
	cd test/helm && go test -count=1 -timeout 15m ./... # the cache ignores what the tests start
	cd test/browser && go test -count=1 -timeout 15m ./...

.PHONY: race
race: ## Run all unit tests with the race detector.
	go test $(RACE) -vet=off -timeout 30m $$(go list ./... | grep -v '/sim')
	cd test && go test $(RACE) -vet=off -timeout 30m $$(go list -f '{{if or .TestGoFiles .XTestGoFiles}}{{.ImportPath}}{{end}}' ./... | grep -v '/e2e$$')

.PHONY: sim
sim: ## Run the simulation and its planted bugs: SEEDS=n fixed seeds and DRAWN=n random ones, ENROLLED=n with the real enroll, RACED=n with the race detector; SEED=n replays one.
	go test -count=1 -timeout 80m ./sim -run 'NoInvariant|Planted' -seeds=$(SEEDS) $(if $(SEED),-seed=$(SEED) -v,-random=$(DRAWN))
	go test -count=1 -timeout 80m ./sim/enrolled -run 'NoInvariant|Planted' -seeds=$(ENROLLED) $(if $(SEED),-seed=$(SEED) -v)
	$(if $(SEED)$(filter 0,$(RACED)),,go test -race -timeout 80m -skip TestPlantedBugsAreCaught ./sim/... -seeds=$(RACED))

.PHONY: e2e
e2e: install ## Test the user's view on the cluster; RUN=regexp chooses, SOAK=duration prolongs, FAULTS=every kills each application in every way, V=-v says more; SYNC=directory has the sources of metaparticle/sync.
	@mkdir -p out/e2e
	$(if $(OWN_CLUSTER)$(findstring /,$(SHARE)),,cd test && $(GO_RUN) ./cluster metrics)
	cd test/e2e && $(GO_TEST) -count=1 -timeout 60m $(V) -artifacts -outputdir $(ROOT)/out/e2e -run '$(RUN)' -share='$(SHARE)' -soak=$(SOAK) -flood=$(FLOOD) $(if $(UNPROTECTED),-unprotected) $(if $(filter every,$(FAULTS)),-every-fault) $(if $(SYNC),-sync='$(abspath $(SYNC))') $(if $(FROM),-from='$(FROM)') $(if $(OWN_CLUSTER),-registry=$(REGISTRY))

.PHONY: upgrade
upgrade: ## Upgrade from FROM=revision to this version on the cluster, and roll back.
	@test -n "$(FROM)" || { echo "name the version to upgrade from: make upgrade FROM=revision" >&2; exit 2; }
	@$(MAKE) --no-print-directory e2e RUN='^TestUpgradeAndRollbackNeverStopTheApplication$$' FROM=$(FROM) V=-v

.PHONY: flood
flood: ## Flood the API server with another account for ten minutes, and for two more without the FlowSchemas.
	@$(MAKE) --no-print-directory e2e RUN='^TestRenewalsArePunctualWhileAnotherAccountFloodsTheAPIServer$$' FLOOD=10m UNPROTECTED=1 V=-v

# The first run compiles two more versions of Kubernetes, each in half an hour.
.PHONY: matrix
matrix: test-cluster-only ## Run the end-to-end tests on the oldest Kubernetes with the oldest cert-manager, on one between, and on the newest; RUN=regexp chooses.
	@mkdir -p out; failed=; for version in $(VERSIONS); do \
		$(MAKE) --no-print-directory cluster-down; \
		[ $$version = $(firstword $(VERSIONS)) ] && certmanager=oldest || certmanager=; \
		$(MAKE) --no-print-directory e2e KUBERNETES=$$version CERTMANAGER=$$certmanager V=-v 2>&1 | tee out/matrix-$$version.txt || failed+=" $$version"; \
	done; $(MAKE) --no-print-directory cluster-down; \
	for version in $(VERSIONS); do \
		echo "Kubernetes $$version: $$(grep -c '^--- PASS' out/matrix-$$version.txt) tests passed. These did not:"; \
		grep -B1 -E '^--- (FAIL|SKIP)' out/matrix-$$version.txt | grep -vE '^(--|===)$$|^=== ' || true; \
	done; [ -z "$$failed" ] || { echo "failed on$$failed"; exit 1; }

.PHONY: rollouts
rollouts: test-cluster-only install ## Measure the table of docs/evidence/rollouts.md on the cluster; ROWS=regexp chooses workloads (deployment-3).
	@mkdir -p out/e2e
	cd test/e2e && $(GO_TEST) -count=1 -timeout 60m $(V) -artifacts -outputdir $(ROOT)/out/e2e -run '^TestEachTypeOfWorkloadRollsOutAsDocumented$$' -rows='$(ROWS)'

.PHONY: pause
pause: ## Test a shim in a virtual machine that is paused; needs KERNEL=/boot/vmlinuz-… and qemu-system-x86.
	cd test && KERNEL=$(abspath $(KERNEL)) go test -count=1 -v ./pause

.PHONY: lab
lab: packages ## Test the test cluster: a second cluster, broken in every way, leaves nothing behind.
	cd test && METAPARTICLE_CLUSTER_TEST=1 go test -count=1 -timeout 20m -run LeavesNothing ./cluster/lab

.PHONY: golden
# The tests of mutate/reason read the golden files that the tests of mutate rewrite, so -p 1.
golden: ## Rewrite golden files and generated documents; read the diff before you commit.
	go test -p 1 ./api ./manifests ./mutate ./mutate/reason ./cmd/kubectl-metaparticle ./monitoring ./tools/earlier ./tools/chart ./pages ./docs -update

.PHONY: lint
# golangci-lint runs all analyzers of go vet as "govet".
lint: $(CACHE)/golangci-lint ## Run gofmt, vet and golangci-lint over all modules, and actionlint over the workflows.
	@test -z "$$(gofmt -l .)" || { gofmt -d .; exit 1; }
	$(CACHE)/golangci-lint run --allow-parallel-runners ./...
	cd test && $(CACHE)/golangci-lint run --allow-parallel-runners --config ../.golangci.yaml ./...
	cd test/bench/admission && $(CACHE)/golangci-lint run --allow-parallel-runners --config ../../../.golangci.yaml ./...
	cd test/helm && $(CACHE)/golangci-lint run --allow-parallel-runners --config ../../.golangci.yaml ./...
	cd test/browser && $(CACHE)/golangci-lint run --allow-parallel-runners --config ../../.golangci.yaml ./...
	cd tools/actionlint && go tool actionlint -shellcheck= -pyflakes= ../../.github/workflows/*.yaml

.PHONY: bench
bench: test-cluster-only bench-admission bench-forward install images ## Measure most figures of docs/evidence/benchmarks.md, with ROUNDS=n handovers; the targets below measure single tables, or what is left.
	cd test && $(GO_RUN) ./bench -rounds $(ROUNDS)

.PHONY: bench-admission
bench-admission: ## Measure admission beside dapr's patcher, and under hostile calls; needs no cluster.
	cd test/bench/admission && go run . && go run ./hostile

.PHONY: bench-forward
bench-forward: ## Compare a standby's forwarder with the direct connection and HAProxy; needs no cluster.
	@./tools/packages haproxy
	cd test && $(GO_RUN) ./bench/forward

.PHONY: bench-handover
bench-handover: test-cluster-only install ## Measure the steps of handovers; STANDBYS=n pods wait, NAMED=true names the next holder; APART=6s waits longer.
	cd test && $(GO_RUN) ./bench -only-handovers -rounds $(ROUNDS) -standbys $(STANDBYS) -named=$(NAMED) -apart $(APART)

.PHONY: bench-idle
bench-idle: test-cluster-only install ## Measure requests and processor time of idle pods; STANDBYS=n pods wait.
	cd test && $(GO_RUN) ./bench -only-idle -standbys $(STANDBYS)

.PHONY: bench-held
bench-held: test-cluster-only install ## Measure waits of connections during handovers, beyond the application's own stop and start.
	cd test && $(GO_RUN) ./bench -only-held -rounds $(ROUNDS) -named=$(NAMED)

.PHONY: bench-rollouts
bench-rollouts: test-cluster-only install ## Count the writes of Leases in rollouts, and measure deletions of a single replica.
	cd test && $(GO_RUN) ./bench -only-rollouts -rounds $(ROUNDS)

.PHONY: bench-load
bench-load: test-cluster-only install ## Measure how far apart 4 and 32 pods of a load test (examples/load) send their first requests.
	cd test && $(GO_RUN) ./bench -only-load

##@ The cluster

.PHONY: own-cluster-named
own-cluster-named:
ifndef OWN_CLUSTER
	$(if $(REGISTRY),$(error $(REGISTRY_OF_TEST_CLUSTER)))
	$(if $(filter 0,$(MAKELEVEL)),$(if $(filter-out $(KUBECONFIG),$(PERSONAL)),@echo "this is for the test cluster; for one of yours write KUBECONFIG=$(PERSONAL) on the command line" >&2))
endif

.PHONY: test-cluster-only
test-cluster-only:
	$(if $(OWN_CLUSTER)$(REGISTRY),$(error make $(MAKECMDGOALS) runs on the test cluster alone: leave KUBECONFIG and REGISTRY out))

.PHONY: cluster
cluster: own-cluster-named packages ## Bring up a real Kubernetes of three nodes, from Go modules; kubeconfig in .cluster/; KUBERNETES=1.33 an older one, CERTMANAGER=oldest an older cert-manager.
ifndef OWN_CLUSTER
	cd test && $(GO_RUN) ./cluster up
endif

.PHONY: cluster-down
cluster-down: ## Remove the cluster without a trace.
	[ ! -d '$(CLUSTER)' ] || { cd test && $(GO_RUN) ./cluster down; }

##@ The product

ONLY_FOR = $(if $(PLATFORMS),-platforms $(PLATFORMS))

.PHONY: images
images: ## Make OCI images for amd64 and arm64 in out/images, without Docker; PLATFORMS=linux/amd64 for one alone.
	$(GO_RUN) ./tools/images -out out/images -version $(VERSION) $(ONLY_FOR)

.PHONY: chart
chart: ## Make the Helm chart in out/chart; REGISTRY=host/prefix pushes the images, and makes them the chart's defaults; PLATFORMS=linux/amd64 builds for one platform.
ifdef REGISTRY
	@built=$$($(GO_RUN) ./tools/images -version $(VERSION) -out out/images $(ONLY_FOR) -push $(REGISTRY)); echo "$$built"; \
	digest() { awk -v name=$$1 '$$1 == name && $$2 == "all" {print $$3}' <<<"$$built"; }; \
	$(GO_RUN) ./tools/chart -version $(VERSION) -registry $(REGISTRY) -webhook-digest $$(digest webhook) -agent-digest $$(digest agent)
else
	@$(GO_RUN) ./tools/chart -version $(VERSION)
endif

.PHONY: plugin
plugin: ## Compile the kubectl plugin, and put it where "go install" puts programs.
	@echo "compiling the kubectl plugin: about three minutes the first time, then seconds"
	@CGO_ENABLED=0 go install -trimpath -ldflags='-s -w' ./cmd/kubectl-metaparticle
	@dir=$$(go env GOBIN); echo "installed: $${dir:-$$(go env GOPATH)/bin}/kubectl-metaparticle; kubectl finds it if that folder is in your PATH"

.PHONY: site
site: ## Write the documentation as static pages to out/site; a broken link is an error.
	@$(GO_RUN) ./tools/site

.PHONY: release
release: ## Make all files of a release in out/release, with VERSION=v1.2.3 and REGISTRY=host/prefix; PUSH=1 pushes, PUSH=only pushes what was made, ADDRESS=url makes the krew manifest.
	@test -n "$(REGISTRY)" || { echo "name the registry that nodes pull from: make release VERSION=v1.2.3 REGISTRY=host/prefix" >&2; exit 2; }
	@$(GO_RUN) ./tools/release -version $(VERSION) -registry $(REGISTRY) $(if $(filter only,$(PUSH)),-publish,$(if $(PUSH),-push)) $(if $(ADDRESS),-address $(ADDRESS))

COMPONENT_FLAGS = $(foreach name,$(COMPONENTS),-component $(name))

# The pods name the images by digest, because a node may have an older build under the
# same tag.
define INSTALL
built=$$($(GO_RUN) ./tools/images -version $(VERSION) $(1)); echo "$$built"; \
image() { awk -v name=$$1 '$$1 == name && $$2 == "all" {print name "@" $$3}' <<<"$$built"; }; \
$(GO_RUN) ./tools/install -webhook-image $(2)/$$(image webhook) -agent-image $(2)/$$(image agent) $(3) $(COMPONENT_FLAGS)
endef

.PHONY: install
ifdef OWN_CLUSTER
install: ## Install into the cluster; with KUBECONFIG=… REGISTRY=host/prefix into one of yours; COMPONENTS="console" PLATFORMS=linux/amd64.
	@test -n "$(REGISTRY)" || { echo "name a registry that your nodes pull from: make install KUBECONFIG=$(KUBECONFIG) REGISTRY=host/prefix" >&2; exit 1; }
	@$(call INSTALL,-out out/images $(ONLY_FOR) -push $(REGISTRY),$(REGISTRY))
else
install: cluster
	@local=$$(cd test && $(GO_RUN) ./cluster registry); registry=$$(cd test && $(GO_RUN) ./cluster registry -in-cluster); private=$$(cd test && $(GO_RUN) ./cluster registry -private); \
	$(call INSTALL,-out out/lab/$(notdir $(CLUSTER)) -platforms linux/$$(go env GOARCH) -push $$local/metaparticle -insecure,$$registry/metaparticle,-plain-http-registry $$registry -plain-http-registry $$private)
endif

# A laptop's cluster pulls from no registry of yours: its own command loads the images into its nodes.
LAPTOP := out/laptop
kind: NAME = kind
kind: LOAD = kind load image-archive $(LAPTOP)/images.tar --name '$(NAME)'
kind: ACCESS = kind get kubeconfig --name '$(NAME)'
k3d: NAME = k3s-default
k3d: LOAD = k3d image import $(LAPTOP)/images.tar --cluster '$(NAME)'
k3d: ACCESS = k3d kubeconfig get '$(NAME)'
minikube: NAME = minikube
minikube: LOAD = minikube image load $(LAPTOP)/images.tar --profile '$(NAME)'
minikube: ACCESS = KUBECONFIG='$(PERSONAL)' kubectl config view --minify --flatten --context '$(NAME)'

.PHONY: kind k3d minikube
kind: ## Install into a cluster of kind, or by make k3d and make minikube into theirs; NAME=cluster; needs no registry.
kind k3d minikube:
	@mkdir -p $(LAPTOP)
	@(umask 077; $(ACCESS) >$(LAPTOP)/kubeconfig) || { echo "$@ has no cluster $(NAME): create it, or name another by NAME=cluster" >&2; exit 1; }
	@built=$$($(GO_RUN) ./tools/images -version $(VERSION) -out $(LAPTOP) -platforms linux/$$(go env GOARCH) -archive $(LAPTOP)/images.tar); echo "$$built"; \
	image() { awk -v name=$$1 '$$1 == name && $$2 == "loaded" {print $$3}' <<<"$$built"; }; \
	$(LOAD); \
	KUBECONFIG=$(LAPTOP)/kubeconfig $(GO_RUN) ./tools/install -webhook-image $$(image webhook) -agent-image $$(image agent) $(COMPONENT_FLAGS)

.PHONY: laptop
laptop: packages ## Follow docs/how-to/laptop.md on a test cluster of one node, without a registry; removes the cluster.
	cd test && METAPARTICLE_CLUSTER_TEST=1 go test -count=1 -timeout 30m -v ./laptop

.PHONY: uninstall
uninstall: own-cluster-named ## Uninstall Metaparticle; refuses, with a list, while gated pods exist.
	$(if $(OWN_CLUSTER)$(wildcard $(KUBECONFIG)),,$(error no test cluster is here, and only the command line names \
	another one: make uninstall KUBECONFIG=$(OWN_KUBECONFIG)))
	$(GO_RUN) ./tools/install -uninstall $(COMPONENT_FLAGS)

.PHONY: packages
packages:
	@./tools/packages

$(CACHE)/golangci-lint: tools/lint/go.mod
	@echo "compiling golangci-lint, once"
	mkdir -p $(CACHE)
	cd tools/lint && CGO_ENABLED=0 go build -trimpath -o $@ github.com/golangci/golangci-lint/v2/cmd/golangci-lint

# The checker of accessibility is pinned by its digest, and stays outside of the checkout.
$(AXE): test/browser/package-lock.json
	@./tools/packages npm
	mkdir -p $(CACHE)/axe
	cp test/browser/package.json test/browser/package-lock.json $(CACHE)/axe
	cd $(CACHE)/axe && npm ci --ignore-scripts --no-audit --no-fund
	touch $@

.PHONY: help
help:
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-z0-9-]+:.*## / {printf "  %-16s %s\n", $$1, $$2}' Makefile
