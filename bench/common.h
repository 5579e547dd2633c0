/* What smtpload, smtpsink and tcpload share: the clock and a growing buffer.
 *
 * Promises: memory that cannot be had ends the program; a buffer never shrinks, so a warm one costs no allocation.
 * Not here: sockets and SMTP (the programs differ in both).
 */
#ifndef OUTGATE_BENCH_COMMON_H
#define OUTGATE_BENCH_COMMON_H

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* The header field that carries "<run id>-<number>", and the fixed lengths of the two. */
#define ID_FIELD "X-Bench-Message: "
#define RUN_ID_LENGTH 8
#define NUMBER_LENGTH 8
#define ID_LENGTH (RUN_ID_LENGTH + 1 + NUMBER_LENGTH)

typedef struct {
    char *data;
    size_t used;
    size_t room;
} Buffer;

/* Print a message and end with status 2. */
static inline void give_up(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    exit(2);
}

/* Seconds on the clock that every process of this machine shares. */
static inline double monotonic_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* Return `size` zeroed bytes. */
static inline void *zeroed(size_t number, size_t size)
{
    void *memory = calloc(number ? number : 1, size);
    if (!memory)
        give_up("out of memory");
    return memory;
}

/* Make room for `more` bytes behind those in use. */
static inline void buffer_reserve(Buffer *buffer, size_t more)
{
    if (buffer->room - buffer->used >= more)
        return;
    buffer->room = (buffer->used + more) * 2;
    buffer->data = realloc(buffer->data, buffer->room);
    if (!buffer->data)
        give_up("out of memory");
}

/* Append bytes. */
static inline void buffer_add(Buffer *buffer, const void *bytes, size_t length)
{
    buffer_reserve(buffer, length);
    memcpy(buffer->data + buffer->used, bytes, length);
    buffer->used += length;
}

/* Append printf-style text. */
__attribute__((format(printf, 2, 3))) static inline void buffer_print(Buffer *buffer, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    va_list again;
    va_copy(again, arguments);
    int length = vsnprintf(NULL, 0, format, arguments);
    va_end(arguments);
    if (length < 0)
        give_up("cannot format");
    buffer_reserve(buffer, (size_t)length + 1);
    vsnprintf(buffer->data + buffer->used, (size_t)length + 1, format, again);
    va_end(again);
    buffer->used += (size_t)length;
}

/* Forget the first `length` bytes. */
static inline void buffer_consume(Buffer *buffer, size_t length)
{
    if (length == 0)
        return;
    buffer->used -= length;
    memmove(buffer->data, buffer->data + length, buffer->used);
}

#endif
