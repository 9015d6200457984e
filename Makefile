# "make help" lists the targets.

SHELL := /usr/bin/env bash -o pipefail
.SHELLFLAGS := -ec
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# The image that docker-build makes and deploy installs.
IMG ?= cofferdam.dev/cofferdam/manager:dev
CONTAINER_TOOL ?= docker
# The folder of config/ that deploy installs: default, or default-without-map for Kubernetes before 1.36.
OVERLAY ?= default
# Flags of "go test", such as -race or -run.
TESTFLAGS ?=
# Packages that "make test" runs.
PACKAGES ?= ./...
# How many processes share the specs of test/lifecycle, unless TESTFLAGS are given. Each has a control plane, which takes about a gigabyte.
PROCS ?= 3

BIN := $(CURDIR)/bin
KUBECTL ?= $(or $(shell command -v kubectl),$(BIN)/kubectl)
OPERATOR_NAMESPACE := cofferdam-system

##@ Try it

.PHONY: help
help: ## List the targets.
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-z-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# Only a KUBECONFIG that is named on the command line of make: one that happens to be in the environment belongs to a cluster that
# nobody meant.
ifeq ($(origin KUBECONFIG),command line)
DEMO_FLAGS := --kubeconfig=$(KUBECONFIG)
endif

.PHONY: demo
demo: controlplane build ## Contain and recover an application on a control plane of its own; KUBECONFIG=… uses that cluster, after asking.
	go run ./test/demo $(DEMO_FLAGS)

##@ Develop

.PHONY: generate
generate: $(BIN)/controller-gen ## Generate the deepcopy functions of api/.
	$(BIN)/controller-gen object:headerFile=hack/boilerplate.go.txt paths=./api/...

.PHONY: manifests
manifests: $(BIN)/controller-gen ## Generate the CRDs and the operator's role from the markers in the code.
	$(BIN)/controller-gen crd paths=./api/... output:crd:artifacts:config=config/crd/bases
	$(BIN)/controller-gen rbac:roleName=cofferdam-manager paths=./controllers/... output:rbac:artifacts:config=config/rbac

.PHONY: verify
verify: generate manifests ## Fail when a generated file is not what its source says.
	@git diff --exit-code -- api config || { echo "run \"make generate manifests\" and commit the result"; exit 1; }

.PHONY: fmt
fmt: ## Format the code.
	go fmt ./...
	cd hack && go fmt ./...

.PHONY: vet
vet: ## Run go vet.
	go vet ./...
	cd hack && go vet ./...

.PHONY: lint
lint: $(BIN)/golangci-lint ## Run the linters, the one for Kubernetes APIs included.
	$(BIN)/golangci-lint run ./...
	cd hack && $(BIN)/golangci-lint run --config ../.golangci.yml ./...

.PHONY: lint-fix
lint-fix: $(BIN)/golangci-lint ## Run the linters and let them repair what they can.
	$(BIN)/golangci-lint run --fix ./...
	cd hack && $(BIN)/golangci-lint run --config ../.golangci.yml --fix ./...

.PHONY: controlplane
controlplane: ## Get etcd, kube-apiserver and the rest into bin/: about a quarter of an hour once, then nothing.
	@mkdir -p $(BIN)
	cd hack && go build -o $(BIN)/controlplane ./controlplane
	$(BIN)/controlplane build --bin $(BIN)

# One package at a time, each with a control plane of its own; the specs of a suite that waits more than it works are shared out to as many
# processes as PROCS says, with a control plane each. Never cached, because what a suite reads through kubectl and the API server is unknown to
# go test.
.PHONY: test
test: controlplane ## Run all tests; TESTFLAGS and PACKAGES narrow them.
	@started=$$SECONDS; failed=(); number=0; logs=$$(mktemp -d); trap 'rm -rf "$$logs"' EXIT; \
	list=$$(go list -f '{{if or .TestGoFiles .XTestGoFiles}}{{.ImportPath}}{{end}}' $(PACKAGES)); \
	read -r -d '' -a packages <<< "$$list" || true; \
	total=$$(( $${#packages[@]} + 1 )); \
	for package in "$${packages[@]}"; do \
	  number=$$((number + 1)); echo "[$$number/$$total] $$package"; \
	  run=(go test -count=1 -timeout=50m "$$package" $(TESTFLAGS)); \
	  if [[ "$$package" == */test/lifecycle && -z "$(strip $(TESTFLAGS))" ]]; then run=(go tool ginkgo --procs=$(PROCS) --timeout=50m ./test/lifecycle); fi; \
	  "$${run[@]}" 2>&1 | tee "$$logs/$$number" || failed+=("$$package"); \
	  if (( $${#failed[@]} )) && [[ "$${failed[-1]}" == "$$package" ]]; then \
	    { echo; echo "$$package:"; grep -v '^ *"msg"=' "$$logs/$$number" | grep -E -A 12 -m 8 -- '--- FAIL|\[FAILED\]|\[PANICKED\]|^panic:|\[build failed\]' | cut -c 1-400; } >> "$$logs/failures" || true; \
	  fi; \
	done; \
	echo "[$$total/$$total] hack"; \
	(cd hack && go test -count=1 -timeout=50m ./... $(TESTFLAGS)) || failed+=("hack"); \
	elapsed=$$((SECONDS - started)); \
	if (( $${#failed[@]} )); then \
	  if [[ -e "$$logs/failures" ]]; then echo; echo "What failed, in short:"; cat "$$logs/failures"; echo; fi; \
	  echo "FAILED: $${failed[*]} ($${#failed[@]} of $$total packages) after $${elapsed}s"; exit 1; \
	fi; \
	echo "PASSED: all $$total packages in $${elapsed}s"

# The collection and the manager's memory fail when they miss their target. The others are measured only.
.PHONY: bench
bench: controlplane ## Measure the evaluator (one pod, 1,000 policies; one edit, 2,000 policies, 5,000 held pods), the verification of 10,000 ledger entries, the collection of 500 pods and the recovery of 16 Deployments against bare client-go, the scheduling of 200 steps, and the manager's memory under 2 GB of logs.
	go test -run=NONE -bench=. -benchmem ./controllers/isolation
	go test -run=NONE -bench=10000 ./controllers/custody
	go test -run=NONE -bench=. -benchtime=1x -timeout=40m ./test/bench

.PHONY: build
build: ## Build bin/manager and the kubectl plugin bin/kubectl-incident.
	CGO_ENABLED=0 go build -trimpath -o $(BIN)/manager ./cmd/manager
	CGO_ENABLED=0 go build -trimpath -o $(BIN)/kubectl-incident ./cmd/kubectl-incident

.PHONY: clean
clean: ## Remove everything that make has built.
	rm -rf $(BIN) dist

##@ Use a cluster (that of KUBECONFIG or ~/.kube/config)

# The guards know the operator by its service account, so the manager needs that account's token, not your own rights.
.PHONY: run
run: ## Install everything but the Deployment and run the manager here, as the operator's service account.
	$(KUBECTL) apply --server-side -k config/external
	@umask 077; mkdir -p dist; config=dist/operator.kubeconfig; rm -f $$config; trap "rm -f $$config" EXIT; \
	token=$$($(KUBECTL) create token cofferdam-controller-manager --namespace=$(OPERATOR_NAMESPACE) --duration=8h); \
	$(KUBECTL) config view --minify --flatten --raw > $$config; \
	person=$$($(KUBECTL) --kubeconfig=$$config config view -o jsonpath='{.users[0].name}'); \
	$(KUBECTL) --kubeconfig=$$config config delete-user "$$person"; \
	$(KUBECTL) --kubeconfig=$$config config set-credentials operator --token="$$token"; \
	$(KUBECTL) --kubeconfig=$$config config set-context --current --user=operator; \
	KUBECONFIG=$$config go run ./cmd/manager --operator-namespace=$(OPERATOR_NAMESPACE)

.PHONY: install
install: ## Install the kinds of the API only.
	$(KUBECTL) apply --server-side -k config/crd

.PHONY: docker-build
docker-build: ## Build the image IMG.
	$(CONTAINER_TOOL) build --tag $(IMG) .

.PHONY: deploy
deploy: ## Install the operator with the image IMG; OVERLAY=default-without-map for Kubernetes before 1.36.
	$(KUBECTL) kustomize config/$(OVERLAY) | sed 's|cofferdam.dev/cofferdam/manager:dev|$(IMG)|' | $(KUBECTL) apply --server-side -f -

# Without the operator nobody would lift a quarantine any more.
.PHONY: uninstall
uninstall: ## Remove the operator, its kinds and all Incidents; refused while an Incident holds a quarantine.
	@held=$$($(KUBECTL) get incidents --all-namespaces -o jsonpath='{range .items[?(@.metadata.finalizers)]}{.metadata.namespace}/{.metadata.name} {end}'); \
	if [[ -n "$$held" ]]; then echo "still held, close them first: $$held"; exit 1; fi
	$(KUBECTL) delete --ignore-not-found -k config/$(OVERLAY)

# Tools are built from their own go.mod, so that the product does not depend on them.

$(BIN)/controller-gen: hack/tools/go.mod hack/tools/go.sum
	cd hack/tools && go build -o $@ sigs.k8s.io/controller-tools/cmd/controller-gen

$(BIN)/golangci-lint: $(wildcard hack/tools/golangci-lint/*)
	@echo "building golangci-lint: a few minutes, once"
	cd hack/tools/golangci-lint && go build -o $@ .
