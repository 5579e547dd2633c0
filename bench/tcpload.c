/* tcpload: what one TCP connection, and one round trip, takes; and a server that answers it.
 *
 *   tcpload serve ADDRESS PORT                          echo everything, until it is ended; prints: ready PORT
 *   tcpload connections ADDRESS PORT COUNT AT_ONCE      open, send 100 octets, have them back, close; COUNT times
 *   tcpload round-trips ADDRESS PORT COUNT              COUNT times 100 octets there and back on one connection
 *   tcpload idle ADDRESS PORT COUNT                     open COUNT connections, use each once; prints: ready COUNT;
 *                                                       keeps them until standard input ends
 *
 * Standards: RFC 9293.
 * Promises: a connection counts only when all its octets came back as they were sent; exit status 0 only if each did;
 *   one JSON object on standard output; a server that falls silent for 30 s ends the run.
 * Dangers: the client's addresses have 28,000 ports each: widen net.ipv4.ip_local_port_range before long runs.
 * Not here: bulk (iperf3), the servers' CPU (egress.py).
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common.h"

#define MESSAGE_SIZE 100
#define EVENTS_AT_ONCE 256
#define READ_SIZE 65536
#define SILENCE_MS 30000
#define CONNECTIONS_AT_ONCE_TO_OPEN 200

static struct sockaddr_in server;
static int epoll = -1;

static void watch(int socket, uint32_t events, void *what, bool known)
{
    struct epoll_event event = {.events = events, .data.ptr = what};
    if (epoll_ctl(epoll, known ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, socket, &event) != 0)
        give_up("epoll_ctl: %s", strerror(errno));
}

static int new_socket(int flags)
{
    int made = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | flags, 0);
    if (made < 0)
        give_up("socket: %s", strerror(errno));
    int yes = 1;
    setsockopt(made, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    return made;
}

/* ---- the server ---- */

/* One client of ours; what it does not take at once is kept, and nothing more is read until it has. */
typedef struct {
    int socket;
    Buffer out;
} Echo;

static void echo_close(Echo *echo)
{
    close(echo->socket);
    free(echo->out.data);
    free(echo);
}

/* Send what is kept. Return whether the connection lives. */
static bool echo_send(Echo *echo)
{
    while (echo->out.used) {
        ssize_t sent = send(echo->socket, echo->out.data, echo->out.used, MSG_NOSIGNAL);
        if (sent < 0)
            return errno == EAGAIN;
        buffer_consume(&echo->out, (size_t)sent);
    }
    return true;
}

static void echo_serve(Echo *echo, uint32_t events)
{
    static char block[READ_SIZE];
    bool was_full = echo->out.used > 0;
    if (was_full && (events & EPOLLOUT) && !echo_send(echo)) {
        echo_close(echo);
        return;
    }
    if (!echo->out.used) {
        ssize_t length = recv(echo->socket, block, sizeof block, 0);
        if (length == 0 || (length < 0 && errno != EAGAIN)) {
            echo_close(echo);
            return;
        }
        if (length > 0) {
            ssize_t sent = send(echo->socket, block, (size_t)length, MSG_NOSIGNAL);
            if (sent < 0 && errno != EAGAIN) {
                echo_close(echo);
                return;
            }
            size_t out = sent < 0 ? 0 : (size_t)sent;
            if (out < (size_t)length)
                buffer_add(&echo->out, block + out, (size_t)length - out);
        }
    }
    if (was_full != (echo->out.used > 0))
        watch(echo->socket, echo->out.used ? EPOLLOUT : EPOLLIN, echo, true);
}

static void serve(void)
{
    int listening = new_socket(SOCK_NONBLOCK);
    int yes = 1;
    setsockopt(listening, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    socklen_t length = sizeof server;
    if (bind(listening, (struct sockaddr *)&server, sizeof server) != 0 || listen(listening, 4096) != 0 ||
        getsockname(listening, (struct sockaddr *)&server, &length) != 0)
        give_up("cannot listen: %s", strerror(errno));
    watch(listening, EPOLLIN, NULL, false);
    printf("ready %u\n", ntohs(server.sin_port));
    fflush(stdout);
    for (;;) {
        struct epoll_event events[EVENTS_AT_ONCE];
        int number = epoll_wait(epoll, events, EVENTS_AT_ONCE, -1);
        for (int i = 0; i < number; i++) {
            if (events[i].data.ptr) {
                echo_serve(events[i].data.ptr, events[i].events);
                continue;
            }
            int accepted;
            while ((accepted = accept4(listening, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
                setsockopt(accepted, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
                Echo *echo = zeroed(1, sizeof *echo);
                echo->socket = accepted;
                watch(accepted, EPOLLIN, echo, false);
            }
        }
    }
}

/* ---- the client ---- */

typedef struct {
    int socket;
    bool connected;
    size_t received;
    unsigned number;  /* of this exchange: what is sent depends on it */
    double began;
} Exchange;

static struct {
    unsigned started, done, failed;
    char last_error[200];
} load;

static void message_fill(char *message, unsigned number)
{
    for (int i = 0; i < MESSAGE_SIZE; i++)
        message[i] = (char)(number + (unsigned)i * 7u);
}

static void exchange_start(Exchange *exchange)
{
    exchange->socket = new_socket(SOCK_NONBLOCK);
    exchange->connected = false;
    exchange->received = 0;
    exchange->number = load.started++;
    exchange->began = monotonic_seconds();
    if (connect(exchange->socket, (struct sockaddr *)&server, sizeof server) != 0 && errno != EINPROGRESS)
        give_up("connect: %s", strerror(errno));
    watch(exchange->socket, EPOLLOUT, exchange, false);
}

static void exchange_fail(const char *what, int number)
{
    load.failed++;
    snprintf(load.last_error, sizeof load.last_error, "%s: %s", what, number ? strerror(number) : "connection ended");
}

/* Go on with one exchange; return whether it is over. */
static bool exchange_go_on(Exchange *exchange)
{
    char message[MESSAGE_SIZE], answer[MESSAGE_SIZE];
    message_fill(message, exchange->number);
    if (!exchange->connected) {
        int error = 0;
        socklen_t length = sizeof error;
        getsockopt(exchange->socket, SOL_SOCKET, SO_ERROR, &error, &length);
        if (error || send(exchange->socket, message, MESSAGE_SIZE, MSG_NOSIGNAL) != MESSAGE_SIZE) {
            exchange_fail("connect", error ? error : errno);
            return true;
        }
        exchange->connected = true;
        watch(exchange->socket, EPOLLIN, exchange, true);
        return false;
    }
    ssize_t length = recv(exchange->socket, answer, MESSAGE_SIZE - exchange->received, 0);
    if (length < 0 && errno == EAGAIN)
        return false;
    if (length <= 0) {
        exchange_fail("receive", length ? errno : 0);
        return true;
    }
    if (memcmp(answer, message + exchange->received, (size_t)length) != 0) {
        exchange_fail("receive", EBADMSG);
        return true;
    }
    exchange->received += (size_t)length;
    return exchange->received == MESSAGE_SIZE;
}

static int by_size(const void *one, const void *other)
{
    double a = *(const double *)one, b = *(const double *)other;
    return (a > b) - (a < b);
}

static void report(double seconds, double *each, unsigned number)
{
    qsort(each, number, sizeof *each, by_size);
    double p50 = number ? each[number / 2] : 0, p99 = number ? each[(size_t)number * 99 / 100] : 0;
    printf("{\"done\": %u, \"failed\": %u, \"seconds\": %.6f, \"per_s\": %.1f, \"p50_us\": %.1f, \"p99_us\": %.1f, "
           "\"last_error\": \"%s\"}\n",
           load.done, load.failed, seconds, load.done / seconds, p50 * 1e6, p99 * 1e6, load.last_error);
}

/* Do `count` exchanges, `at_once` side by side. With `keep`, leave each connection open. */
static void exchanges(unsigned count, unsigned at_once, bool keep)
{
    Exchange *all = zeroed(keep ? count : at_once, sizeof *all);
    double *each = zeroed(count, sizeof *each);
    double began = monotonic_seconds();
    for (unsigned i = 0; i < at_once && i < count; i++)
        exchange_start(&all[i]);
    while (load.done + load.failed < count) {
        struct epoll_event events[EVENTS_AT_ONCE];
        int number = epoll_wait(epoll, events, EVENTS_AT_ONCE, SILENCE_MS);
        if (number == 0)
            give_up("nothing happens: %u of %u done", load.done, count);
        for (int i = 0; i < number; i++) {
            Exchange *exchange = events[i].data.ptr;
            unsigned failed = load.failed;
            if (!exchange_go_on(exchange))
                continue;
            if (failed == load.failed)
                each[load.done++] = monotonic_seconds() - exchange->began;
            if (keep && failed == load.failed)
                epoll_ctl(epoll, EPOLL_CTL_DEL, exchange->socket, NULL);
            else
                close(exchange->socket);
            if (load.started < count)
                exchange_start(keep ? &all[load.started] : exchange);
        }
    }
    if (keep) {
        printf("ready %u\n", load.done);
        fflush(stdout);
        char octet;
        while (read(0, &octet, 1) > 0)
            continue;
    }
    report(monotonic_seconds() - began, each, load.done);
}

static void round_trips(unsigned count)
{
    double *each = zeroed(count, sizeof *each);
    int opened = new_socket(0);
    struct timeval silence = {.tv_sec = SILENCE_MS / 1000};
    setsockopt(opened, SOL_SOCKET, SO_RCVTIMEO, &silence, sizeof silence);
    if (connect(opened, (struct sockaddr *)&server, sizeof server) != 0)
        give_up("connect: %s", strerror(errno));
    double began = monotonic_seconds();
    for (unsigned i = 0; i < count; i++) {
        char message[MESSAGE_SIZE], answer[MESSAGE_SIZE];
        message_fill(message, i);
        double sent = monotonic_seconds();
        if (send(opened, message, MESSAGE_SIZE, MSG_NOSIGNAL) != MESSAGE_SIZE)
            give_up("send: %s", strerror(errno));
        ssize_t length = recv(opened, answer, MESSAGE_SIZE, MSG_WAITALL);
        if (length != MESSAGE_SIZE || memcmp(answer, message, MESSAGE_SIZE) != 0)
            give_up("what came back is not what was sent");
        each[load.done++] = monotonic_seconds() - sent;
    }
    report(monotonic_seconds() - began, each, load.done);
}

/* ---- the command line ---- */

static unsigned number_from(const char *text)
{
    char *end = NULL;
    unsigned long number = strtoul(text, &end, 10);
    if (!*text || *end || number > 10000000)
        give_up("not a number: %s", text);
    return (unsigned)number;
}

int main(int count, char **words)
{
    if (count < 4)
        give_up("usage: tcpload serve|connections|round-trips|idle ADDRESS PORT [COUNT [AT_ONCE]]");
    signal(SIGPIPE, SIG_IGN);
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    server.sin_family = AF_INET;
    server.sin_port = htons((uint16_t)number_from(words[3]));
    if (inet_pton(AF_INET, words[2], &server.sin_addr) != 1)
        give_up("not an IPv4 address: %s", words[2]);
    epoll = epoll_create1(EPOLL_CLOEXEC);
    const char *verb = words[1];
    unsigned number = count > 4 ? number_from(words[4]) : 0;
    if (strcmp(verb, "serve") == 0)
        serve();
    else if (strcmp(verb, "connections") == 0 && count == 6)
        exchanges(number, number_from(words[5]), false);
    else if (strcmp(verb, "round-trips") == 0 && count == 5)
        round_trips(number);
    else if (strcmp(verb, "idle") == 0 && count == 5)
        exchanges(number, CONNECTIONS_AT_ONCE_TO_OPEN, true);
    else
        give_up("unknown: %s with %d arguments", verb, count - 2);
    return load.failed ? 1 : 0;
}
