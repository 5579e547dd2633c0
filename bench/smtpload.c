/* smtpload: hand in mail as fast as a submission server takes it, and say how long each message took.
 *
 * Standards: RFC 5321, RFC 6409, RFC 3207 (STARTTLS), RFC 4954 (AUTH PLAIN), RFC 2920 (PIPELINING, when offered).
 * Promises: exit status 0 only if every message was accepted; each message has an id of its own, in its header and in
 *   its body, so that a sink can count it and no two bodies hash alike; one JSON object on standard output.
 * Dangers: meant for servers of one's own on loopback; without --ca the server's certificate is not checked.
 * Not here: starting servers and accounting for their CPU (run.py).
 *
 * A closed loop on one thread (epoll, OpenSSL): each connection has one message in hand and takes the next one when
 * the server has answered for the last. Latency is therefore connections / rate once the server is busy.
 *
 * Long for one file, so that one compiler call builds it anywhere; its parts, in order: what was asked for, the message,
 * connections, the sink, the report, the command line.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/ssl.h>

#include "common.h"

#define READ_SIZE 16384
#define EVENTS_AT_ONCE 256
#define CONNECTION_ERRORS_AT_MOST 100
#define ID_PLACES 3

/* ---- what was asked for ---- */

typedef enum { TLS_NONE, TLS_STARTTLS, TLS_IMPLICIT } TlsMode;

static struct {
    const char *host, *port, *user, *password, *from, *to, *ca, *server_name, *sink_control, *run_id;
    int count, connections, per_connection, sites, first_site;
    size_t size;
    TlsMode tls;
    bool pipelining;
    double timeout_s, settle_s;
} options = {
    .host = "127.0.0.1",
    .port = "587",
    .from = "sender@example.test",
    .to = "receiver@example.net",
    .run_id = "00000000",
    .count = 1000,
    .connections = 1,
    .per_connection = 1,
    .sites = 1,
    .size = 4096,
    .tls = TLS_STARTTLS,
    .pipelining = true,
    .timeout_s = 60,
    .settle_s = 60,
};

/* ---- the message ---- */

/* The content of every message, dot-stuffed and with its final dot; ids are written over `id_at`. */
static struct {
    Buffer text;
    size_t id_at[ID_PLACES];
} template;

static void template_add_id(int place)
{
    template.id_at[place] = template.text.used;
    buffer_print(&template.text, "%s-%0*d", options.run_id, NUMBER_LENGTH, 0);
}

/* A small fixed generator: the same text in every run and on every machine. */
static unsigned next_random(void)
{
    static uint32_t state = 2026;
    state = state * 1103515245u + 12345u;
    return state >> 16;
}

/* Write prose of `options.size` bytes that gives canonicalisation something to do: some lines end in a space, some
 * have two spaces after a full stop, some begin with a dot (stuffed), and paragraphs are parted by empty lines. */
static void template_build(void)
{
    static const char *const words[] = {
        "invoice", "parcel",  "the",    "is",    "on",      "its",   "way",    "to",     "you",     "and",
        "should",  "arrive",  "before", "noon",  "unless",  "your",  "street", "market", "closes",  "early",
        "please",  "confirm", "with",   "reply", "receipt", "below", "shows",  "every",  "article", "we",
    };
    Buffer *text = &template.text;
    buffer_print(text, "From: Shop <%s>\r\nTo: Customer <%s>\r\n", options.from, options.to);
    buffer_print(text, "Subject: Your order has left our warehouse\r\nDate: Sat, 21 Nov 2026 06:00:00 +0000\r\n");
    buffer_print(text, "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nMessage-ID: <");
    template_add_id(0);
    buffer_print(text, "@load.example.test>\r\n" ID_FIELD);
    template_add_id(1);
    buffer_print(text, "\r\n\r\nOrder ");
    template_add_id(2);
    buffer_print(text, "\r\n\r\n");

    for (int line = 1; text->used < options.size; line++) {
        size_t start = text->used;
        if (line % 31 == 0)
            buffer_print(text, "..");
        while (text->used - start < 60)
            buffer_print(text, "%s ", words[next_random() % (sizeof words / sizeof *words)]);
        if (line % 16 == 0)
            buffer_print(text, "end.  Next ");
        if (line % 11 != 0)
            text->used--; /* no space at the end of this line */
        buffer_print(text, "\r\n%s", line % 12 == 0 ? "\r\n" : "");
    }
    buffer_print(text, ".\r\n");
}

/* ---- connections ---- */

typedef enum {
    CLOSED,
    CONNECTING,
    GREETING,    /* waits for 220 */
    FIRST_EHLO,  /* before STARTTLS */
    STARTTLS,
    HANDSHAKE,
    EHLO,        /* the one that counts */
    AUTH,
    MAIL,
    RCPT,
    DATA,
    CONTENT,     /* waits for the 250 that makes the message the server's */
    QUIT,
} State;

static const char *const state_names[] = {"closed", "connect", "greeting", "EHLO", "STARTTLS", "handshake", "EHLO",
                                          "AUTH",   "MAIL",    "RCPT",     "DATA", "content",  "QUIT"};

typedef struct {
    State state;
    int socket;
    SSL *tls;
    bool wants_write;      /* epoll watches for room to write */
    bool pipelining;       /* offered and wanted */
    int left;              /* messages this connection may still take */
    int number;            /* of the message in hand */
    double connected_at, handshake_at, mail_at, dot_at;
    Buffer in;
    Buffer out;
    size_t written;        /* bytes of `out` that have left */
} Session;

/* A series of durations, sorted when printed. */
typedef struct {
    double *seconds;
    size_t used;
    size_t room;
} Series;

static int epoll = -1;
static SSL_CTX *tls_context = NULL;
static struct addrinfo *server = NULL;

static struct {
    int next_number;  /* of the next message to hand out */
    int accepted;
    int refused;      /* messages in hand when their connection failed */
    int connection_errors;
    int open;
    int handshakes;
    double last_accepted_at;
    Series latency, commit, first_message, handshake;
    char last_error[300];
} load;

static void series_add(Series *series, double seconds)
{
    if (series->used == series->room) {
        series->room = series->room ? series->room * 2 : 1024;
        series->seconds = realloc(series->seconds, series->room * sizeof *series->seconds);
        if (!series->seconds)
            give_up("out of memory");
    }
    series->seconds[series->used++] = seconds;
}

static void session_close(Session *session)
{
    if (session->tls) {
        SSL_free(session->tls);
        session->tls = NULL;
    }
    close(session->socket); /* this also takes it out of the epoll set */
    session->state = CLOSED;
    load.open--;
}

/* Give the connection up, and with it the message in hand. `reply` is the server's last word or NULL. */
static void session_fail(Session *session, const char *what, const char *reply)
{
    if (session->state == CLOSED)
        return;
    snprintf(load.last_error, sizeof load.last_error, "%s at %s%s%.200s", what, state_names[session->state],
             reply ? ": " : "", reply ? reply : "");
    if (session->state >= MAIL && session->state <= CONTENT)
        load.refused++;
    load.connection_errors++;
    ERR_clear_error();
    session_close(session);
}

static void session_watch(Session *session, bool for_write)
{
    if (session->wants_write == for_write)
        return;
    session->wants_write = for_write;
    struct epoll_event event = {.events = EPOLLIN | (for_write ? EPOLLOUT : 0), .data.ptr = session};
    epoll_ctl(epoll, EPOLL_CTL_MOD, session->socket, &event);
}

/* Write what can be written now. A write that OpenSSL makes wait for input is tried again when input comes. */
static void session_flush(Session *session)
{
    while (session->written < session->out.used) {
        const char *bytes = session->out.data + session->written;
        size_t length = session->out.used - session->written;
        if (session->tls) {
            size_t written = 0;
            int ok = SSL_write_ex(session->tls, bytes, length, &written);
            int problem = ok ? SSL_ERROR_NONE : SSL_get_error(session->tls, ok);
            if (problem == SSL_ERROR_WANT_WRITE || problem == SSL_ERROR_WANT_READ) {
                session_watch(session, problem == SSL_ERROR_WANT_WRITE);
                return;
            }
            if (problem != SSL_ERROR_NONE) {
                session_fail(session, "TLS write failed", NULL);
                return;
            }
            session->written += written;
        } else {
            ssize_t written = write(session->socket, bytes, length);
            if (written < 0 && errno == EAGAIN) {
                session_watch(session, true);
                return;
            }
            if (written < 0) {
                session_fail(session, strerror(errno), NULL);
                return;
            }
            session->written += (size_t)written;
        }
    }
    session->out.used = session->written = 0;
    session_watch(session, false);
}

/* Send a command line and wait for its reply in `state`. */
static void session_command(Session *session, State state, const char *line)
{
    session->state = state;
    buffer_print(&session->out, "%s\r\n", line);
    session_flush(session);
}

static void session_ehlo(Session *session, State state)
{
    session->pipelining = false;
    session_command(session, state, "EHLO load.example.test");
}

static void session_auth(Session *session)
{
    char line[2048] = "AUTH PLAIN ";
    unsigned char secret[512];
    int length = snprintf((char *)secret, sizeof secret, "%c%s%c%s", 0, options.user, 0, options.password);
    if (length < 0 || (size_t)length >= sizeof secret)
        give_up("smtpload: user name and password are too long");
    EVP_EncodeBlock((unsigned char *)line + strlen(line), secret, length);
    session_command(session, AUTH, line);
}

/* Name the recipient: of each message another, if the address has a place for a number. */
static void session_recipient(Session *session)
{
    const char *place = strchr(options.to, '%');
    if (!place) {
        buffer_print(&session->out, "RCPT TO:<%s>\r\n", options.to);
        return;
    }
    int site = options.first_site + session->number % options.sites;
    buffer_print(&session->out, "RCPT TO:<%.*s%d%s>\r\n", (int)(place - options.to), options.to, site, place + 1);
}

/* Take the next message, or say goodbye. */
static void session_next_message(Session *session)
{
    if (load.next_number >= options.count || session->left == 0) {
        session_command(session, QUIT, "QUIT");
        return;
    }
    session->left--;
    session->number = load.next_number++;
    session->mail_at = monotonic_seconds();
    session->state = MAIL;
    buffer_print(&session->out, "MAIL FROM:<%s>\r\n", options.from);
    if (session->pipelining) {
        session_recipient(session);
        buffer_print(&session->out, "DATA\r\n");
    }
    session_flush(session);
}

static void session_content(Session *session)
{
    char id[ID_LENGTH + 1];
    size_t start = session->out.used;
    session->state = CONTENT;
    buffer_add(&session->out, template.text.data, template.text.used);
    snprintf(id, sizeof id, "%s-%0*d", options.run_id, NUMBER_LENGTH, session->number);
    for (int i = 0; i < ID_PLACES; i++)
        memcpy(session->out.data + start + template.id_at[i], id, ID_LENGTH);
    session->dot_at = monotonic_seconds();
    session_flush(session);
}

/* Carry the handshake on as far as the bytes at hand allow. */
static void session_handshake(Session *session)
{
    int result = SSL_do_handshake(session->tls);
    if (result == 1) {
        series_add(&load.handshake, monotonic_seconds() - session->handshake_at);
        load.handshakes++;
        session_watch(session, false);
        if (options.tls == TLS_IMPLICIT)
            session->state = GREETING;
        else
            session_ehlo(session, EHLO);
        return;
    }
    switch (SSL_get_error(session->tls, result)) {
    case SSL_ERROR_WANT_READ: session_watch(session, false); break;
    case SSL_ERROR_WANT_WRITE: session_watch(session, true); break;
    default: {
        char reason[160];
        ERR_error_string_n(ERR_peek_error(), reason, sizeof reason);
        session_fail(session, "TLS failed", reason);
    }
    }
}

static void session_start_tls(Session *session)
{
    session->state = HANDSHAKE;
    session->handshake_at = monotonic_seconds();
    session->tls = SSL_new(tls_context);
    if (!session->tls || SSL_set_fd(session->tls, session->socket) != 1)
        give_up("smtpload: no TLS session");
    if (options.server_name) {
        SSL_set_tlsext_host_name(session->tls, options.server_name);
        SSL_set1_host(session->tls, options.server_name);
    }
    SSL_set_connect_state(session->tls);
    session_handshake(session);
}

/* Note an accepted message and go on to the next. */
static void session_accepted(Session *session)
{
    double now = monotonic_seconds();
    series_add(&load.latency, now - session->mail_at);
    series_add(&load.commit, now - session->dot_at);
    if (session->left == options.per_connection - 1)
        series_add(&load.first_message, now - session->connected_at);
    load.accepted++;
    load.last_accepted_at = now;
    session_next_message(session);
}

/* What each state must hear to go on. */
static int code_wanted(State state)
{
    switch (state) {
    case GREETING:
    case STARTTLS: return 220;
    case AUTH: return 235;
    case DATA: return 354;
    case QUIT: return 221;
    default: return 250;
    }
}

/* Act on the last line of a reply. */
static void session_reply(Session *session, const char *line)
{
    if (atoi(line) != code_wanted(session->state)) {
        session_fail(session, "refused", line);
        return;
    }
    switch (session->state) {
    case GREETING:
        session_ehlo(session, options.tls == TLS_STARTTLS ? FIRST_EHLO : EHLO);
        break;
    case FIRST_EHLO:
        session_command(session, STARTTLS, "STARTTLS");
        break;
    case STARTTLS:
        session->state = HANDSHAKE; /* begun by session_lines, which can see whether anything follows this line */
        break;
    case EHLO:
        if (options.user)
            session_auth(session);
        else
            session_next_message(session);
        break;
    case AUTH:
        session_next_message(session);
        break;
    case MAIL:
        session->state = RCPT;
        if (!session->pipelining) {
            session_recipient(session);
            session_flush(session);
        }
        break;
    case RCPT:
        session->state = DATA;
        if (!session->pipelining) {
            buffer_print(&session->out, "DATA\r\n");
            session_flush(session);
        }
        break;
    case DATA:
        session_content(session);
        break;
    case CONTENT:
        session_accepted(session);
        break;
    case QUIT:
        session_close(session);
        break;
    default:
        session_fail(session, "unexpected reply", line);
    }
}

/* Work through the complete lines that have come. */
static void session_lines(Session *session)
{
    size_t done = 0;
    while (session->state != CLOSED && session->state != HANDSHAKE && done < session->in.used) {
        char *line = session->in.data + done;
        char *line_feed = memchr(line, '\n', session->in.used - done);
        if (!line_feed)
            break;
        done = (size_t)(line_feed - session->in.data) + 1;
        *line_feed = '\0';
        if (line_feed > line && line_feed[-1] == '\r')
            line_feed[-1] = '\0';
        bool more_follows = strlen(line) > 3 && line[3] == '-';
        if (session->state == EHLO && strlen(line) > 4 && !strcasecmp(line + 4, "PIPELINING"))
            session->pipelining = options.pipelining;
        if (!more_follows)
            session_reply(session, line);
    }
    bool all_taken = done == session->in.used;
    if (session->state == CLOSED)
        session->in.used = 0;
    else
        buffer_consume(&session->in, done);
    if (session->state == HANDSHAKE && all_taken)
        session_start_tls(session);
    else if (session->state == HANDSHAKE)
        session_fail(session, "clear text after the reply to STARTTLS", NULL);
}

/* Read once. Returns false when there is nothing more to read now. */
static bool session_read(Session *session)
{
    buffer_reserve(&session->in, READ_SIZE);
    char *room = session->in.data + session->in.used;
    size_t got = 0;
    if (session->tls) {
        int ok = SSL_read_ex(session->tls, room, READ_SIZE, &got);
        if (!ok) {
            int problem = SSL_get_error(session->tls, ok);
            if (problem == SSL_ERROR_WANT_WRITE)
                session_watch(session, true);
            if (problem == SSL_ERROR_WANT_READ || problem == SSL_ERROR_WANT_WRITE)
                return false;
        }
    } else {
        ssize_t result = read(session->socket, room, READ_SIZE);
        if (result < 0 && (errno == EAGAIN || errno == EINTR))
            return false;
        got = result > 0 ? (size_t)result : 0;
    }
    if (got == 0) {
        /* Some servers close without a reply to QUIT: every message has been answered by then. */
        if (session->state == QUIT)
            session_close(session);
        else
            session_fail(session, "connection lost", NULL);
        return false;
    }
    session->in.used += got;
    return true;
}

/* Do all that the connection is ready for. */
static void session_ready(Session *session)
{
    if (session->state == CONNECTING) {
        int problem = 0;
        socklen_t length = sizeof problem;
        getsockopt(session->socket, SOL_SOCKET, SO_ERROR, &problem, &length);
        if (problem) {
            session_fail(session, strerror(problem), NULL);
            return;
        }
        session_watch(session, false);
        session->state = GREETING;
        if (options.tls == TLS_IMPLICIT)
            session_start_tls(session);
    }
    for (;;) {
        if (session->state == HANDSHAKE)
            session_handshake(session);
        if (session->state == CLOSED || session->state == HANDSHAKE)
            return;
        if (session->written < session->out.used)
            session_flush(session);
        if (session->state == CLOSED || !session_read(session))
            return;
        session_lines(session);
    }
}

static bool more_to_hand_out(void)
{
    return load.next_number < options.count && load.connection_errors < CONNECTION_ERRORS_AT_MOST;
}

/* Open the connection (again) while messages remain. */
static void session_open(Session *session)
{
    while (session->state == CLOSED && more_to_hand_out()) {
        int on = 1;
        session->socket = socket(server->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        if (session->socket < 0)
            give_up("smtpload: socket: %s", strerror(errno));
        setsockopt(session->socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        session->state = CONNECTING;
        session->left = options.per_connection;
        session->in.used = session->out.used = session->written = 0;
        session->wants_write = true;
        session->connected_at = monotonic_seconds();
        load.open++;
        struct epoll_event event = {.events = EPOLLIN | EPOLLOUT, .data.ptr = session};
        int result = connect(session->socket, server->ai_addr, server->ai_addrlen);
        if (result < 0 && errno != EINPROGRESS)
            session_fail(session, strerror(errno), NULL);
        else if (epoll_ctl(epoll, EPOLL_CTL_ADD, session->socket, &event) < 0)
            give_up("smtpload: epoll: %s", strerror(errno));
    }
}

/* Hand in all messages, or stop when the time is up. */
static void run_load(double started_at)
{
    Session *sessions = zeroed((size_t)options.connections, sizeof *sessions);
    struct epoll_event events[EVENTS_AT_ONCE];
    for (int i = 0; i < options.connections && i < options.count; i++)
        session_open(&sessions[i]);
    while (load.open > 0 && monotonic_seconds() - started_at < options.timeout_s) {
        int ready = epoll_wait(epoll, events, EVENTS_AT_ONCE, 100);
        for (int i = 0; i < ready; i++) {
            Session *session = events[i].data.ptr;
            session_ready(session);
            session_open(session);
        }
    }
    if (load.open > 0 && !load.last_error[0])
        snprintf(load.last_error, sizeof load.last_error, "time is up");
}

/* ---- the sink ---- */

typedef struct {
    long distinct, duplicates, unknown;
    double last;
} SinkCount;

/* Ask the sink's control port one question. Returns false if it cannot be reached. */
static bool sink_ask(const char *question, char *answer, size_t size)
{
    char host[256];
    snprintf(host, sizeof host, "%s", options.sink_control);
    char *colon = strrchr(host, ':');
    if (!colon)
        give_up("smtpload: --sink-control needs HOST:PORT");
    *colon = '\0';
    struct addrinfo wanted = {.ai_socktype = SOCK_STREAM}, *address;
    if (getaddrinfo(host, colon + 1, &wanted, &address) != 0)
        return false;
    int control = socket(address->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool ok = control >= 0 && connect(control, address->ai_addr, address->ai_addrlen) == 0
              && write(control, question, strlen(question)) == (ssize_t)strlen(question);
    size_t used = 0;
    ssize_t got;
    while (ok && used < size - 1 && (got = read(control, answer + used, size - 1 - used)) > 0)
        used += (size_t)got;
    answer[used] = '\0';
    freeaddrinfo(address);
    if (control >= 0)
        close(control);
    return ok && used > 0;
}

/* Wait until the sink has every accepted message, or the settling time is over. */
static SinkCount sink_settle(void)
{
    SinkCount count = {.distinct = -1};
    char answer[512];
    double give_up_at = monotonic_seconds() + options.settle_s;
    for (;;) {
        if (!sink_ask("STAT\n", answer, sizeof answer)
            || sscanf(answer, "distinct=%ld duplicates=%ld unknown=%ld bytes=%*d last=%lf", &count.distinct,
                      &count.duplicates, &count.unknown, &count.last) != 4)
            give_up("smtpload: the sink does not answer");
        if (count.distinct >= load.accepted || monotonic_seconds() > give_up_at)
            return count;
        usleep(20000);
    }
}

/* ---- the report ---- */

static int compare_seconds(const void *left, const void *right)
{
    double a = *(const double *)left, b = *(const double *)right;
    return (a > b) - (a < b);
}

/* The nearest-rank percentile, in milliseconds; the series must be sorted. */
static double percentile(const Series *series, double share)
{
    if (series->used == 0)
        return 0;
    size_t rank = (size_t)(share * (double)series->used + 0.999999);
    return series->seconds[rank > 0 ? rank - 1 : 0] * 1e3;
}

static void print_series(const char *name, Series *series)
{
    if (series->used)
        qsort(series->seconds, series->used, sizeof *series->seconds, compare_seconds);
    printf("\"%s\": {\"p50\": %.3f, \"p90\": %.3f, \"p99\": %.3f, \"max\": %.3f}, ", name, percentile(series, 0.50),
           percentile(series, 0.90), percentile(series, 0.99), percentile(series, 1.0));
}

static void print_text(const char *text)
{
    putchar('"');
    for (; *text; text++) {
        if (*text == '"' || *text == '\\')
            putchar('\\');
        if ((unsigned char)*text >= 32 && (unsigned char)*text < 127)
            putchar(*text);
    }
    putchar('"');
}

static void print_report(double started_at)
{
    double wall = load.accepted ? load.last_accepted_at - started_at : 0;
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    printf("{\"accepted\": %d, \"refused\": %d, \"unsent\": %d, \"connection_errors\": %d, \"handshakes\": %d, ",
           load.accepted, load.refused, options.count - load.accepted - load.refused, load.connection_errors,
           load.handshakes);
    printf("\"wall_s\": %.4f, \"accepted_per_s\": %.1f, ", wall, wall > 0 ? load.accepted / wall : 0);
    if (options.sink_control) {
        SinkCount sink = sink_settle();
        double whole = sink.last - started_at;
        long missing = load.accepted > sink.distinct ? load.accepted - sink.distinct : 0;
        printf("\"delivered\": %ld, \"missing\": %ld, \"duplicates\": %ld, \"unknown\": %ld, ", sink.distinct, missing,
               sink.duplicates, sink.unknown);
        printf("\"delivered_per_s\": %.1f, ", whole > 0 ? (double)sink.distinct / whole : 0);
    }
    print_series("latency_ms", &load.latency);
    print_series("commit_ms", &load.commit);
    print_series("first_message_ms", &load.first_message);
    print_series("handshake_ms", &load.handshake);
    printf("\"generator_cpu_s\": %.4f, \"last_error\": ",
           (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec)
               + (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6);
    print_text(load.last_error);
    printf("}\n");
}

/* ---- the command line ---- */

static TlsMode tls_mode(const char *name)
{
    if (!strcmp(name, "none"))
        return TLS_NONE;
    if (!strcmp(name, "implicit"))
        return TLS_IMPLICIT;
    if (strcmp(name, "starttls") != 0)
        give_up("smtpload: --tls takes starttls, implicit or none");
    return TLS_STARTTLS;
}

static void read_options(int argc, char **argv)
{
    static const struct option known[] = {
        {"host", required_argument, NULL, 'h'},         {"port", required_argument, NULL, 'p'},
        {"user", required_argument, NULL, 'u'},         {"password", required_argument, NULL, 'w'},
        {"from", required_argument, NULL, 'f'},         {"to", required_argument, NULL, 't'},
        {"ca", required_argument, NULL, 'a'},           {"server-name", required_argument, NULL, 'N'},
        {"count", required_argument, NULL, 'n'},        {"conns", required_argument, NULL, 'c'},
        {"msgs-per-conn", required_argument, NULL, 'm'}, {"size", required_argument, NULL, 's'},
        {"tls", required_argument, NULL, 'T'},          {"no-pipelining", no_argument, NULL, 'P'},
        {"sink-control", required_argument, NULL, 'S'}, {"runid", required_argument, NULL, 'r'},
        {"timeout", required_argument, NULL, 'O'},      {"e2e-wait", required_argument, NULL, 'E'},
        {"sites", required_argument, NULL, 'I'},        {"first-site", required_argument, NULL, 'F'},
        {NULL, 0, NULL, 0},
    };
    int option;
    while ((option = getopt_long(argc, argv, "", known, NULL)) != -1) {
        switch (option) {
        case 'h': options.host = optarg; break;
        case 'p': options.port = optarg; break;
        case 'u': options.user = optarg; break;
        case 'w': options.password = optarg; break;
        case 'f': options.from = optarg; break;
        case 't': options.to = optarg; break;
        case 'a': options.ca = optarg; break;
        case 'N': options.server_name = optarg; break;
        case 'n': options.count = atoi(optarg); break;
        case 'c': options.connections = atoi(optarg); break;
        case 'm': options.per_connection = atoi(optarg); break;
        case 's': options.size = strtoul(optarg, NULL, 10); break;
        case 'T': options.tls = tls_mode(optarg); break;
        case 'P': options.pipelining = false; break;
        case 'S': options.sink_control = optarg; break;
        case 'r': options.run_id = optarg; break;
        case 'O': options.timeout_s = atof(optarg); break;
        case 'E': options.settle_s = atof(optarg); break;
        case 'I': options.sites = atoi(optarg); break;
        case 'F': options.first_site = atoi(optarg); break;
        default: give_up("smtpload: see README.md for the options");
        }
    }
    if (strlen(options.run_id) != RUN_ID_LENGTH)
        give_up("smtpload: --runid takes %d characters", RUN_ID_LENGTH);
    if (options.count < 1 || options.count > 99999999 || options.connections < 1 || options.per_connection < 1
        || options.sites < 1)
        give_up("smtpload: --count, --conns, --msgs-per-conn and --sites are at least 1");
    if (options.user && !options.password)
        give_up("smtpload: --user needs --password");
}

static void prepare_tls(void)
{
    tls_context = SSL_CTX_new(TLS_client_method());
    if (!tls_context)
        give_up("smtpload: no TLS");
    SSL_CTX_set_mode(tls_context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    /* Every connection is a full handshake: that is the work to measure. */
    SSL_CTX_set_session_cache_mode(tls_context, SSL_SESS_CACHE_OFF);
    if (options.ca) {
        if (SSL_CTX_load_verify_locations(tls_context, options.ca, NULL) != 1)
            give_up("smtpload: cannot read the certificates in %s", options.ca);
        SSL_CTX_set_verify(tls_context, SSL_VERIFY_PEER, NULL);
    }
}

int main(int argc, char **argv)
{
    read_options(argc, argv);
    signal(SIGPIPE, SIG_IGN);
    struct addrinfo wanted = {.ai_socktype = SOCK_STREAM};
    int problem = getaddrinfo(options.host, options.port, &wanted, &server);
    if (problem)
        give_up("smtpload: %s port %s: %s", options.host, options.port, gai_strerror(problem));
    prepare_tls();
    template_build();
    epoll = epoll_create1(EPOLL_CLOEXEC);
    if (options.sink_control) {
        char question[64], answer[64];
        snprintf(question, sizeof question, "RESET %s %d\n", options.run_id, options.count);
        if (!sink_ask(question, answer, sizeof answer) || strcmp(answer, "ok\n") != 0)
            give_up("smtpload: the sink's control port does not answer");
    }
    double started_at = monotonic_seconds();
    run_load(started_at);
    print_report(started_at);
    return load.accepted == options.count ? 0 : 1;
}
