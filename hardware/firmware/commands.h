/* The commands of the protocol. */
#pragma once

/* Tell the host who is there. */
void commands_start(void);

/* Run one command, given without its %; `command` is written to. */
void commands_run(char *command);
