#!/bin/sh
# Haraka with its DKIM plugin, as a submission relay on the work that Outgate is measured on: STARTTLS, AUTH PLAIN, an
# RSA-2048 signature, stored before the 250, everything relayed to the sink. One process per core, as it is run.
#
#   haraka.sh install              by npm, into ../bin/haraka; needs node and npm
#   haraka.sh start|pids|stop DIR
#
# All else lives in DIR. Environment: PORT (to listen on), SINK_HOST, SINK_PORT, DOMAIN, SELECTOR, DKIM_KEY, TLS_CERT,
# TLS_KEY, BENCH_USER, BENCH_PASSWORD.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
. "$here/parts/processes.sh"
home=$here/../bin/haraka

install_packages() {
    sh "$here/../../tests/packages.sh" node=nodejs npm=npm
    [ ! -e "$home/node_modules/Haraka" ] || return 0
    echo "Fetching Haraka"
    mkdir -p "$home"
    cd "$home"
    # Pinned, with four of its mail-parsing dependencies, so that the same code is measured everywhere.
    cat >package.json <<EOF
{
  "private": true,
  "dependencies": {"Haraka": "3.1.1", "haraka-plugin-dkim": "1.3.1"},
  "overrides": {"encoding-japanese": "2.2.0", "libqp": "2.1.1", "libmime": "5.3.6", "mailsplit": "5.4.2"}
}
EOF
    npm install --ignore-scripts --omit=optional --no-audit --no-fund >log 2>&1 || {
        rm -rf node_modules
        tail -n 20 log >&2
        exit 1
    }
}

render() {
    mkdir -p "$dir/config/dkim/$DOMAIN" "$dir/queue" "$dir/plugins"
    ln -s "$home/node_modules" "$dir/node_modules"
    config=$dir/config
    cp "$home/node_modules/Haraka/config/connection.ini" "$config/"
    cp "$TLS_CERT" "$config/tls_cert.pem"
    cp "$TLS_KEY" "$config/tls_key.pem"
    cp "$DKIM_KEY" "$config/dkim/$DOMAIN/private"
    cp "$DKIM_KEY" "$config/dkim.private.key"
    echo "$SELECTOR" >"$config/dkim/$DOMAIN/selector"
    # Haraka would make this at its first start, which takes minutes of CPU that are no message's.
    openssl dhparam -dsaparam -out "$config/dhparams.pem" 2048 2>/dev/null
    echo "relay.$DOMAIN" >"$config/me"
    printf '%s\n' tls auth/flat_file dkim to_sink >"$config/plugins"
    printf 'listen=127.0.0.1:%s\nnodes=cpus\n' "$PORT" >"$config/smtp.ini"
    printf 'key=tls_key.pem\ncert=tls_cert.pem\n' >"$config/tls.ini"
    printf '[core]\nmethods=PLAIN\n[users]\n%s=%s\n' "$BENCH_USER" "$BENCH_PASSWORD" >"$config/auth_flat_file.ini"
    printf 'enable_tls=false\n' >"$config/outbound.ini"
    printf 'level=WARN\n' >"$config/log.ini"
    cat >"$config/dkim.ini" <<EOF
[sign]
enabled = true
domain = $DOMAIN
selector = $SELECTOR
headers = From, To, Subject, Date, Message-ID, MIME-Version, Content-Type
[canon]
body = relaxed
[verify]
enabled = false
EOF
    cat >"$dir/plugins/to_sink.js" <<EOF
'use strict'
// Whoever has logged in may send anywhere, and all of it goes to the sink.
exports.hook_rcpt = (next, connection) => next(connection.relaying ? OK : DENY)
exports.hook_get_mx = (next) => next(OK, { priority: 0, exchange: '$SINK_HOST', port: $SINK_PORT })
EOF
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
    cd "$dir"
    node "$home/node_modules/Haraka/bin/haraka" -c "$dir" >"$dir/out.log" 2>&1 &
    echo $! >"$dir/pid"
    ;;
pids)
    number_in "$dir/pid"
    ;;
stop)
    stop_by "$dir/pid"
    ;;
*)
    echo "usage: haraka.sh install | start DIR | pids DIR | stop DIR" >&2
    exit 2
    ;;
esac
