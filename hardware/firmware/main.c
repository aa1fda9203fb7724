/* Answer MLPerf Tiny's serial protocol: commands that end with %, lines that end with CR LF, "m-ready" after each. */
#include <stdint.h>

#include "clock.h"
#include "commands.h"
#include "serial.h"

#define COMMAND_CHARACTERS 80

int main(void) {
  static char command[COMMAND_CHARACTERS + 1];
  int length = 0;
  clock_start();
  serial_start();
  commands_start();
  for (;;) {
    char c = serial_get();
    if (c == '%') {
      command[length] = 0;
      commands_run(command);
      length = 0;
    } else {
      command[length] = c; /* of a command that is too long, the last place holds its last character */
      if (length < COMMAND_CHARACTERS) length++;
    }
  }
}
