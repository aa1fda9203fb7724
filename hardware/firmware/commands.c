#include "commands.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "clock.h"
#include "model.h"
#include "serial.h"
#include "test_commands.h"
#include BOARD_HEADER

#define BUFFER_BYTES 27648 /* 96 * 96 * 3, the largest input among MLPerf Tiny's models */
#define FIRMWARE "ULPMark for tinyML Firmware V0.0.1"
#define WARM_UPS 10

static uint8_t buffer[BUFFER_BYTES];
static int expected, received;

/* --- words ---------------------------------------------------------------------------------------- */

/* Cut the next word off `rest`; NULL when there is none. */
static char *next_word(char **rest) {
  char *word = *rest;
  while (*word == ' ') word++;
  if (*word == 0) return NULL;
  char *end = word;
  while (*end && *end != ' ') end++;
  if (*end) *end++ = 0;
  *rest = end;
  return word;
}

static bool same(const char *a, const char *b) {
  while (*a && *a == *b) a++, b++;
  return *a == *b;
}

static int number(const char *text) {
  bool negative = *text == '-';
  int32_t value = 0;
  for (text += negative; *text >= '0' && *text <= '9'; text++)
    if (value < 100000000) value = value * 10 + (*text - '0');
  return negative ? -value : value;
}

static int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

/* --- time ----------------------------------------------------------------------------------------- */

#ifdef ENERGY_MODE
#define MODE "energy"
static uint32_t take_time(void) { return serial_edge(), 0; }
static void tell_time(uint32_t time) { (void)time; } /* nothing but the edge may cost power */
#else
#define MODE "performance"
static uint32_t take_time(void) { return clock_us(); }
static void tell_time(uint32_t time) {
  serial_put("m-lap-us-");
  serial_put_unsigned(time);
  serial_put("\r\n");
}
#endif

/* --- commands ------------------------------------------------------------------------------------- */

static void load_buffer(char *count) {
  if (count == NULL) {
    serial_put("e-[Command 'db load' requires the # of bytes]\r\n");
    return;
  }
  int wanted = number(count);
  expected = received = 0;
  if (wanted == 0) {
    serial_put("e-[Command 'db load' must be >0 bytes]\r\n");
  } else if (wanted < 0 || wanted > BUFFER_BYTES) {
    serial_put("Supplied buffer size ");
    serial_put_number(wanted);
    serial_put(" exceeds maximum of ");
    serial_put_number(BUFFER_BYTES);
    serial_put("\n");
  } else {
    expected = wanted;
    serial_put("m-[Expecting ");
    serial_put_number(wanted);
    serial_put(" bytes]\r\n");
  }
}

static void print_buffer(void) {
  for (int i = 0; i < expected; i++) {
    serial_put(i % 8 == 0 ? "m-buffer-" : "-");
    serial_put_hex(buffer[i], 2);
    if (i % 8 == 7 || i == expected - 1) serial_put("\r\n");
  }
}

static void fill_buffer(const char *digits) {
  int count = 0;
  while (digits[count]) count++;
  if (count % 2) {
    serial_put("e-[Insufficent number of hex digits]\r\n"); /* spelt as in the protocol */
    return;
  }
  if (received >= expected) {
    serial_put("e-[No bytes are expected; send 'db load' first]\r\n");
    return;
  }
  for (int i = 0; i < count; i += 2) {
    int high = hex_digit(digits[i]), low = hex_digit(digits[i + 1]);
    if (high < 0 || low < 0) {
      char pair[3] = {digits[i], digits[i + 1], 0};
      serial_put("e-[Invalid hex digit '");
      serial_put(pair);
      serial_put("']\r\n");
      return;
    }
    buffer[received++] = (uint8_t)(high << 4 | low);
    if (received == expected) {
      serial_put("m-load-done\r\n");
      return;
    }
  }
}

static void run_buffer_command(char *rest) {
  char *word = next_word(&rest);
  if (word == NULL)
    serial_put("e-[Command 'db' requires a subcommand]\r\n");
  else if (same(word, "load"))
    load_buffer(next_word(&rest));
  else if (same(word, "print"))
    print_buffer();
  else
    fill_buffer(word);
}

static void print_results(void) {
  serial_put("m-results-[");
  for (int i = 0; i < model_outputs; i++) {
    int32_t milli = model_result_milli(i);
    uint32_t size = milli < 0 ? 0u - (uint32_t)milli : (uint32_t)milli;
    serial_put(i ? "," : "");
    serial_put(milli < 0 ? "-" : "");
    serial_put_unsigned(size / 1000);
    serial_put(size % 1000 < 10 ? ".00" : size % 1000 < 100 ? ".0" : ".");
    serial_put_unsigned(size % 1000);
  }
  serial_put("]\r\n");
}

/* Copy the loaded bytes into the model. Nothing loaded since the start is no error: the input stays as it is. */
static bool load_model(void) {
  if (expected == 0) return true;
  if (received == expected && received == model_input_bytes) {
    model_load(buffer);
    return true;
  }
  serial_put("e-[Input has ");
  serial_put_number(received);
  serial_put(" bytes, the model takes ");
  serial_put_number(model_input_bytes);
  serial_put("]\r\n");
  return false;
}

static void infer(void) {
  test_commands_before_inference();
  model_infer();
}

static void run_infer(char *rest) {
  int count = 1, warm_ups = WARM_UPS;
  char *word = next_word(&rest);
  if (word != NULL) count = number(word);
  if (count <= 0) {
    serial_put("e-[Inference iterations must be >0]\r\n");
    return;
  }
  if (word != NULL && (word = next_word(&rest)) != NULL) warm_ups = number(word);
  if (warm_ups < 0) {
    serial_put("e-[Inference warmup must be >=0]\r\n");
    return;
  }
  if (!load_model()) return;
  serial_put("m-warmup-start-");
  serial_put_number(warm_ups);
  serial_put("\r\n");
  for (int i = 0; i < warm_ups; i++) infer();
  serial_put("m-warmup-done\r\nm-infer-start-");
  serial_put_number(count);
  serial_put("\r\n");
  /* Both times are told after the second: a line takes longer to send than a small model to run. */
  uint32_t begin = take_time();
  for (int i = 0; i < count; i++) infer();
  uint32_t end = take_time();
  tell_time(begin);
  tell_time(end);
  serial_put("m-infer-done\r\n");
  print_results();
}

static void help(void) {
  serial_put(FIRMWARE
             "\r\n\r\n"
             "help            list the commands\r\n"
             "name            name of the device and its vendor\r\n"
             "profile         firmware and model\r\n"
             "timestamp       time of the board, or an edge in energy mode\r\n"
             "db load N       expect N bytes of input\r\n"
             "db HH[HH]*      the next bytes, in hexadecimal\r\n"
             "db print        show the bytes\r\n"
             "infer [N] [W]   W warm-up inferences (default 10), then N timed ones (default 1)\r\n"
             "results         outputs of the last inference\r\n");
}

void commands_run(char *command) {
  char *rest = command;
  char *word = next_word(&rest);
  if (word == NULL) word = rest;
  if (same(word, "name")) {
    serial_put("m-name-dut-[mlbench-" BOARD_NAME "]\r\n");
  } else if (same(word, "profile")) {
    serial_put("m-profile-[" FIRMWARE "]\r\nm-model-[");
    serial_put(model_id);
    serial_put("]\r\n");
  } else if (same(word, "timestamp")) {
    tell_time(take_time());
  } else if (same(word, "db")) {
    run_buffer_command(rest);
  } else if (same(word, "infer")) {
    run_infer(rest);
  } else if (same(word, "results")) {
    print_results();
  } else if (same(word, "help")) {
    help();
  } else if (!test_commands_run(word, next_word(&rest))) {
    serial_put("e-[Unknown command: ");
    serial_put(word);
    serial_put("]\r\n");
  }
  serial_put("m-ready\r\n");
}

void commands_start(void) {
  serial_put("m-timestamp-mode-" MODE "\r\n");
  tell_time(take_time());
  serial_put("m-init-done\r\nm-ready\r\n");
}
