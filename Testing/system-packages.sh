#!/bin/sh
# Installs the system packages that `make demo`, `make test` or `make bench` needs, or says how to get them.
# Usage: system-packages.sh demo|app|test|bench
set -u
render="libegl1 libgl1 libgl1-mesa-dri libopengl0 libglx0 libxrender1 libxkbcommon0 libfontconfig1 libdbus-1-3"
window="libxcb-cursor0 libxcb-icccm4 libxcb-keysyms1 libxcb-image0 libxcb-render-util0 libxcb-xinerama0 libxkbcommon-x11-0"
peers="openigtlink-examples libopenigtlink-dev cmake g++ make ismrmrd-tools"
archive="dicom3tools orthanc"
case "${1:-}" in
    demo) packages=$render ;;
    app) packages="$render $window" ;;
    test) packages="$render $window xvfb $peers $archive" ;;
    bench) packages="$render $peers bart mricron-data" ;;
    *) echo "usage: $0 demo|app|test|bench" >&2; exit 2 ;;
esac
if ! command -v dpkg-query >/dev/null 2>&1; then
    echo "Not a Debian or Ubuntu system: off-screen rendering needs EGL or OpenGL; tests whose peers are missing are skipped and say so."
    exit 0
fi
missing=""
for package in $packages; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q "install ok installed" || missing="$missing $package"
done
[ -z "$missing" ] && exit 0
if [ "$(id -u)" = 0 ]; then sudo=""; elif sudo -n true 2>/dev/null; then sudo="sudo -n"; else
    echo "Missing system packages; get them with: sudo apt-get install$missing"
    { [ "$1" = demo ] || [ "$1" = app ]; } && ! ldconfig -p | grep -q libEGL.so.1 && exit 1
    exit 0
fi
echo "Installing system packages:$missing"
export DEBIAN_FRONTEND=noninteractive
# The tests start an archive of their own: this machine shall not get one that listens from now on.
case "$missing" in *orthanc*) command -v systemctl >/dev/null 2>&1 && $sudo systemctl mask orthanc.service >/dev/null 2>&1 ;; esac
$sudo apt-get update -qq || true
# One at a time after a failure: a package that this release lacks must not keep the others away.
# shellcheck disable=SC2086
$sudo apt-get install -y -qq --no-install-recommends $missing >/dev/null 2>&1 || for package in $missing; do
    $sudo apt-get install -y -qq --no-install-recommends "$package" >/dev/null 2>&1 || echo "Could not install $package"
done
exit 0
