/* Vectors, start, and what happens when nothing else can. Includes what the compiler calls by itself. */
#include <stddef.h>
#include <stdint.h>

#include "serial.h"

extern uint32_t data_image[], data_begin[], data_end[], bss_begin[], bss_end[], stack_top[];

int main(void);
void serial_interrupt(void);
void reset_handler(void);
void fault_handler(void);

#define COPROCESSORS (*(volatile uint32_t *)0xE000ED88u)
#define VECTOR_TABLE (*(volatile uint32_t *)0xE000ED08u)

typedef void (*vector_t)(void);

/* Every interrupt goes to the serial line: serial.c enables those that are its own and no others. */
__attribute__((section(".vectors"), used)) static const struct {
  void *stack;
  vector_t core[15];
  vector_t interrupts[48];
} vectors = {
    stack_top,
    {reset_handler, [1 ... 14] = fault_handler},
    {[0 ... 47] = serial_interrupt},
};

void reset_handler(void) {
  COPROCESSORS |= 0xFu << 20; /* the floating-point unit */
  __asm volatile("dsb\n isb");
  VECTOR_TABLE = (uint32_t)&vectors;
  uint32_t *from = data_image;
  for (uint32_t *to = data_begin; to < data_end;) *to++ = *from++;
  for (uint32_t *to = bss_begin; to < bss_end;) *to++ = 0;
  main();
}

/* Say where, and wait for a reset. `frame` is what the core pushed: r0 to r3, r12, lr, pc, xpsr. */
__attribute__((used, noreturn)) static void report_fault(const uint32_t *frame) {
  serial_put("e-[Hard fault at 0x");
  serial_put_hex(frame[6], 8);
  serial_put("; reset the board]\r\n");
  serial_stop();
  for (;;) __asm volatile("cpsid i\n wfi");
}

__attribute__((naked)) void fault_handler(void) { __asm volatile("mrs r0, msp\n b report_fault"); }

void *memcpy(void *to, const void *from, size_t count) {
  for (size_t i = 0; i < count; i++) ((uint8_t *)to)[i] = ((const uint8_t *)from)[i];
  return to;
}

void *memset(void *to, int value, size_t count) {
  for (size_t i = 0; i < count; i++) ((uint8_t *)to)[i] = (uint8_t)value;
  return to;
}
