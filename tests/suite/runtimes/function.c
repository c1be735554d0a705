/* The conformance function in C: `end_to_end/runtimes.rs` says what it must do. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <threads.h>
#include <unistd.h>
#include <vilya.h>

static mtx_t lock;
static cnd_t changed;
static int present;

static int say(vilya_response *response, const char *text) {
  return vilya_write(response, text, strlen(text)) == 0 ? 0 : vilya_raise(response, "TooLarge", "no room");
}

static int meet(vilya_response *response) {
  mtx_lock(&lock);
  present++;
  cnd_broadcast(&changed);
  while (present < 4) cnd_wait(&changed, &lock);
  mtx_unlock(&lock);
  return say(response, "met");
}

static int echo(const vilya_request *request, vilya_response *response) {
  size_t bytes;
  const void *payload = vilya_payload(request, &bytes);
  const char *content_type = vilya_content_type(request);
  if (content_type && vilya_set_content_type(response, content_type)) return vilya_raise(response, "Error", "content type");
  void *out = vilya_reserve(response, bytes);
  if (!out) return vilya_raise(response, "TooLarge", "no room");
  memcpy(out, payload, bytes);
  return 0;
}

static int parts(const char *word, vilya_response *response) {
  if (vilya_set_content_type(response, "text/csv")) return vilya_raise(response, "Error", "content type");
  if (!strcmp(word, "parts")) {
    if (say(response, "one,") || vilya_send_part(response) || say(response, "zwei,") || vilya_send_part(response)) return 1;
    if (vilya_send_part(response)) return 1;
    return say(response, "three");
  }
  if (!strcmp(word, "parts large")) {
    for (int number = 0; number < 64; number++) {
      void *room = vilya_reserve(response, 1 << 20);
      if (!room) return 1;
      memset(room, number, 1 << 20);
      if (vilya_send_part(response)) return 1;
    }
    return 0;
  }
  if (!strcmp(word, "parts raise") || !strcmp(word, "parts exit")) {
    if (say(response, "begun") || vilya_send_part(response)) return 1;
    if (!strcmp(word, "parts exit")) exit(3);
    return vilya_raise(response, "Refused", "in the middle");
  }
  for (;;) {
    if (say(response, "tick\n")) return 1;
    if (vilya_send_part(response)) {
      puts("not taken");
      return 1;
    }
  }
}

static int handler(const vilya_request *request, vilya_response *response, void *context) {
  (void)context;
  size_t bytes;
  const char *payload = vilya_payload(request, &bytes);
  char word[16] = {0};
  memcpy(word, payload, bytes < 15 ? bytes : 15);
  if (!strcmp(word, "raise")) return vilya_raise(response, "Refused", "asked \"to\"");
  if (!strcmp(word, "exit")) exit(3);
  if (!strcmp(word, "id")) return say(response, vilya_id(request));
  if (!strcmp(word, "environment")) return say(response, getenv("GREETING"));
  if (!strcmp(word, "meet")) return meet(response);
  if (!strcmp(word, "large")) return vilya_reserve(response, vilya_limit(response) + 1) ? 0 : vilya_raise(response, "TooLarge", "no room");
  if (!strcmp(word, "print")) {
    printf("to stdout");
    fprintf(stderr, "to stderr\n");
    printf("\n");
    return 0;
  }
  if (!strcmp(word, "remaining")) {
    char text[32];
    snprintf(text, sizeof text, "%llu", (unsigned long long)(vilya_remaining_ns(request) / 1000000));
    return say(response, text);
  }
  if (!strcmp(word, "wait")) {
    puts("waiting");
    fflush(stdout);
    while (!vilya_cancelled(request)) usleep(5000);
    puts("gave up");
    return 0;
  }
  if (!strncmp(word, "parts", 5)) return parts(word, response);
  return echo(request, response);
}

int main(void) {
  if (getenv("BROKEN")) return 4;
  mtx_init(&lock, mtx_plain);
  cnd_init(&changed);
  return vilya_run(handler, NULL);
}
