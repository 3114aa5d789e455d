#!/usr/bin/env bash
# Builds wheel and sdist, checks them, installs each in a fresh environment, and runs a smoke test there.
#
#   tools/try_release.sh              wheel and sdist, with the newest versions of the dependencies
#   tools/try_release.sh --tested     the wheel, with the versions of constraints.txt
#   tools/try_release.sh --lowest     the wheel, with the lowest declared versions, except torch
#
# Options, as environment variables: PYTHON, the interpreter of the environments; TORCH, what is installed as torch first
# (default: torch; with TORCH_INDEX_URL as in setup.sh).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
mode=${1:-}
python=${PYTHON:-python3}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
say() { printf '[release] %s\n' "$*"; }

"$python" -m venv "$work/build"
"$work/build/bin/pip" install --quiet --disable-pip-version-check build twine
say "building"
rm -rf dist
git archive --prefix source/ HEAD | tar -x -C "$work" # what is committed, and nothing that was left over
"$work/build/bin/python" -m build --outdir dist "$work/source" >"$work/build.log" || { tail -n 30 "$work/build.log"; exit 1; }
"$work/build/bin/twine" check --strict dist/*

case $mode in
    --lowest)
        "$work/build/bin/python" - >"$work/constraints.txt" <<'END'
import configparser
import re

config = configparser.ConfigParser()
config.read("setup.cfg")
for line in config["options"]["install_requires"].split("\n"):
    name, _, low = line.partition(">=")
    if low and name != "torch":
        print(f"{name}=={re.split('[,;]', low)[0].strip()}")
END
        ;;
    --tested) cp constraints.txt "$work/constraints.txt" ;;
    *) : >"$work/constraints.txt" ;;
esac

packages=(dist/*.whl)
[ -n "$mode" ] || packages+=(dist/*.tar.gz)
for package in "${packages[@]}"; do
    say "installing $package with $("$python" --version) $mode"
    rm -rf "$work/env"
    "$python" -m venv "$work/env"
    pip_install() { "$work/env/bin/pip" install --quiet --disable-pip-version-check "$@"; }
    pip_install ${TORCH_INDEX_URL:+--extra-index-url "$TORCH_INDEX_URL"} "${TORCH:-torch}"
    pip_install ${TORCH_INDEX_URL:+--extra-index-url "$TORCH_INDEX_URL"} --constraint "$work/constraints.txt" "$package"
    "$work/env/bin/pip" check
    (
        cd "$work"
        export PATH="$work/env/bin:$PATH"
        monai-landmarks --version
        monai-landmarks models
        python -m monai_landmarks.data.datasets.phantom hand hands --num_images=4 --size='[256,256]'
        monai-landmarks check hands/images hands/landmarks.csv --spacing 0.92 --out checked >check.txt
        monai-landmarks predict hand_xray_landmarks_scn hands/images --spacing 0.92 --out found
        monai-landmarks evaluate found checked/datalist.json --section training --out errors
        rm -rf hands checked found errors
    )
    say "$package works"
done
