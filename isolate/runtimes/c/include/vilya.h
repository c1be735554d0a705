/* Functions for Vilya in C.
 *
 * A function is a program whose main hands a handler to vilya_run:
 *
 *     static int handler(const vilya_request *request, vilya_response *response, void *context) {
 *         size_t bytes;
 *         const void *payload = vilya_payload(request, &bytes);
 *         void *out = vilya_reserve(response, bytes);
 *         if (!out) return vilya_raise(response, "TooLarge", "the answer is too large");
 *         memcpy(out, payload, bytes);
 *         return 0;
 *     }
 *     int main(void) { return vilya_run(handler, NULL); }
 *
 * Link it with libvilya_c.a and -lpthread -ldl -lm, and name the executable as the handler of a function whose runtime
 * is "c".
 *
 * Both arguments of a handler, and what the calls below give out of them, are valid until the handler returns, and
 * belong to the thread that it was called on. Texts end with a NUL and must not be freed. A handler must return: neither
 * longjmp nor a C++ exception may leave it.
 */
#ifndef VILYA_H
#define VILYA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct vilya_request vilya_request;
typedef struct vilya_response vilya_response;

/* Answers one invocation: 0 answers with the response, anything else fails the invocation (see vilya_raise) and keeps the
 * sandbox. Called from as many threads at once as the function's concurrency; context is what vilya_run was given. */
typedef int (*vilya_handler)(const vilya_request *request, vilya_response *response, void *context);

/* Serves invocations until the worker says stop, then returns 0. Returns 1, after printing why to stderr, when this process
 * is not a sandbox of a worker. What stdio holds back is flushed before each answer. */
int vilya_run(vilya_handler handler, void *context);

/* The request's bytes, their number in *bytes. Large ones are read where the worker received them. Never NULL. */
const void *vilya_payload(const vilya_request *request, size_t *bytes);

/* The request's id: 32 hexadecimal digits. */
const char *vilya_id(const vilya_request *request);

/* The content type that the client named; NULL when it named none. */
const char *vilya_content_type(const vilya_request *request);

/* The client's W3C traceparent; NULL when it sent none. */
const char *vilya_trace_parent(const vilya_request *request);

/* When the worker received the request, in milliseconds since the Unix epoch. */
uint64_t vilya_received_unix_ms(const vilya_request *request);

/* When the worker gives the invocation up, in nanoseconds of CLOCK_MONOTONIC. */
uint64_t vilya_deadline_ns(const vilya_request *request);

/* The nanoseconds left until then; 0 when it has passed. */
uint64_t vilya_remaining_ns(const vilya_request *request);

/* Whether nobody waits for the answer any more. Advice: a handler may stop early, and must return all the same. */
bool vilya_cancelled(const vilya_request *request);

/* Makes the response this long and gives it to be written in place, where the worker reads it; what it held is lost, and
 * what is not written is unspecified. NULL when it is more than a response may have. */
void *vilya_reserve(vilya_response *response, size_t bytes);

/* Appends to the response. 0, or -1 when it would be more than a response may have; nothing was appended then. */
int vilya_write(vilya_response *response, const void *data, size_t bytes);

/* Sends what the response has so far as a part of it, and waits until it was taken; the response is empty again, and has room for as much
 * as before. What the handler returns with is the last part; if it fails after a part, the client sees that its answer is cut short.
 * 0, or -1 when nobody takes any more: return then. */
int vilya_send_part(vilya_response *response);

/* Shortens the response; one that is shorter stays as it is. */
void vilya_truncate(vilya_response *response, size_t bytes);

/* The most bytes a response may have. */
size_t vilya_limit(const vilya_response *response);

/* Names the response's content type. 0, or -1 when it is too long or not printable ASCII. */
int vilya_set_content_type(vilya_response *response, const char *content_type);

/* Says of what type the error is that the handler is about to return, and what happened. Always 1, so that a handler can
 * `return vilya_raise(...)`. A handler that returns anything but 0 without it fails with type "Error". */
int vilya_raise(vilya_response *response, const char *error_type, const char *message);

#ifdef __cplusplus
}
#endif

#endif
