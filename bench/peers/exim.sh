#!/bin/sh
# Exim (GnuTLS) with its own DKIM signing, as a submission relay on the work that Outgate is measured on: STARTTLS, AUTH
# PLAIN, an RSA-2048 signature, stored before the 250, everything relayed to the sink.
#
#   exim.sh install              as root: Debian's packages, unpacked into ../bin/exim; makes the user Debian-exim
#   exim.sh start|pids|stop DIR
#
# The package conflicts with Postfix's, so it is unpacked and not installed. All else lives in DIR. Environment: PORT (to
# listen on), SINK_HOST, SINK_PORT, DOMAIN, SELECTOR, DKIM_KEY, TLS_CERT, TLS_KEY, BENCH_USER, BENCH_PASSWORD.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
. "$here/parts/processes.sh"
PATH=$PATH:/usr/sbin:/sbin
unpacked=$here/../bin/exim
exim=$unpacked/usr/sbin/exim4

install_packages() {
    libraries=/usr/lib/$(uname -m)-linux-gnu
    sh "$here/../../tests/packages.sh" "$libraries/libgnutls-dane.so.0=libgnutls-dane0" \
        "$libraries/libidn.so.12=libidn12" "$libraries/libnsl.so.2=libnsl2" "$libraries/libdb-5.3.so=libdb5.3"
    # Exim looks for its own user at every start, whatever its configuration says.
    getent passwd Debian-exim >/dev/null || useradd --system --user-group --no-create-home Debian-exim
    [ ! -x "$exim" ] || return 0
    echo "Fetching Exim"
    rm -rf "$unpacked"
    mkdir -p "$unpacked"
    cd "$unpacked"
    apt-get download -o APT::Sandbox::User=root exim4-daemon-light >log 2>&1 || {
        apt-get update >log 2>&1 && apt-get download -o APT::Sandbox::User=root exim4-daemon-light >log 2>&1
    } || {
        tail -n 20 log >&2
        exit 1
    }
    dpkg-deb -x exim4-daemon-light_*.deb .
    # Root starts it; nobody else is to gain anything by it.
    chmod u-s "$exim"
}

render() {
    mkdir -p "$dir/spool" "$dir/logs"
    cp "$TLS_CERT" "$dir/certificate.pem"
    cp "$TLS_KEY" "$dir/tls.pem"
    cp "$DKIM_KEY" "$dir/dkim.pem"
    cat >"$dir/exim.conf" <<EOF
exim_path = $exim
exim_user = Debian-exim
exim_group = Debian-exim
spool_directory = $dir/spool
log_file_path = $dir/logs/%slog
pid_file_path = $dir/exim.pid
primary_hostname = relay.$DOMAIN
local_interfaces = 127.0.0.1
daemon_smtp_ports = $PORT
keep_environment =
never_users =
deliver_drop_privilege = true

# TLS before AUTH, nobody without AUTH.
tls_advertise_hosts = *
tls_certificate = $dir/certificate.pem
tls_privatekey = $dir/tls.pem
auth_advertise_hosts = \${if eq{\$tls_in_cipher}{}{}{*}}
acl_smtp_rcpt = recipients
acl_smtp_data = everything
acl_smtp_dkim =

# No brakes, and no look-ups that Outgate does not make either.
host_lookup =
smtp_accept_max = 200
smtp_accept_queue = 0
smtp_accept_queue_per_connection = 0
smtp_accept_max_per_connection = 100000
smtp_connect_backlog = 512
message_size_limit = 30M

begin acl
recipients:
  accept authenticated = *
  deny
everything:
  accept

begin routers
sink:
  driver = manualroute
  domains = *
  transport = signed
  route_list = * $SINK_HOST byname
  self = send

begin transports
signed:
  driver = smtp
  port = $SINK_PORT
  allow_localhost
  hosts_avoid_tls = *
  dkim_domain = $DOMAIN
  dkim_selector = $SELECTOR
  dkim_private_key = $dir/dkim.pem
  dkim_canon = relaxed

begin retry
* * F,1h,1m

begin authenticators
plain:
  driver = plaintext
  public_name = PLAIN
  server_condition = \${if and{{eq{\$auth2}{$BENCH_USER}}{eq{\$auth3}{$BENCH_PASSWORD}}}}
  server_set_id = \$auth2
EOF
    # Exim refuses a configuration that anybody but root may write.
    chown -R Debian-exim:Debian-exim "$dir"
    chown root:root "$dir/exim.conf"
    chmod 644 "$dir/exim.conf"
    chmod 755 "$dir"
}

verb=$1
if [ "$verb" = install ]; then
    install_packages
    exit
fi
dir=$2

case $verb in
start)
    render
    "$exim" -C "$dir/exim.conf" -bd -q30m
    wait_until test -s "$dir/exim.pid"
    ;;
pids)
    number_in "$dir/exim.pid"
    ;;
stop)
    stop_by "$dir/exim.pid"
    ;;
*)
    echo "usage: exim.sh install | start DIR | pids DIR | stop DIR" >&2
    exit 2
    ;;
esac
