#!/bin/sh
# Make sure that the system packages which the tests need are there; silent when they are.
#
#   sh tests/packages.sh                      what `make test` needs, and Exim unpacked into build/exim
#   sh tests/packages.sh NEED=PACKAGE...      something else (the benchmark does this)
#
# NEED is a command, a file when it begins with "/", or a Perl module as "perl:Name"; "a|b=package" is content with
# either. What is missing is installed by apt when we are root, without questions and without starting a service. When
# we are not root, or there is no apt, it says what to install and exits with 1.
set -eu

# Exim's package would push Postfix out: it is unpacked beside it instead, and only its libraries are installed.
exim=
[ $# -gt 0 ] || exim=$(dirname "$0")/../build/exim
[ $# -gt 0 ] || set -- \
    swaks=swaks \
    perl:Net::SSLeay=libnet-ssleay-perl \
    perl:IO::Socket::INET6=libio-socket-inet6-perl \
    msmtp=msmtp \
    'node|nodejs=nodejs' \
    npm=npm \
    postfix=postfix \
    unbound=unbound \
    '/usr/sbin/dovecot=dovecot-core' \
    '/usr/lib/dovecot/submission=dovecot-submissiond' \
    ip=iproute2 \
    nft=nftables \
    "/usr/lib/$(uname -m)-linux-gnu/libgnutls-dane.so.0|/lib/$(uname -m)-linux-gnu/libgnutls-dane.so.0=libgnutls-dane0" \
    "/usr/lib/$(uname -m)-linux-gnu/libnsl.so.2|/lib/$(uname -m)-linux-gnu/libnsl.so.2=libnsl2" \
    "/usr/lib/$(uname -m)-linux-gnu/libidn.so.12|/lib/$(uname -m)-linux-gnu/libidn.so.12=libidn12" \
    "/usr/lib/$(uname -m)-linux-gnu/libdb-5.3.so|/lib/$(uname -m)-linux-gnu/libdb-5.3.so=libdb5.3" \
    "/usr/lib/$(uname -m)-linux-gnu/sasl2/libplain.so|/usr/lib/sasl2/libplain.so=libsasl2-modules" \
    curl=curl \
    openssl=openssl \
    'chromium|chromium-browser|google-chrome=chromium' \
    cc=gcc \
    /usr/include/stdio.h=libc6-dev \
    /usr/include/openssl/ssl.h=libssl-dev

# Is one of the alternatives in $1 there? Daemons live in sbin, which is not on everybody's path.
is_there() (
    PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
    IFS='|'
    for need in $1; do
        case $need in
        /*) [ -e "$need" ] && exit 0 ;;
        perl:*) perl -M"${need#perl:}" -e 1 >/dev/null 2>&1 && exit 0 ;;
        *) command -v "$need" >/dev/null 2>&1 && exit 0 ;;
        esac
    done
    exit 1
)

# Print the packages of all needs "$@" that are not met.
missing_packages() {
    for pair in "$@"; do
        is_there "${pair%=*}" || printf '%s ' "${pair##*=}"
    done
}

# Unpack Debian's Exim into the directory $1, without installing or starting anything.
unpack_exim() (
    mkdir -p "$1/packages"
    cd "$1"
    echo "Unpacking exim4-daemon-light into $(pwd)"
    if ! (cd packages && apt-get download exim4-daemon-light >/dev/null 2>&1); then
        { apt-get update && cd packages && apt-get download exim4-daemon-light; } >log 2>&1 || { tail -n 20 log >&2; exit 1; }
    fi
    for package in packages/exim4-daemon-light_*.deb; do
        dpkg -x "$package" .
    done
    # The user whose name is compiled in; its package would make it.
    if [ "$(id -u)" -eq 0 ] && ! getent passwd Debian-exim >/dev/null; then
        useradd --system --no-create-home --shell /usr/sbin/nologin Debian-exim
    fi
)

missing=$(missing_packages "$@")
if [ -z "$missing" ]; then
    [ -z "$exim" ] || [ -x "$exim/usr/sbin/exim4" ] || unpack_exim "$exim"
    exit 0
fi

if ! command -v apt-get >/dev/null 2>&1; then
    echo "These are needed and missing: ${missing}- install them with your system's package manager, then try again." >&2
    exit 1
fi
if [ "$(id -u)" -ne 0 ]; then
    echo "System packages are missing. Install them, then try again:" >&2
    echo "    sudo apt-get install --no-install-recommends $missing" >&2
    exit 1
fi

# Debian asks this file before it starts a freshly installed service; 101 means no. One that is already there is
# the administrator's, and stays.
guard=/usr/sbin/policy-rc.d
log=$(mktemp)
own_guard=
# shellcheck disable=SC2317 # called by the trap
clean_up() {
    rm -f "$log"
    [ -z "$own_guard" ] || rm -f "$guard"
}
trap clean_up EXIT
trap 'exit 1' HUP INT TERM
if [ ! -e "$guard" ]; then
    own_guard=yes
    printf '#!/bin/sh\nexit 101\n' >"$guard"
    chmod 755 "$guard"
fi

export DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1
install_missing() {
    # Never at the cost of what is there: whether another mail server goes for Postfix is for its owner to say.
    # shellcheck disable=SC2086 # a list of package names
    apt-get install -y --no-remove --no-install-recommends -o DPkg::Lock::Timeout=300 \
        -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold $missing </dev/null >"$log" 2>&1
}

echo "Installing system packages: $missing"
# Package lists may be absent or too old to name files that still exist: refresh them only if the first try fails.
if ! install_missing; then
    if ! apt-get update </dev/null >"$log" 2>&1 || ! install_missing; then
        tail -n 20 "$log" >&2
        echo "apt-get could not install: $missing" >&2
        exit 1
    fi
fi
missing=$(missing_packages "$@")
if [ -z "$missing" ] && [ -n "$exim" ] && [ ! -x "$exim/usr/sbin/exim4" ]; then
    unpack_exim "$exim"
fi
if [ -n "$missing" ]; then
    echo "Installed, but what they should bring is still not there: $missing" >&2
    exit 1
fi
