/* smtpsink: a receiving server that counts what arrives, so that loss and duplication cannot hide.
 *
 * Standards: RFC 5321 as far as a well-behaved client needs it; PIPELINING (RFC 2920); no TLS, no AUTH.
 * Promises: each message id of the current run is counted once and every further copy as a duplicate; every Kth
 *   message is kept, dot-unstuffed, exactly as it came, for checks of its signature.
 * Dangers: takes mail for anybody and keeps none of it; listen on loopback only.
 * Not here: judging signatures (measure/judge.py).
 *
 * One thread, epoll. When it listens it prints one line: "ready PORT CONTROL_PORT". The control port takes one line
 * per connection and answers with one:
 *   RESET <run id> <count>   forget everything; expect ids <run id>-00000000 and so on, `count` of them
 *   STAT                     distinct=N duplicates=N unknown=N bytes=N last=SECONDS   (last arrival, CLOCK_MONOTONIC)
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common.h"

#define READ_SIZE 65536
#define EVENTS_AT_ONCE 256

typedef enum { LISTENS_FOR_MAIL, LISTENS_FOR_CONTROL, TAKES_MAIL, TAKES_CONTROL } Role;

typedef struct {
    int socket;
    Role role;
    bool in_content;   /* between the 354 and the final dot */
    bool closing;      /* close as soon as `out` is written */
    bool wants_write;  /* epoll watches for room to write */
    size_t scanned;    /* bytes of the content in which no end was found yet */
    Buffer in;
    Buffer out;
} Peer;

static int epoll = -1;
static const char *sample_directory = NULL;
static long sample_every = 0;

/* The tally of the current run. */
static struct {
    char run_id[RUN_ID_LENGTH + 1];
    unsigned char *seen; /* one byte per number */
    long expected;
    long distinct;
    long duplicates;
    long unknown;
    long long bytes;
    double last;
} tally;

static void tally_reset(const char *run_id, long expected)
{
    free(tally.seen);
    memset(&tally, 0, sizeof tally);
    snprintf(tally.run_id, sizeof tally.run_id, "%s", run_id);
    tally.seen = zeroed((size_t)expected, 1);
    tally.expected = expected;
}

/* Write `content` without its dot stuffing to <sample directory>/<id>.eml. */
static void keep_sample(const char *content, size_t length, const char *id)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%.*s.eml", sample_directory, ID_LENGTH, id);
    FILE *file = fopen(path, "wb");
    if (!file) {
        fprintf(stderr, "smtpsink: %s: %s\n", path, strerror(errno));
        return;
    }
    const char *line = content;
    const char *end = content + length;
    while (line < end) {
        const char *line_feed = memchr(line, '\n', (size_t)(end - line));
        const char *next = line_feed ? line_feed + 1 : end;
        if (*line == '.')
            line++;
        fwrite(line, 1, (size_t)(next - line), file);
        line = next;
    }
    fclose(file);
}

/* Return where the id of this message stands in its header section, or NULL. */
static const char *find_id(const char *content, size_t length)
{
    const char *header_end = memmem(content, length, "\r\n\r\n", 4);
    size_t header_length = header_end ? (size_t)(header_end - content) : length;
    const size_t name_length = sizeof ID_FIELD - 1;
    const char *at = content;
    const char *end = content + header_length;
    while ((at = memmem(at, (size_t)(end - at), ID_FIELD, name_length)) != NULL) {
        bool at_line_start = at == content || at[-1] == '\n';
        at += name_length;
        if (at_line_start && end - at >= ID_LENGTH)
            return at;
    }
    return NULL;
}

/* Count one message, and keep it if its number is due. */
static void count_message(const char *content, size_t length)
{
    tally.bytes += (long long)length;
    tally.last = monotonic_seconds();
    const char *id = find_id(content, length);
    if (!id || memcmp(id, tally.run_id, RUN_ID_LENGTH) != 0) {
        tally.unknown++;
        return;
    }
    char digits[NUMBER_LENGTH + 1] = {0};
    memcpy(digits, id + RUN_ID_LENGTH + 1, NUMBER_LENGTH);
    char *rest;
    long number = strtol(digits, &rest, 10);
    if (*rest || number < 0 || number >= tally.expected) {
        tally.unknown++;
        return;
    }
    if (tally.seen[number]) {
        tally.duplicates++;
        return;
    }
    tally.seen[number] = 1;
    tally.distinct++;
    if (sample_directory && sample_every > 0 && number % sample_every == 0)
        keep_sample(content, length, id);
}

static void say(Peer *peer, const char *text)
{
    buffer_add(&peer->out, text, strlen(text));
}

/* Answer one command line of a mail client. */
static void take_command(Peer *peer, const char *line)
{
    if (!strncasecmp(line, "EHLO", 4)) {
        say(peer, "250-sink.example.net\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-ENHANCEDSTATUSCODES\r\n"
                  "250 SIZE 104857600\r\n");
    } else if (!strncasecmp(line, "DATA", 4)) {
        say(peer, "354 End data with <CR><LF>.<CR><LF>\r\n");
        peer->in_content = true;
        peer->scanned = 0;
    } else if (!strncasecmp(line, "QUIT", 4)) {
        say(peer, "221 2.0.0 Bye\r\n");
        peer->closing = true;
    } else if (!strncasecmp(line, "HELO", 4) || !strncasecmp(line, "MAIL", 4) || !strncasecmp(line, "RCPT", 4)
               || !strncasecmp(line, "RSET", 4) || !strncasecmp(line, "NOOP", 4)) {
        say(peer, "250 2.0.0 Ok\r\n");
    } else {
        say(peer, "502 5.5.1 Not here\r\n");
    }
}

/* Answer the one line of a control client. */
static void take_control(Peer *peer, const char *line)
{
    char run_id[RUN_ID_LENGTH + 1];
    long expected;
    if (sscanf(line, "RESET %8s %ld", run_id, &expected) == 2 && strlen(run_id) == RUN_ID_LENGTH && expected >= 0) {
        tally_reset(run_id, expected);
        say(peer, "ok\n");
    } else if (!strncmp(line, "STAT", 4)) {
        buffer_print(&peer->out, "distinct=%ld duplicates=%ld unknown=%ld bytes=%lld last=%.6f\n", tally.distinct,
                     tally.duplicates, tally.unknown, tally.bytes, tally.last);
    } else {
        say(peer, "error: RESET <8 characters> <count>, or STAT\n");
    }
    peer->closing = true;
}

/* Take the content that starts at `from`. Returns the bytes consumed, or 0 if its end has not come yet. */
static size_t take_content(Peer *peer, size_t from)
{
    const char *content = peer->in.data + from;
    size_t length = peer->in.used - from;
    size_t consumed;
    if (length >= 3 && !memcmp(content, ".\r\n", 3)) {
        count_message(content, 0);
        consumed = 3;
    } else {
        /* The five bytes may be split over two reads: look again at the last four. */
        size_t resume = peer->scanned > 4 ? peer->scanned - 4 : 0;
        const char *end = memmem(content + resume, length - resume, "\r\n.\r\n", 5);
        if (!end) {
            peer->scanned = length;
            return 0;
        }
        count_message(content, (size_t)(end - content) + 2);
        consumed = (size_t)(end - content) + 5;
    }
    peer->in_content = false;
    say(peer, "250 2.0.0 Ok: counted\r\n");
    return consumed;
}

/* Work through what has been read. */
static void take_input(Peer *peer)
{
    size_t done = 0;
    while (!peer->closing && done < peer->in.used) {
        if (peer->in_content) {
            size_t consumed = take_content(peer, done);
            if (consumed == 0)
                break;
            done += consumed;
            continue;
        }
        char *line = peer->in.data + done;
        char *line_feed = memchr(line, '\n', peer->in.used - done);
        if (!line_feed)
            break;
        *line_feed = '\0';
        done = (size_t)(line_feed - peer->in.data) + 1;
        if (peer->role == TAKES_CONTROL)
            take_control(peer, line);
        else
            take_command(peer, line);
    }
    buffer_consume(&peer->in, done);
}

/* Write what can be written now. Returns false when the connection is of no more use. */
static bool flush(Peer *peer)
{
    while (peer->out.used > 0) {
        ssize_t written = write(peer->socket, peer->out.data, peer->out.used);
        if (written < 0 && errno == EINTR)
            continue;
        if (written < 0 && errno != EAGAIN)
            return false;
        if (written < 0)
            break;
        buffer_consume(&peer->out, (size_t)written);
    }
    bool blocked = peer->out.used > 0;
    if (blocked != peer->wants_write) {
        struct epoll_event event = {.events = EPOLLIN | (blocked ? EPOLLOUT : 0), .data.ptr = peer};
        epoll_ctl(epoll, EPOLL_CTL_MOD, peer->socket, &event);
        peer->wants_write = blocked;
    }
    return blocked || !peer->closing;
}

static void hang_up(Peer *peer)
{
    close(peer->socket);
    free(peer->in.data);
    free(peer->out.data);
    free(peer);
}

/* Read, answer, write: everything one connection is ready for. */
static void serve(Peer *peer)
{
    bool open = true;
    for (;;) {
        buffer_reserve(&peer->in, READ_SIZE);
        size_t room = peer->in.room - peer->in.used;
        ssize_t got = read(peer->socket, peer->in.data + peer->in.used, room);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0 && errno == EAGAIN)
            break;
        if (got <= 0) {
            open = false;
            break;
        }
        peer->in.used += (size_t)got;
        if ((size_t)got < room)
            break; /* level-triggered: more will wake us again */
    }
    take_input(peer);
    if (!flush(peer) || !open)
        hang_up(peer);
}

static void watch(Peer *peer)
{
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = peer};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, peer->socket, &event) < 0)
        give_up("epoll: %s", strerror(errno));
}

/* Take every connection that waits. */
static void accept_all(const Peer *listener)
{
    int socket;
    while ((socket = accept4(listener->socket, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        int on = 1;
        setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        Peer *peer = zeroed(1, sizeof *peer);
        peer->socket = socket;
        peer->role = listener->role == LISTENS_FOR_MAIL ? TAKES_MAIL : TAKES_CONTROL;
        watch(peer);
        if (peer->role == TAKES_MAIL) {
            say(peer, "220 sink.example.net ESMTP\r\n");
            if (!flush(peer))
                hang_up(peer);
        }
    }
}

/* Listen on address:port (0: any free one) and return the port. */
static int listen_on(Peer *listener, const char *address, int port)
{
    struct sockaddr_in name = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    socklen_t length = sizeof name;
    int on = 1;
    listener->socket = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    setsockopt(listener->socket, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (inet_pton(AF_INET, address, &name.sin_addr) != 1)
        give_up("smtpsink: not an IPv4 address: %s", address);
    if (bind(listener->socket, (struct sockaddr *)&name, sizeof name) < 0 || listen(listener->socket, 1024) < 0)
        give_up("smtpsink: cannot listen on %s:%d: %s", address, port, strerror(errno));
    getsockname(listener->socket, (struct sockaddr *)&name, &length);
    watch(listener);
    return ntohs(name.sin_port);
}

int main(int argc, char **argv)
{
    static const struct option known[] = {
        {"listen", required_argument, NULL, 'l'},     {"port", required_argument, NULL, 'p'},
        {"control", required_argument, NULL, 'c'},    {"sample-dir", required_argument, NULL, 'd'},
        {"sample-every", required_argument, NULL, 'e'}, {NULL, 0, NULL, 0},
    };
    const char *address = "127.0.0.1";
    int port = 0, control_port = 0, option;
    while ((option = getopt_long(argc, argv, "", known, NULL)) != -1) {
        switch (option) {
        case 'l': address = optarg; break;
        case 'p': port = atoi(optarg); break;
        case 'c': control_port = atoi(optarg); break;
        case 'd': sample_directory = optarg; break;
        case 'e': sample_every = atol(optarg); break;
        default: give_up("usage: smtpsink [--listen A] [--port N] [--control N] [--sample-dir D --sample-every K]");
        }
    }
    signal(SIGPIPE, SIG_IGN);
    epoll = epoll_create1(EPOLL_CLOEXEC);
    tally_reset("--------", 0);
    Peer mail = {.role = LISTENS_FOR_MAIL}, control = {.role = LISTENS_FOR_CONTROL};
    port = listen_on(&mail, address, port);
    control_port = listen_on(&control, address, control_port);
    printf("ready %d %d\n", port, control_port);
    fflush(stdout);

    struct epoll_event events[EVENTS_AT_ONCE];
    for (;;) {
        int ready = epoll_wait(epoll, events, EVENTS_AT_ONCE, -1);
        for (int i = 0; i < ready; i++) {
            Peer *peer = events[i].data.ptr;
            if (peer->role == LISTENS_FOR_MAIL || peer->role == LISTENS_FOR_CONTROL)
                accept_all(peer);
            else
                serve(peer);
        }
    }
}
