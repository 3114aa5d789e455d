#!/usr/bin/env bash
# Sets up .venv with this package and the tested versions of what it needs (constraints.txt).
#
#   ./setup.sh            what training and using a bundle needs
#   ./setup.sh label      also MONAI Label
#   ./setup.sh dev        also what the tests, the notebooks and the checks need, MONAI Label among it
# (any extras of setup.cfg, comma separated)
#
# Quick when nothing has changed since the last time. Options, as environment variables:
#   PYTHON           the interpreter to build on (default: the first Python >= 3.10 found)
#   TORCH_INDEX_URL  where to look for torch first, e.g. https://download.pytorch.org/whl/cpu for a build without CUDA
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
extras=${1:-}
venv=.venv
say() { printf '[setup] %s\n' "$*"; }

suitable() { "$1" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 10))' >/dev/null 2>&1; }

find_python() {
    local candidate
    for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11 python3.10 python}; do
        if suitable "$candidate"; then
            echo "$candidate"
            return
        fi
    done
    say "no Python >= 3.10 with venv found (tried: ${PYTHON:-python3, python3.13 ... python3.10, python})." >&2
    say "Install one (on Debian and Ubuntu: apt install python3 python3-venv) or name it: PYTHON=/path/to/python3 $0" >&2
    return 1
}

# pip's script, not python -m pip: it fails, too, in an environment that was moved from where it was made
if ! "$venv/bin/pip" --version >/dev/null 2>&1; then
    python=$(find_python)
    say "making $venv with $("$python" --version) ($(command -v "$python"))"
    "$python" -m venv --clear "$venv"
fi

# One stamp for each set of extras: what was installed from, so that a change in any of it installs again.
stamp="$venv/.setup-${extras:-base}"
state=$(cat setup.sh setup.cfg pyproject.toml constraints.txt label-requirements.txt | cksum; "$venv/bin/python" --version; pwd)
if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$state" ]; then
    say "$venv is up to date"
    exit 0
fi

pip_install() { "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --constraint constraints.txt "$@"; }
say "installing torch (the largest part, some minutes on a slow line)"
pip_install ${TORCH_INDEX_URL:+--extra-index-url "$TORCH_INDEX_URL"} torch
say "installing monai_landmarks${extras:+[$extras]}"
pip_install ${TORCH_INDEX_URL:+--extra-index-url "$TORCH_INDEX_URL"} --editable ".${extras:+[$extras]}"
case ",$extras," in *,label,* | *,test,* | *,dev,*)
    say "installing MONAI Label"
    pip_install --no-deps --requirement label-requirements.txt
    # MONAI Label imports torchvision, whose build on PyPI fails beside a torch without CUDA from elsewhere
    pip_install ${TORCH_INDEX_URL:+--extra-index-url "$TORCH_INDEX_URL"} torchvision
    if ! "$venv/bin/python" -c "import torchvision" >/dev/null 2>&1; then
        say "torchvision does not run beside this torch; a stand-in without its functions takes its place"
        "$venv/bin/python" -m pip uninstall --quiet --yes torchvision
        copy=$(mktemp -d) # building leaves files beside the source
        cp -R tools/torchvision_stand_in/. "$copy"
        pip_install --no-deps --no-build-isolation --force-reinstall "$copy"
        rm -r "$copy"
    fi
    ;;
esac
printf '%s' "$state" >"$stamp"
say "$venv is ready"
