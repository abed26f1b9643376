#!/bin/sh
# Without a display, MuJoCo draws through EGL (a GPU's, or Mesa's in software) or through OSMesa. Looks for one; installs
# Mesa's EGL where that can be done without asking (root on Debian or Ubuntu); else says in one line what to install.
# Never fails: only drawing frames needs it, learning from states does not.
set -eu
packages="libegl1 libegl-mesa0 libgl1-mesa-dri libopengl0"

loads() { "${PYTHON:-python3}" -c 'import ctypes, sys; [ctypes.CDLL(name) for name in sys.argv[1:]]' "$@" 2>/dev/null; }
egl() { loads libEGL.so.1 libEGL_mesa.so.0 || loads libEGL.so.1 libEGL_nvidia.so.0; }
found() { egl && { loads libOpenGL.so.0 || loads libGL.so.1; } || loads libOSMesa.so.8; }  # EGL alone has no functions of OpenGL

[ "$(uname -s)" = Linux ] || exit 0  # macOS brings its own OpenGL
found && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "Installing OpenGL libraries for drawing without a display: $packages"
    export DEBIAN_FRONTEND=noninteractive
    # shellcheck disable=SC2086  # a list of packages
    apt-get update -qq && apt-get install -y -qq --no-install-recommends $packages >/dev/null || true
fi
found || echo "No EGL or OSMesa library found: drawing frames fails until one is installed (Debian, Ubuntu: sudo apt-get install $packages)." >&2
