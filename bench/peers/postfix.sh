#!/bin/sh
# Postfix with OpenDKIM as a submission relay on the work that Outgate is measured on: STARTTLS, AUTH PLAIN (Cyrus
# SASL, sasldb), an RSA-2048 signature by a milter, stored before the 250, everything relayed to the sink.
#
#   postfix.sh install              system packages, by apt when root
#   postfix.sh start|pids|stop DIR
#
# All of it lives in DIR: configuration, queue, log, user database. Nothing of an installed Postfix is read, changed or
# stopped. Environment: PORT (to listen on), SINK_HOST, SINK_PORT, DOMAIN, SELECTOR, DKIM_KEY, TLS_CERT, TLS_KEY,
# BENCH_USER (name@domain), BENCH_PASSWORD.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
. "$here/parts/processes.sh"
PATH=$PATH:/usr/sbin:/sbin

install_packages() {
    sh "$here/../../tests/packages.sh" postfix=postfix opendkim=opendkim saslpasswd2=sasl2-bin \
        "/usr/lib/$(uname -m)-linux-gnu/sasl2/libplain.so=libsasl2-modules" openssl=openssl
}

# Where this distribution keeps Postfix's daemons.
daemon_directory() {
    for directory in /usr/lib/postfix/sbin /usr/libexec/postfix /usr/lib/postfix; do
        [ -x "$directory/master" ] && echo "$directory" && return
    done
    echo "postfix.sh: cannot find Postfix's master" >&2
    exit 1
}

render_postfix() {
    mkdir -p "$dir/etc/sasl" "$dir/queue/milter" "$dir/data"
    # The directories above us belong to root: Postfix insists on it for its queue.
    chmod 755 "$dir" "$dir/etc" "$dir/queue"
    chown postfix "$dir/data"
    chown opendkim "$dir/queue/milter"
    cp "$TLS_CERT" "$dir/etc/cert.pem"
    cp "$TLS_KEY" "$dir/etc/key.pem"
    chmod 600 "$dir/etc/key.pem"
    cat >"$dir/etc/main.cf" <<EOF
compatibility_level = 3.6
queue_directory = $dir/queue
data_directory = $dir/data
daemon_directory = $(daemon_directory)
command_directory = /usr/sbin
mail_owner = postfix
setgid_group = postdrop
maillog_file = $dir/maillog
maillog_file_prefixes = ${dir%/*}

# Who we are: a relay and nothing else.
myhostname = relay.$DOMAIN
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks =
mydestination =
alias_maps =
alias_database =
local_transport = error:no local mail here
relayhost = [$SINK_HOST]:$SINK_PORT
smtp_tls_security_level = none

# Submission: TLS before AUTH, nobody without AUTH.
smtpd_tls_security_level = encrypt
smtpd_tls_auth_only = yes
smtpd_tls_cert_file = $dir/etc/cert.pem
smtpd_tls_key_file = $dir/etc/key.pem
smtpd_sasl_auth_enable = yes
smtpd_sasl_path = smtpd
cyrus_sasl_config_path = $dir/etc/sasl
smtpd_relay_restrictions = permit_sasl_authenticated, reject
smtpd_recipient_restrictions =

# The signature.
smtpd_milters = unix:milter/socket
milter_protocol = 6
milter_default_action = tempfail

# No brakes, and no look-ups that Outgate does not make either.
default_process_limit = 150
smtpd_client_connection_count_limit = 0
smtpd_client_connection_rate_limit = 0
smtpd_peername_lookup = no
in_flow_delay = 0
message_size_limit = 31457280
smtputf8_enable = no
EOF
    cat >"$dir/etc/master.cf" <<EOF
# service      type       private unpriv chroot wakeup maxproc command
$PORT          inet       n       -      n      -      -       smtpd
pickup         unix       n       -      n      60     1       pickup
cleanup        unix       n       -      n      -      0       cleanup
qmgr           unix       n       -      n      300    1       qmgr
tlsmgr         unix       -       -      n      1000?  1       tlsmgr
rewrite        unix       -       -      n      -      -       trivial-rewrite
bounce         unix       -       -      n      -      0       bounce
defer          unix       -       -      n      -      0       bounce
trace          unix       -       -      n      -      0       bounce
verify         unix       -       -      n      -      1       verify
flush          unix       n       -      n      1000?  0       flush
proxymap       unix       -       -      n      -      -       proxymap
proxywrite     unix       -       -      n      -      1       proxymap
smtp           unix       -       -      n      -      -       smtp
relay          unix       -       -      n      -      -       smtp
error          unix       -       -      n      -      -       error
retry          unix       -       -      n      -      -       error
anvil          unix       -       -      n      -      1       anvil
scache         unix       -       -      n      -      1       scache
postlog        unix-dgram n       -      n      -      1       postlogd
EOF
    cat >"$dir/etc/sasl/smtpd.conf" <<EOF
pwcheck_method: auxprop
auxprop_plugin: sasldb
sasldb_path: $dir/etc/sasldb2
mech_list: PLAIN
EOF
    printf %s "$BENCH_PASSWORD" | saslpasswd2 -p -c -f "$dir/etc/sasldb2" -u "${BENCH_USER#*@}" "${BENCH_USER%@*}"
    chown postfix "$dir/etc/sasldb2"
    chmod 600 "$dir/etc/sasldb2"
}

render_opendkim() {
    cp "$DKIM_KEY" "$dir/dkim.pem"
    chown opendkim "$dir/dkim.pem"
    chmod 600 "$dir/dkim.pem"
    cat >"$dir/opendkim.conf" <<EOF
UserID opendkim
UMask 000
Socket local:$dir/queue/milter/socket
PidFile $dir/queue/milter/pid
Syslog no
Mode s
Domain $DOMAIN
Selector $SELECTOR
KeyFile $dir/dkim.pem
RequireSafeKeys no
Canonicalization relaxed/relaxed
OversignHeaders From
InternalHosts 127.0.0.0/8
EOF
}

verb=$1
if [ "$verb" = install ]; then
    install_packages
    exit
fi
dir=$2
milter_pid=$dir/queue/milter/pid
master_pid=$dir/queue/pid/master.pid

case $verb in
start)
    render_postfix
    render_opendkim
    opendkim -x "$dir/opendkim.conf"
    wait_until test -S "$dir/queue/milter/socket"
    postfix -c "$dir/etc" start
    wait_until test -s "$master_pid"
    ;;
pids)
    number_in "$milter_pid"
    echo
    number_in "$master_pid"
    echo
    ;;
stop)
    stop_by "$master_pid"
    stop_by "$milter_pid"
    ;;
*)
    echo "usage: postfix.sh install | start DIR | pids DIR | stop DIR" >&2
    exit 2
    ;;
esac
