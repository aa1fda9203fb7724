#include "clock.h"

#include BOARD_HEADER

/* The counter of the FPGA's system registers. The core's own cycle counter is not modelled by QEMU. */
#define COUNTER (*(volatile uint32_t *)(FPGAIO_BASE + 0x18u))
#define PRESCALE (*(volatile uint32_t *)(FPGAIO_BASE + 0x1cu))

void clock_start(void) { PRESCALE = CLOCK_MHZ - 1u; }

uint32_t clock_us(void) { return COUNTER; }
