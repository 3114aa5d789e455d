#!/usr/bin/env bash
# Sets up .venv and runs everything that must hold: lint, format, types, all tests (with doctests, notebooks, the wheel).
#
#   ./runtests.sh             everything
#   ./runtests.sh --coverage  everything, and a list of the lines and branches that no test runs (takes up to half as long again)
#   ./runtests.sh --lint      only lint, format and types
#   ./runtests.sh --fix       let the tools correct what they can, then stop
#   ./runtests.sh PATH ...    only the tests named, passed on to pytest
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
./setup.sh dev
export PATH="$PWD/.venv/bin:$PATH"
code=(monai_landmarks bundles tests benchmarks notebooks tools docs)

step() {
    printf '[runtests] %s\n' "$*"
    "$@"
}

lint() {
    step ruff check --quiet "${code[@]}"
    step isort --check-only --quiet "${code[@]}"
    step black --check "${code[@]}"
    step pyrefly check --summary=none
}

run_tests() {
    # one thread per process and one process per core: the tests are many and small
    export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
    step pytest -q -n "${TEST_PROCESSES:-2}" --durations=10 "$@"
}

case "${1:-}" in
    --lint)
        lint
        ;;
    --fix)
        step isort --quiet "${code[@]}"
        step black --quiet "${code[@]}"
        step ruff check --fix "${code[@]}"
        ;;
    --coverage)
        lint
        run_tests --cov
        ;;
    *)
        [ $# -gt 0 ] || lint
        run_tests "$@"
        ;;
esac
