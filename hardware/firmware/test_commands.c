#include "test_commands.h"

#ifdef TEST_COMMANDS

#include <stddef.h>
#include <stdint.h>

#include "serial.h"

#define RESET_CONTROL (*(volatile uint32_t *)0xE000ED0Cu)
#define RESET_REQUEST 0x05FA0004u

static char asked; /* first letter of what is to happen, 0 for nothing */
static int inferences;

static void happen(char what) {
  if (what == 'f') __asm volatile("udf #0");
  if (what == 'r') RESET_CONTROL = RESET_REQUEST;
  serial_stop();
  for (;;) __asm volatile("cpsid i\n wfi"); /* hangs without keeping a processor busy */
}

static bool is(const char *word, const char *name) {
  while (*word && *word == *name) word++, name++;
  return *word == *name;
}

bool test_commands_run(const char *word, const char *count) {
  if (!is(word, "hang") && !is(word, "fault") && !is(word, "reset")) return false;
  if (count == NULL) happen(*word);
  asked = *word;
  inferences = 0;
  for (; *count >= '0' && *count <= '9'; count++) inferences = inferences * 10 + (*count - '0');
  return true;
}

void test_commands_before_inference(void) {
  if (asked && --inferences <= 0) happen(asked);
}

#else

bool test_commands_run(const char *word, const char *count) {
  (void)word, (void)count;
  return false;
}

void test_commands_before_inference(void) {}

#endif
