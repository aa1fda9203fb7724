/* Faults on demand, for tests of hosts: no part of the protocol, and only in images built with TEST_COMMANDS.

   hang [N]    fault [N]    reset [N]

   Without N at once; else in the N-th inference from now. */
#pragma once
#include <stdbool.h>

/* Run `word` if it is one of these; `count` is its argument or NULL. */
bool test_commands_run(const char *word, const char *count);

/* Do what was asked for, when this is the inference it was asked for. */
void test_commands_before_inference(void);
