/* The serial line to the host (UART 0) and the line of the timing edges (UART 1). */
#pragma once
#include <stdint.h>

void serial_start(void);

/* Return the next byte from the host; sleeps until there is one. */
char serial_get(void);

void serial_put(const char *text);
void serial_put_number(int32_t value);
void serial_put_unsigned(uint32_t value);
void serial_put_hex(uint32_t value, int digits);

/* Give one edge to a power meter: a byte on UART 1 stands for the falling edge of a pin. */
void serial_edge(void);

/* Take no more bytes, for a board that plays dead. */
void serial_stop(void);
