#!/bin/sh
# Installs hetseg into /opt/hetseg. Dockerfile and Singularity.def have no other way in.
#
#   install.sh system         the Debian packages that it runs on
#   install.sh app SOURCE     interpreter environment, weights and caches
#
# TORCH: local version of PyTorch's wheel (cpu, cu130, ...); empty takes what the index offers.
# Package indexes are pip's and apt's own affair: their configuration and environment are used.
set -eu
PREFIX=/opt/hetseg

install_system() {
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -q
  apt-get install -q -y --no-install-recommends python3 python3-venv
  rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/apt /var/log/dpkg.log
}

install_app() {
  python3 -m venv "$PREFIX"
  torch="torch==$(sed -n 's/^torch==//p' "$1/constraints.txt")${TORCH:+"+$TORCH"}"
  pip_install "$torch" || fail "no wheel of $torch: give pip an index that has it
(PIP_EXTRA_INDEX_URL), another TORCH, or an empty TORCH for what the index offers"
  pip_install --constraint "$1/constraints.txt" "$1[dask,validator]"
  "$PREFIX/bin/python" -m pip uninstall -q -y setuptools pip
  trim
  # what stays is compiled once, here: the root may be read-only later; sources for other Pythons fail
  "$PREFIX/bin/python" -m compileall -qq "$PREFIX/lib" || true
  fill_caches
}

pip_install() {
  "$PREFIX/bin/python" -m pip install -q --no-cache-dir --no-compile --disable-pip-version-check "$@"
}

# what only compiling against PyTorch, or testing packages, needs
trim() {
  packages=$(echo "$PREFIX"/lib/python3*/site-packages)
  rm -rf "$packages/torch/include" "$packages/torch/share" "$packages/torch/test"
  find "$packages" -name '*.a' -delete
  find "$packages" -type d -name tests -path '*/tests' -prune -exec rm -rf {} +
}

# made here, since the root may be read-only later; writable for whoever can write at all
fill_caches() {
  mkdir -p "$PREFIX/cache/home"
  export MPLCONFIGDIR="$PREFIX/cache/matplotlib" TEMPLATEFLOW_HOME="$PREFIX/cache/templateflow"
  "$PREFIX/bin/python" -c 'import matplotlib.font_manager, templateflow'
  chmod -R a+rwX "$PREFIX/cache"
}

fail() {
  echo "install.sh: $*" >&2
  exit 1
}

case ${1:-} in
  system) install_system ;;
  app) install_app "${2:?folder of the source}" ;;
  *) fail "give system, or app SOURCE" ;;
esac
