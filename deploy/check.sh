#!/usr/bin/env bash
# What the deploy files' own tools say of them; `make deploy-check`. All of them run, then the exit code says whether one
# found something. What can be checked without tools is in tests/deploy.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
export PATH="$PWD/.venv/bin:$PATH"
status=0

check() { # check WHAT COMMAND…: quiet when all is well
    local what=$1 output
    shift
    if output=$("$@" 2>&1); then
        printf 'ok      %s\n' "$what"
    else
        printf 'FAULT   %s\n%s\n' "$what" "$output"
        status=1
    fi
}

have() { # have TOOL HOW-TO-GET-IT
    command -v "$1" >/dev/null && return
    printf 'FAULT   %s is missing: %s\n' "$1" "$2"
    status=1
    return 1
}

if have hadolint "there is a wheel for x86-64 Linux only; elsewhere put the release binary of hadolint on PATH"; then
    check "Dockerfile (hadolint)" hadolint Dockerfile
fi
check "docker-compose.yml (the compose specification's schema)" \
    check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yml
check ".github/workflows (GitHub's schema)" \
    check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
for script in .ci/run deploy/check.sh deploy/postgres/roles.sh; do
    check "$script (bash -n)" bash -n "$script"
done

manifests=(deploy/kubernetes/base/[!k]*.yaml deploy/kubernetes/overlays/*/namespace.yaml deploy/kubernetes/secrets.example.yaml)
check "Kubernetes manifests (its schemas, strict)" kubernetes-validate --strict --quiet --no-warn "${manifests[@]}"
if command -v kubectl >/dev/null; then
    rendered=$(mktemp -d)
    trap 'rm -rf "$rendered"' EXIT
    for overlay in staging production; do
        check "$overlay builds (kustomize)" \
            kubectl kustomize "deploy/kubernetes/overlays/$overlay" -o "$rendered/$overlay.yaml"
        check "$overlay as built (Kubernetes' schemas, strict)" \
            kubernetes-validate --strict --quiet --no-warn "$rendered/$overlay.yaml"
    done
else
    printf 'not run overlays as built: there is no kubectl here. tests/deploy looks at their parts.\n'
fi

rules=$(grep -ls '^groups:' deploy/prometheus/*.y*ml)
if [ -n "$rules" ] && have promtool "apt-get install --no-install-recommends prometheus"; then
    # shellcheck disable=SC2086 # a list of files
    check "alert rules (promtool)" promtool check rules $rules
    for tests in $(grep -ls '^tests:' deploy/prometheus/*.y*ml deploy/prometheus/*/*.y*ml); do
        check "$tests (promtool)" promtool test rules "$tests"
    done
    for config in $(grep -ls '^scrape_configs:' deploy/prometheus/*.y*ml); do
        check "$config (promtool)" promtool check config --syntax-only "$config"
    done
fi
exit "$status"
