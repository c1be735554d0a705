/* Gives a request's bytes back in reverse. */
#include <vilya.h>

static int reverse(const vilya_request *request, vilya_response *response, void *context) {
  (void)context;
  size_t bytes;
  const uint8_t *payload = vilya_payload(request, &bytes);
  uint8_t *out = vilya_reserve(response, bytes);
  if (!out) return vilya_raise(response, "TooLarge", "the answer would be larger than the worker takes");
  for (size_t at = 0; at < bytes; at++) out[at] = payload[bytes - 1 - at];
  vilya_set_content_type(response, "application/octet-stream");
  return 0;
}

int main(void) { return vilya_run(reverse, NULL); }
