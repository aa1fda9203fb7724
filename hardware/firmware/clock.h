/* A counter of microseconds that wraps after 2^32. */
#pragma once
#include <stdint.h>

void clock_start(void);
uint32_t clock_us(void);
